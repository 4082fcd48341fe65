"""The logs beside a record: what wandb is told, that a failing logger harms nobody, that offline runs are sent once."""

import argparse
import json
import os
import socket
import struct
import subprocess
import sys
from pathlib import Path

import pytest
import wandb
from filelock import FileLock
from jsonargparse import ArgumentParser
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from benchmarks.loggers import LoggerOptions, add_logger_arguments
from benchmarks.loggers.running import Guarded, close, log_final, make_loggers, states
from benchmarks.loggers.syncing import sync_suite, sync_table
from benchmarks.record import RunRecord
from benchmarks.runner import Places
from benchmarks.spec import RunSpec
from datamodules.errors import UserError

BLOCK = 32768


@pytest.fixture(autouse=True)
def _environment():
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)


def make_spec(seed=0, method="icssn"):
    return RunSpec("a_suite", "row", method, {"network": {"inputs": "both"}}, "d", {}, {"max_steps": 1}, seed, "f")


def wandb_records(path):
    """What a log of wandb holds: protocol buffers in blocks of LevelDB's log format."""
    from wandb.proto.wandb_internal_pb2 import Record

    content, offset, parts, records = path.read_bytes(), 7, b"", []
    assert content[:4] == b":W&B"
    while offset + 7 <= len(content):
        left = BLOCK - offset % BLOCK
        if left < 7:
            offset += left
            continue
        _, length, kind = struct.unpack_from("<IHB", content, offset)
        parts += content[offset + 7 : offset + 7 + length]
        offset += 7 + length
        if kind in {1, 4}:  # whole, or the last part
            records.append(Record.FromString(parts))
            parts = b""
    return records


@pytest.mark.parametrize("parser", [argparse.ArgumentParser, ArgumentParser])
@pytest.mark.parametrize(
    "arguments",
    [[], ["--wandb", "off"], ["--wandb", "online", "--wandb-artifacts"], ["--loggers", "csv,tensorboard"], ["--loggers", "none"]],
)
def test_the_suite_hands_its_loggers_on_to_its_runs(parser, arguments):
    first, second = parser(), argparse.ArgumentParser()
    for each in (first, second):
        add_logger_arguments(each)

    def options(parsed):
        return LoggerOptions.parse(parsed.loggers, parsed.wandb, artifacts=parsed.wandb_artifacts)

    found = options(first.parse_args(arguments))
    assert sorted(found.arguments()) == sorted(arguments)
    assert options(second.parse_args(found.arguments())) == found


def test_loggers_that_cannot_be_are_refused_with_a_remedy(monkeypatch):
    with pytest.raises(UserError, match="known: csv, tensorboard, none"):
        LoggerOptions.parse("csv,mlflow", "off", artifacts=False)
    with pytest.raises(UserError, match="option of its own, --wandb"):
        LoggerOptions.parse("csv,wandb", "offline", artifacts=False)
    with pytest.raises(UserError, match="no wandb run"):
        LoggerOptions.parse("csv", "off", artifacts=True)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"landslide-zoo\[tensorboard\]"):
        LoggerOptions.parse("tensorboard", "off", artifacts=False)


def test_wandb_knows_the_run_by_its_key_also_when_it_resumes(tmp_path):
    spec = make_spec()
    weights = tmp_path / "best.ckpt"
    weights.write_bytes(b"weights")
    for resumed in (False, False, True):  # the second one begins anew and drops what the first one left
        loggers = make_loggers(spec, tmp_path, LoggerOptions(files=()), resumed=resumed)
        log_final(loggers, {"test": {"iou_landslide": 0.25}}, step=7)
        assert states(loggers) == {"wandb": "whole"}
        close(loggers, {"model": [weights]} if resumed else {})
        assert states(loggers) == {"wandb": "whole"}
    wandb.teardown()  # as at the end of a process: until then the last log may not be on disk
    logs = sorted(tmp_path.glob("wandb/offline-run-*/*.wandb"))
    assert [log.name for log in logs] == [f"run-{spec.key}.wandb"] * 2, "the resumed run is a second part of the same run"
    for log in logs:
        records = wandb_records(log)
        (run,) = [record.run for record in records if record.HasField("run")][:1]
        assert (run.project, run.run_group, run.job_type, run.run_id) == ("landslide-zoo", "a_suite", "icssn", spec.key)
        config = {item.key: json.loads(item.value_json) for item in run.config.update}
        assert {name: config[name] for name in spec.to_dict()} == spec.to_dict()
        history = [{"/".join(item.nested_key) or item.key: item.value_json for item in record.history.item} for record in records]
        assert any(row.get("final/test/iou_landslide") == "0.25" and row.get("trainer/global_step") == "7" for row in history)
    artifacts = [record.request.log_artifact.artifact for record in wandb_records(logs[1]) if record.request.HasField("log_artifact")]
    artifacts += [record.artifact for record in wandb_records(logs[1]) if record.HasField("artifact")]
    assert {(item.name, item.type) for item in artifacts} == {(f"model-{spec.key}", "model")}


def test_only_the_first_process_of_a_run_logs(tmp_path, monkeypatch):
    monkeypatch.setattr(rank_zero_only, "rank", 1)
    loggers = make_loggers(make_spec(), tmp_path, LoggerOptions(("csv", "tensorboard")), resumed=False)
    log_final(loggers, {"test": {"f1": 0.5}}, step=1)
    close(loggers, {})
    assert states(loggers) == dict.fromkeys(("csv", "tensorboard", "wandb"), "whole")
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_tensorboard_holds_the_final_metrics(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    loggers = make_loggers(make_spec(), tmp_path, LoggerOptions(("tensorboard",), "off"), resumed=False)
    log_final(loggers, {"test": {"f1": 0.5}}, step=3)
    events = EventAccumulator(str(tmp_path / "tensorboard" / "version_0")).Reload()
    assert [(event.step, event.value) for event in events.Scalars("final/test/f1")] == [(3, 0.5)]


def test_a_logger_that_fails_is_told_once_and_asked_no_more(tmp_path, monkeypatch, capsys):
    asked = []

    def fail(self, metrics, step):
        asked.append(step)
        raise OSError(28, "No space left\non device")

    monkeypatch.setattr(CSVLogger, "log_metrics", fail)
    logger = Guarded("csv", CSVLogger(tmp_path, name="csv"))
    for step in range(3):
        logger.log_metrics({"f1": 0.5}, step)
    assert asked == [0]
    assert states([logger]) == {"csv": "OSError: [Errno 28] No space left on device"}
    assert capsys.readouterr().out.count("warning: the csv log of this run ends here") == 1


def test_a_logger_that_cannot_start_refuses_the_run(tmp_path):
    (tmp_path / "wandb").write_text("a file where wandb wants a folder")
    (tmp_path / "csv").write_text("likewise")
    with pytest.raises(UserError, match=r"csv logger cannot start.*leave it out of --loggers"):
        make_loggers(make_spec(), tmp_path, LoggerOptions(("csv",), "off"), resumed=True)


FAKE_WANDB = """
import pathlib, sys, time
if {hang!r}: time.sleep(60)
for part in map(pathlib.Path, sys.argv[2:]):
    (log,) = part.glob("run-*.wandb")
    with open({calls!r}, "a") as file: file.write(part.name + "\\n")
    if log.read_bytes().endswith(b"refused"): sys.exit("wandb: uploading\\nwandb: ERROR run is refused\\n")
    if not log.read_bytes().endswith(b"ignored"): log.with_name(log.name + ".synced").touch()
"""


@pytest.fixture
def suite(tmp_path):
    """Specs, their records, places and the fake `wandb` of four runs: whole in two parts, refused, ignored, not finished."""
    places, specs = Places(tmp_path, "a_suite"), [make_spec(seed) for seed in range(7)]
    contents = [b":W&B whole", b":W&B refused", b":W&B ignored", b":W&B whole", b"", None, b":W&B whole"]
    for spec, content in zip(specs, contents, strict=True):
        for second in range(2):
            part = places.run(spec.key) / "wandb" / f"offline-run-2026_{second}-{spec.key}"
            part.mkdir(parents=True)
            if content is not None:
                (part / f"run-{spec.key}.wandb").write_bytes(content)
    records = {spec.key: RunRecord(spec.key, "finished", spec.to_dict()) for index, spec in enumerate(specs) if index != 3}

    def program(*, hang=False):
        path = tmp_path / "fake_wandb.py"
        path.write_text(FAKE_WANDB.format(calls=str(tmp_path / "calls"), hang=hang))
        return sys.executable, str(path)

    return specs, records, places, program


def test_sync_sends_each_finished_run_once_and_shows_what_is_broken(suite, tmp_path):
    specs, records, places, program = suite
    ending = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)", specs[6].key])
    lease = places.run(specs[6].key) / "lease.1.json"
    lease.write_text(json.dumps({"host": socket.gethostname(), "pid": ending.pid}))
    outcomes = sync_suite(specs, records, places, program=program())
    assert [outcome.state for outcome in outcomes] == [
        "sent",
        "broken: ERROR run is refused",
        "broken: exit code 0, and no marker beside the log",
        "not finished",
        f"broken: offline-run-2026_0-{specs[4].key}/run-{specs[4].key}.wandb is no wandb log",
        f"broken: there is no log in offline-run-2026_0-{specs[5].key}",
        f"in use: process {ending.pid} has written the record and is about to end",
    ]
    assert [outcome.failed for outcome in outcomes] == [False, True, True, False, True, True, True]
    ending.kill()
    ending.wait()
    calls = (tmp_path / "calls").read_text().split()
    assert calls[:2] == [f"offline-run-2026_{second}-{specs[0].key}" for second in range(2)], "both parts, the older one first"
    again = sync_suite(specs, records, places, program=program())
    assert [outcome.state for outcome in again][:2] == ["sent before", "broken: ERROR run is refused"]
    assert again[6].state == "sent"
    calls = (tmp_path / "calls").read_text().split()
    assert all(calls.count(call) == 1 for call in calls if specs[0].key in call or specs[6].key in call)
    assert sync_table("a_suite", again)[2][0] == [specs[0].title, specs[0].key, "sent before"]


def test_sync_gives_up_on_a_server_that_does_not_answer(suite):
    specs, records, places, program = suite
    (outcome,) = sync_suite(specs[:1], records, places, program=program(hang=True), timeout_seconds=0.6)
    assert outcome.state == "broken: not sent within 0.01 minutes"


def test_one_process_at_a_time_sends_a_suite(suite):
    specs, records, places, program = suite
    with FileLock(places.work / "sync.lock"), pytest.raises(UserError, match="another process sends"):
        sync_suite(specs, records, places, program=program())


def test_going_online_without_an_account_says_what_to_do(tmp_path):
    environment = {name: value for name, value in os.environ.items() if not name.startswith("WANDB")}
    environment |= {"HOME": str(tmp_path), "NETRC": str(tmp_path / "netrc"), "PYTHONPATH": str(Path(__file__).parents[2])}
    code = "from benchmarks.loggers import require_server; require_server()"
    done = subprocess.run([sys.executable, "-c", code], env=environment, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode
    assert "no wandb account is known here; run `wandb login` where there is a network" in done.stderr.splitlines()[-1]
