"""What all launchers share: room, retries with their reasons, the end of what is under way; and the options that choose one."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from benchmarks.launchers import Again, Ended, Job, Launcher, Share, Started
from benchmarks.launchers.process import attend, inherited
from benchmarks.runner import Places
from datamodules.errors import UserError
from tests.benchmarks.running import attempts, run, spec
from tests.benchmarks.test_suite_commands import call, root  # noqa: F401 - fixtures

ROOT = Path(__file__).parents[2]


class Scripted(Launcher):
    """Attempts end as told, in the order in which they begin."""

    poll_seconds = 0.0

    def __init__(self, *ends, **kwargs):
        super().__init__(Share(), **kwargs)
        self.ends, self.under_way, self.most, self.ended_early = list(ends), 0, 0, []

    def submit(self, jobs):
        for job in jobs:
            self.under_way += 1
            self.most = max(self.most, self.under_way)
            yield Scene(self, job, self.ends.pop(0))

    def end(self, attempts):
        self.ended_early = [attempt.job.key for attempt in attempts]


class Scene:
    def __init__(self, launcher, job, end):
        self.job, self.news = job, iter([Started(job.key), None, Ended(job.key, **{"returncode": 0, "seconds": 1.0, **end})])
        self.launcher = launcher

    def poll(self):
        event = next(self.news)
        self.launcher.under_way -= isinstance(event, Ended)
        return event


def job(key):
    return Job(key, (), Path("log"))


def events(launcher, *keys):
    return [event for event in launcher.execute([job(key) for key in keys]) if event is not None]


def test_what_was_killed_is_tried_again_with_the_reason_and_what_failed_is_not():
    launcher = Scripted({"returncode": -9}, {"returncode": 1}, {"returncode": -9, "lost": "the node died"}, {}, retries=2)
    found = events(launcher, "a", "b")
    assert [event for event in found if isinstance(event, Again)] == [
        Again("a", "killed by SIGKILL", 2, 3),
        Again("a", "the node died", 3, 3),
    ]
    assert [event for event in found if isinstance(event, Ended)] == [Ended("b", 1, 1.0), Ended("a", 0, 1.0, attempts=3)]
    assert sum(isinstance(event, Started) for event in found) == 4


def test_retries_come_to_an_end_and_a_timeout_is_none():
    (*_, last) = events(Scripted(*[{"returncode": -15}] * 3, retries=2), "a")
    assert (last.attempts, last.reason) == (3, "killed by SIGTERM, in the last of 3 attempts")
    found = events(Scripted({"returncode": -15, "timed_out": True}, retries=2), "a")
    assert [type(event) for event in found] == [Started, Ended]
    assert found[-1].reason == "ran out of time after 1 s"


def test_no_more_are_submitted_at_once_than_there_is_room_for():
    launcher = Scripted(*[{}] * 7, at_once=3)
    assert sum(isinstance(event, Ended) for event in events(launcher, *"abcdefg")) == 7
    assert launcher.most == 3


def test_leaving_the_loop_ends_what_is_under_way():
    launcher = Scripted(*[{}] * 4, at_once=2)
    loop = launcher.execute([job(key) for key in "abcd"])
    assert next(loop) == Started("a")
    loop.close()
    assert launcher.ended_early == ["a", "b"]


def test_a_run_that_keeps_being_killed_is_told_again_and_again_and_then_fails(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    places = Places(tmp_path, "s")
    records, said = run([spec("killed")], places, retries=1)
    error = records[spec("killed").key].error
    assert error["reason"] == "killed by SIGKILL, in the last of 2 attempts"
    assert "again     row killed, seed 0: killed by SIGKILL; attempt 2 of 2 follows" in said
    assert attempts(places, spec("killed")) == 2


def test_a_run_inside_a_slurm_job_does_not_take_itself_for_its_task():
    assert inherited({"SLURM_PROCID": "0", "SLURM_NTASKS": "1", "HOME": "/root"}) == {"HOME": "/root"}


ATTENDED = """
import os, sys
from pathlib import Path
from benchmarks.launchers import Job, Share
from benchmarks.launchers.process import attend
child = "import os, subprocess, sys, time; c = subprocess.Popen(['sleep', '600']); print(os.getpid(), c.pid, flush=True); time.sleep(600)"
attend(Job("a", (sys.executable, "-c", child), Path(sys.argv[1])), Share(), os.environ)
"""


@pytest.mark.parametrize("with_its_children", [False, True])
def test_a_job_does_not_outlive_a_worker_that_is_killed(tmp_path, with_its_children):
    """Ray kills the children of a worker too, one by one, and not what they have started."""
    log = tmp_path / "log.txt"
    worker = subprocess.Popen([sys.executable, "-c", ATTENDED, str(log)], env={**os.environ, "PYTHONPATH": str(ROOT)})
    deadline = time.monotonic() + 60
    while not log.is_file() or len(log.read_text().splitlines()) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    below = [psutil.Process(int(pid)) for pid in log.read_text().split()[-2:]]
    assert all(child.status() != psutil.STATUS_ZOMBIE for child in psutil.Process(worker.pid).children()), "while the job works"
    for child in psutil.Process(worker.pid).children() if with_its_children else ():
        child.kill()
    worker.kill()
    worker.wait()
    _, alive = psutil.wait_procs(below, timeout=10)
    assert not [process for process in alive if process.status() != psutil.STATUS_ZOMBIE]


def guards():
    """Living processes that lead the group of a job."""
    found = set()
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.status() != psutil.STATUS_ZOMBIE and any(part.endswith("guard.py") for part in process.cmdline()):
                found.add(process)
    return found


def test_an_attended_job_tells_its_end_and_its_guard_goes_with_it(tmp_path):
    before = guards()
    program = "import os; print(os.getcwd(), os.environ['OMP_NUM_THREADS'], {threads})"
    ended = attend(Job("a", (sys.executable, "-c", program), Path("log.txt"), folder=tmp_path), Share(threads=3), os.environ)
    assert (ended.returncode, ended.is_killed) == (0, False)
    assert (tmp_path / "log.txt").read_text().splitlines()[1] == f"{tmp_path} 3 3"
    sleeping = Job("a", (sys.executable, "-c", "import time; time.sleep(60)"), tmp_path / "late.txt")
    late = attend(sleeping, Share(timeout_seconds=0.5), os.environ)
    assert (late.timed_out, late.is_killed, late.returncode) == (True, False, -signal.SIGTERM)
    _, alive = psutil.wait_procs(guards() - before, timeout=10)
    assert not alive


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--launcher", "kubernetes"], "known: local, ray, slurm"),
        (["--slurm", "partition=gpu"], "add --launcher slurm"),
        (["--ray-address", "auto"], "add --launcher ray"),
        (["--launcher", "local", "--num-nodes", "2"], "add --launcher slurm"),
        (["--launcher", "slurm", "--slurm", "partition"], "OPTION=VALUE"),
        (["--launcher", "slurm", "--slurm", "time=1-00"], "number of minutes"),
        (["--launcher", "slurm", "--slurm", "array=1-3"], "leave it out"),
        (["--devices-per-run", "0"], "at least 1"),
        (["--retries", "-1"], "at least 0"),
    ],
)
def test_options_that_do_not_fit_are_refused(call, arguments, told):  # noqa: F811 - a fixture
    with pytest.raises(UserError) as caught:
        call("--dry-run", *arguments)
    assert told in str(caught.value)
    assert caught.value.exit_code == 2


def test_a_dry_run_prints_what_slurm_would_execute(call, capsys):  # noqa: F811 - a fixture
    pytest.importorskip("submitit")
    call("--dry-run", "--launcher", "slurm", "--num-nodes", "2", "--devices-per-run", "4", "--slurm", "partition=gpu")
    assert "--threads 4 --devices 4 --num-workers 3 --num-nodes 2" in capsys.readouterr().out
