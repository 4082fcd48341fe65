"""The runner with stand-in runs: resume, failures, interruption, slots."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from benchmarks.checking import check_in_child, check_specs
from benchmarks.cli import main
from benchmarks.composing import SUITES
from benchmarks.environment import ENVIRONMENT
from benchmarks.failures import last_error_line
from benchmarks.launchers.local import LocalLauncher, visible_gpus
from benchmarks.launchers.nursery import Nursery
from benchmarks.record import load_records
from benchmarks.runner import Places, state_of
from benchmarks.suite import load_suite, plan
from datamodules.errors import UserError
from tests.benchmarks.running import attempts, run, spec


@pytest.fixture(autouse=True)
def _importable(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")]))


@pytest.fixture
def places(tmp_path):
    return Places(tmp_path / "runs", "s")


def test_finished_runs_are_not_done_again(places):
    specs = [spec("ok", seed) for seed in range(3)]
    first, said = run(specs[:2], places)
    assert said.count("started") == said.count("finished  row ok, seed") == 2
    before = {path: path.read_bytes() for path in places.records.iterdir()}
    second, said = run(specs, places)
    assert "2 of 3 runs are finished already" in said
    assert said.count("started") == 1
    assert second.keys() == {item.key for item in specs}
    assert {path: path.read_bytes() for path in before} == before
    assert [attempts(places, item) for item in specs] == [1, 1, 1]
    assert first.items() <= second.items()


def test_a_logger_that_failed_is_told_beside_its_run(places):
    _, said = run([spec("unlogged"), spec("ok")], places)
    (line,) = [line for line in said.splitlines() if line.startswith("finished  row unlogged")]
    assert f"its wandb log is not whole, see {places.log(spec('unlogged').key)}" in line
    assert said.count("not whole") == 1


def test_a_failed_run_is_a_record_with_its_last_error_line_and_the_others_go_on(places):
    specs = [spec("crash"), spec("user_error"), spec("killed"), spec("silent"), spec("ok")]
    records, said = run(specs, places)
    assert [records[item.key].status for item in specs] == ["failed"] * 4 + ["finished"]
    errors = [records[item.key].error for item in specs[:4]]
    assert [error["line"] for error in errors[1:]] == [
        "data.halo = 0: too small; set it to 1",
        "killed by SIGKILL",
        "ended without a record",
    ]
    assert errors[0]["line"] == "ValueError: the loss is"
    assert errors[0]["reason"] == "exit code 1"
    assert errors[0]["tail"][0] == "about to fail"
    assert errors[0]["tail"][-1] == "not finite | at all"
    assert not [line for error in errors for line in error["tail"] if str(Path.cwd()) in line], "a record names no folder of the machine"
    assert [error["attempts"] for error in errors] == [1] * 4
    remedies = [error["remedy"] for error in errors]
    assert "diverged" in remedies[0]
    assert "as the line says" in remedies[1]
    assert "out of memory" in remedies[2]
    for item, error in zip(specs[:4], errors, strict=True):
        assert error["log"] == places.log(item.key).as_posix()
        assert Path(error["log"]).is_file()
        assert f"FAILED    {item.title}: {error['line']} (log: {error['log']})" in said
    assert load_records(places.records) == records


def test_a_failed_run_is_tried_again_from_the_start(places):
    item = spec("crash_once")
    records, _ = run([item], places)
    assert records[item.key].status == "failed"
    assert not (places.run(item.key) / "checkpoints").exists(), "its own state made it fail"
    records, _ = run([item], places)
    assert records[item.key].status == "finished"
    assert attempts(places, item) == 2


def test_a_failed_record_counts_attempts_tells_the_last_one_alone_and_knows_its_environment(places):
    item = spec("user_error")
    run([item], places)
    (places.run(item.key) / ENVIRONMENT).write_text(json.dumps({"cpu": "a processor", "git": {"commit": None}}))
    records, _ = run([item], places)
    assert records[item.key].error["attempts"] == 2
    assert records[item.key].error["tail"] == ["error: data.halo = 0: too small; set it to 1", "wandb: bye"]
    assert records[item.key].environment["cpu"] == "a processor"
    assert load_records(places.records) == records


def test_a_run_out_of_time_fails_and_keeps_its_checkpoint(places):
    item = spec("hang")
    records, _ = run([item, spec("ok")], places, timeout_seconds=3)
    assert "ran out of time" in records[item.key].error["reason"]
    assert records[spec("ok").key].status == "finished"
    assert (places.run(item.key) / "checkpoints" / "last.ckpt").is_file()
    assert_ended(places.run(item.key))


def assert_ended(work):
    """The run and its grandchild are gone (or zombies that nobody runs any more)."""
    pids = (work / "pids").read_text().split()
    assert len(pids) == 2
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        states = [Path(f"/proc/{pid}/stat") for pid in pids]
        alive = [path for path in states if path.exists() and path.read_text().rsplit(")", 1)[1].split()[0] != "Z"]
        if not alive:
            return
        time.sleep(0.05)
    pytest.fail(f"still alive: {alive}")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("inherited", ["SIG_DFL", "SIG_IGN"])
def test_interrupting_the_runner_ends_all_children_and_leaves_a_resumable_state(places, number, inherited):
    # A shell that starts a job in the background lets it ignore SIGINT.
    program = (
        f"import signal; signal.signal(signal.SIGINT, signal.{inherited})\n"
        "import sys; from pathlib import Path; sys.path.insert(0, sys.argv[2]); import test_runner as t\n"
        "places = t.Places(Path(sys.argv[1]), 's')\n"
        "t.run([t.spec('ok'), t.spec('hang'), t.spec('hang', 1), t.spec('ok', 1)], places)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program, str(places.runs), str(Path(__file__).parent)], stderr=subprocess.PIPE, start_new_session=True
    )
    hanging = [spec("hang"), spec("hang", 1)]
    deadline = time.monotonic() + 60
    while not all((places.run(item.key) / "pids").is_file() and (places.run(item.key) / "pids").read_text() for item in hanging):
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(number)
    _, stderr = process.communicate(timeout=30)
    assert b"KeyboardInterrupt" in stderr
    for item in hanging:
        assert_ended(places.run(item.key))
    records = load_records(places.records)
    assert [state_of(item, records, places) for item in (spec("ok"), *hanging, spec("ok", 1))] == [
        "finished",
        "interrupted",
        "interrupted",
        "waiting",
    ]


def test_slots_share_cores_and_gpus(places):
    assert LocalLauncher(cores=8).num_slots == 8
    assert LocalLauncher(cores=8).share.threads == 1
    assert LocalLauncher(cores=8, max_parallel=2).share.threads == 4
    assert LocalLauncher(cores=1, max_parallel=4).share.threads == 1
    pairs = LocalLauncher(cores=16, gpus=["4", "5", "6", "7"], devices_per_run=2)
    assert [pairs.environment(slot)["CUDA_VISIBLE_DEVICES"] for slot in range(pairs.num_slots)] == ["4,5", "6,7"]
    assert pairs.share.threads == 4
    assert pairs.share.environment()["OMP_NUM_THREADS"] == "4"
    assert "CUDA_VISIBLE_DEVICES" not in LocalLauncher(cores=2).environment(0)
    for wrong in ({"gpus": ["0"], "devices_per_run": 2}, {"gpus": ["0"], "max_parallel": 2}, {"max_parallel": 0}):
        with pytest.raises(UserError):
            LocalLauncher(cores=2, **wrong)


class Answering(Nursery):
    """Gives an answer that is known beforehand."""

    def __init__(self, code, said):
        super().__init__(forks=False)
        self.answer = code, said

    def ask(self, module, text=""):
        assert (module, text) == ("benchmarks.launchers.gpus", "")
        return self.answer


def test_only_visible_gpus_are_used():
    two = Answering(0, "a warning\nGPUs: 2\nanother\n")
    assert visible_gpus(two, {}) == ["0", "1"]
    assert visible_gpus(two, {"CUDA_VISIBLE_DEVICES": "3, 5"}) == ["3", "5"]
    for broken in (Answering(1, "Traceback\nOSError: no driver\n"), Answering(-9, "")):
        with pytest.raises(UserError, match="cannot be counted"):
            visible_gpus(broken, {})


@pytest.mark.slow
def test_gpus_are_counted_in_a_process_of_their_own():
    import torch

    assert len(visible_gpus(Nursery(forks=False), {})) == torch.cuda.device_count()


def test_a_run_gets_its_threads(places):
    item = spec("ok")
    run([item], places)
    environment = json.loads((places.run(item.key) / "environment.json").read_text())
    assert environment["OMP_NUM_THREADS"] == environment["threads_granted"] == "1"


@pytest.mark.parametrize(
    ("log", "line"),
    [
        ("", ""),
        ("one\n\n  two  \n\n", "two"),
        ("Traceback\n  x\ntorch.OutOfMemoryError: CUDA out of memory\nwandb: Find logs at", "torch.OutOfMemoryError: CUDA out of memory"),
        ("ValueError: first\nRuntimeError: second\nbye", "RuntimeError: second"),
        ("error: a = 1: wrong; mend it\n", "a = 1: wrong; mend it"),
        ("--- attempt of 2026\nerror: mended since\n--- attempt of 2027\nbye", "bye"),
    ],
)
def test_last_error_line(tmp_path, log, line):
    (tmp_path / "log.txt").write_text(log)
    assert last_error_line(tmp_path / "log.txt") == line


def test_a_corrupt_record_stops_every_command_with_one_line(tmp_path, capsys):
    (tmp_path / "results" / "records").mkdir(parents=True)
    broken = tmp_path / "results" / "records" / "0123456789ab.json"
    broken.write_text("{")
    for command in ("run", "status", "report"):
        with pytest.raises(UserError, match="corrupt record") as caught:
            main([command, "demo", "--runs", str(tmp_path / "runs"), "--results", str(tmp_path / "results")])
        assert str(broken) in str(caught.value)
        assert caught.value.exit_code == 1
    assert not (tmp_path / "runs").exists(), "told before any data were made"


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"method": "deplab"}, ["deeplab"]),
        ({"hyperparameters": {"network": {"encodr": "x"}}}, ["encodr"]),
        ({"hyperparameters": {"loss": {"bce_weight": "much"}}}, ["bce_weight", "much"]),
        ({"data_settings": {"tile_sice": 64}}, ["data.settings.tile_sice", "did you mean tile_size"]),
        ({"data_settings": {"tile_size": "big"}}, ["tile_size", "big"]),
    ],
)
def test_what_no_method_or_data_module_takes_is_refused_before_anything_starts(change, told):
    with pytest.raises(UserError) as caught:
        check_specs([spec("deeplab"), dataclasses.replace(spec("deeplab", 1), name="wrong", **change)])
    assert caught.value.exit_code == 2
    for words in [*told, "row wrong"]:
        assert words in str(caught.value)


@pytest.mark.slow
def test_the_runner_asks_a_child_and_passes_its_answer_on():
    with Nursery() as nursery:
        check_in_child(nursery, [spec("deeplab")])
        with pytest.raises(UserError, match=r"row deeplab.*did you mean deeplab") as caught:
            check_in_child(nursery, [dataclasses.replace(spec("deeplab"), method="deplab")])
    assert caught.value.exit_code == 2


def test_the_error_of_a_check_is_told_and_not_what_a_library_says_after_it():
    class Said(Nursery):
        def ask(self, module, text=""):
            return 2, "a word before\nerror: row deeplab: it is wrong\nlibrary: goodbye\n"

    with pytest.raises(UserError, match=r"^row deeplab: it is wrong$"):
        check_in_child(Said(), [spec("deeplab")])


@pytest.mark.parametrize("path", sorted(SUITES.glob("*.yaml")), ids=lambda path: path.stem)
def test_shipped_suites_fit_the_signatures(path):
    check_specs(plan(load_suite(path.stem)))


def test_planning_imports_nothing_heavy():
    program = (
        "import sys, benchmarks.cli; from benchmarks.suite import load_suite, plan; plan(load_suite('demo'))\n"
        "print(*{'torch', 'lightning', 'wandb', 'zoo'} & sys.modules.keys())"
    )
    finished = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (finished.returncode, finished.stdout.strip(), finished.stderr) == (0, "", "")


def test_a_report_is_made_without_lightning_and_encoders():
    code = "import sys; import benchmarks.report.derived; print(*{'lightning', 'torchmetrics', 'torchvision', 'timm'} & sys.modules.keys())"
    finished = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert finished.stdout.strip() == "", "they take several times as long to import as all the rest"
