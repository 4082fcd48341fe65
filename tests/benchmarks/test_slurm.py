"""SLURM by submitit: the sbatch script as text, jobs on this machine in its stead, a queue that is asked with care."""

import os
import re
import signal
import stat
import sys
import time
from pathlib import Path

import psutil
import pytest

from benchmarks.launchers import Ended, Job, Share
from benchmarks.leases import holder
from benchmarks.runner import Places
from benchmarks.suite import load_suite, plan
from datamodules.errors import UserError
from tests.benchmarks.running import attempts, run, spec

submitit = pytest.importorskip("submitit")

from benchmarks.launchers import slurm  # noqa: E402 - needs the extra
from benchmarks.launchers.slurm import SlurmLauncher  # noqa: E402

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def _importable(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))


@pytest.fixture
def places(tmp_path):
    return Places(tmp_path / "runs", "s")


@pytest.fixture
def commands(tmp_path, monkeypatch):
    """A login node: sbatch accepts all and keeps the script, squeue prints a file, scancel notes what it is told."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name, script in {
        "srun": "",
        "sbatch": f"cp $1 {tmp_path}/script.sh; echo Submitted batch job 7",
        "squeue": f"cat {tmp_path}/queue",
        "scancel": f"echo $1 >> {tmp_path}/cancelled",
    }.items():
        (folder / name).write_text(f"#!/bin/sh\n{script}\n")
        (folder / name).chmod(stat.S_IRWXU)
    (tmp_path / "queue").write_text("")
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr(slurm, "QUEUE_SECONDS", 0.0)
    return tmp_path


def jobs(count):
    return [Job(f"key{number}", ("true",), Path("log")) for number in range(count)]


def script(commands, count=3, **kwargs):
    launcher = SlurmLauncher(commands / "slurm", **kwargs)
    begun = list(launcher.submit(jobs(count)))
    assert len(begun) == count
    return (commands / "script.sh").read_text().splitlines(), launcher, begun


def test_the_script_of_an_array(commands):
    lines, _, _ = script(
        commands,
        max_parallel=2,
        devices_per_run=4,
        num_nodes=2,
        threads=6,
        timeout_seconds=3600,
        options={"partition": "gpu", "account": "me", "mail-user": "me@example.org"},
    )
    for option in (
        "array=0-2%2",
        "gres=gpu:4",
        "nodes=2",
        "ntasks-per-node=4",
        "cpus-per-task=6",
        "time=70",
        "partition=gpu",
        "account=me",
        "mail-user=me@example.org",
        "signal=USR2@90",
        "open-mode=append",
    ):
        assert f"#SBATCH --{option}" in lines
    assert "#SBATCH --requeue" in lines
    (srun,) = [line for line in lines if line.startswith("srun")]
    assert "--kill-on-bad-exit=1" in srun
    assert "--cpus-per-task=6" in srun
    assert f"{sys.executable} -u -m submitit.core._submit" in srun


def test_time_and_gres_are_the_users_and_none_means_cpu(commands):
    lines, launcher, _ = script(commands, options={"time": "240", "gres": "none"})
    assert "#SBATCH --time=240" in lines
    assert not [line for line in lines if "--gres" in line]
    assert not launcher.share.uses_gpus
    lines, launcher, _ = script(commands, options={"gres": "gpu:a100:1"})
    assert "#SBATCH --gres=gpu:a100:1" in lines
    assert f"#SBATCH --time={slurm.DEFAULT_MINUTES}" in lines
    assert launcher.share.uses_gpus


def test_what_an_earlier_runner_queued_is_waited_for_and_left_alone(commands):
    script(commands)
    (commands / "queue").write_text("7_1\n99\n")
    later = SlurmLauncher(commands / "slurm")
    again = {attempt.job.key: attempt for attempt in later.submit(jobs(3))}
    assert [key for key, attempt in again.items() if not attempt.is_own] == ["key1"]
    assert "#SBATCH --array=0-1%2" in (commands / "script.sh").read_text(), "the other two are queued anew"
    later.end(list(again.values()))
    assert sorted((commands / "cancelled").read_text().split()) == ["7_0", "7_1"], "those that the later runner submitted"


def test_a_job_that_left_the_queue_without_a_result_is_lost_and_one_with_a_result_is_done(commands):
    _, _, (first, second, third) = script(commands)
    (commands / "queue").write_text("7_0\n7_1\n")
    assert first.poll() is None
    third.submitted.paths.result_pickle.write_bytes(submitit.core.utils.pickle.dumps(("success", Ended("key2", 0, 5.0))))
    assert third.poll() == Ended("key2", 0, 5.0)
    (commands / "queue").write_text("7_0\n")
    second._gone_since = time.monotonic() - 60
    lost = second.poll()
    assert lost.is_killed
    assert lost.reason.startswith("job 7_1 ended without a result")
    (commands / "bin" / "squeue").write_text("#!/bin/sh\nexit 1\n")
    first._gone_since = time.monotonic() - 60
    assert first.poll() is None, "a controller that is away says nothing of jobs"


def test_a_refusal_of_sbatch_and_a_missing_package_are_told(commands, monkeypatch):
    (commands / "bin" / "sbatch").write_text("#!/bin/sh\necho 'invalid partition specified: gpuu' >&2\nexit 1\n")
    with pytest.raises(UserError, match=r"sbatch refuses.*invalid partition specified: gpuu"):
        list(SlurmLauncher(commands / "slurm", options={"partition": "gpuu"}).submit(jobs(2)))
    monkeypatch.setenv("PATH", str(commands))
    with pytest.raises(UserError, match="no SLURM on this machine"):
        list(SlurmLauncher(commands / "slurm").submit(jobs(1)))
    monkeypatch.setitem(sys.modules, "submitit", None)
    with pytest.raises(UserError, match=r"landslide-zoo\[slurm\]"):
        SlurmLauncher(commands / "slurm")


@pytest.mark.slow
def test_submitits_own_executor_does_a_suite_and_goes_on_after_a_preemption(places):
    specs = [spec("ok"), spec("crash"), spec("hang_once")]
    launcher = SlurmLauncher(places.work / "slurm", options={"gres": "none"}, cluster="local", retries=1)
    begun, submit, preempted = [], launcher.submit, []
    launcher.submit = lambda handed: (begun.append(attempt) or attempt for attempt in submit(handed))
    execute = launcher.execute

    def news(handed):
        for event in execute(handed):
            yield event
            if not preempted and (places.run(specs[2].key) / "pids").is_file():
                preempted.extend(attempt for attempt in begun if attempt.job.key == specs[2].key)
                (task,) = psutil.Process(int(preempted[0].submitted.job_id)).children()
                task.send_signal(signal.SIGUSR2)  # as SLURM does before the time limit, and at a preemption if it is told to

    launcher.execute = news
    records, said = run(specs, places, launcher)
    assert [records[item.key].status for item in specs] == ["finished", "failed", "finished"]
    assert records[specs[1].key].error["line"] == "ValueError: the loss is"
    assert [attempts(places, item) for item in specs] == [1, 1, 2]
    assert "again" not in said, "a requeue is no retry"
    assert not holder(places.run(specs[2].key))


def test_of_the_tasks_of_a_job_the_first_one_speaks(tmp_path, monkeypatch):
    job, registered = Job("a", (sys.executable, "-c", "import sys; sys.exit(75)"), tmp_path / "log"), []
    monkeypatch.setattr(slurm.atexit, "register", lambda *called: registered.append(called))
    monkeypatch.setenv("SLURM_PROCID", "1")
    assert slurm.Attended(job, Share(devices=2))().returncode == 75
    assert ((tmp_path / "log").read_text(), registered) == ("", [])
    monkeypatch.setenv("SLURM_PROCID", "0")
    assert slurm.Attended(job, Share(devices=2))().returncode == 75
    assert (tmp_path / "log").read_text().startswith("--- attempt of ")
    assert registered == [(os._exit, 1)], "srun ends the others"


def test_the_suite_of_the_real_trial_is_one(tmp_path):
    # The trial needs daemons and root, and is run by hand: its suite must not rot between two trials.
    script = (ROOT / "benchmarks" / "slurm_trial.sh").read_text()
    (suite,) = re.findall(r"<<YAML\n(.*?)^YAML$", script, re.DOTALL | re.MULTILINE)
    file = tmp_path / "trial.yaml"
    file.write_text(suite)
    methods = {spec.method for spec in plan(load_suite(str(file)), fingerprint="f")}
    assert methods == {"all_background", "deeplab", "hpcl_net"}
