"""wandb's own client and a server on this machine: what a suite sends while it runs, and what `zoo-bench sync` sends later."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.record import load_records
from tests.benchmarks.wandb_server import WandbServer

SUITE = """
name: online
data: {name: bowls, root: ROOT, settings: {tile_size: 32}}
budget: {max_steps: 2, validate_every: 2, batch_size: 2}
seeds: [0, 1]
references: []
common:
  method: deeplab
  hyperparameters: {network: {encoder: tu-test_efficientnet, weights: null, inputs: image}}
runs: [{name: plain}]
"""


@pytest.fixture
def suite(tmp_path, scenes_of_bowls, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("WANDB")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))  # no account of whoever runs this
    path = tmp_path / "online.yaml"
    path.write_text(SUITE.replace("ROOT", str(scenes_of_bowls)))
    return path


def bench(*arguments, **environment):
    command = [sys.executable, "-m", "benchmarks", *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), **environment}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=300)
    return done.returncode, done.stdout + done.stderr


def check(arrived, record):
    """The server has the run as the record has it."""
    assert (arrived.project, arrived.group, arrived.job_type) == ("landslide-zoo", "online", "deeplab")
    assert {name: arrived.config[name] for name in record.spec} == record.spec
    final = {f"final/{split}/{name}": value for split, scores in record.metrics.items() for name, value in scores.items()}
    (last,) = [row for row in arrived.history if any(name.startswith("final/") for name in row)]
    for name, value in final.items():
        assert last[name] == pytest.approx(value, rel=1e-6, nan_ok=True), name
    summary = json.loads(arrived.files["wandb-summary.json"])
    assert summary["final/test/iou_landslide"] == last["final/test/iou_landslide"]
    assert any("val/iou_landslide" in row for row in arrived.history), "the curves, not the end alone"
    assert arrived.complete


@pytest.mark.slow
def test_online_a_suite_sends_its_runs_and_artefacts_while_it_runs(suite, tmp_path):
    with WandbServer() as server:
        code, told = bench("run", suite, "--wandb", "online", "--wandb-artifacts", "--max-parallel", 1, **server.environment)
        assert code == 0, told
        records = load_records(tmp_path / "runs" / "online" / "records")
        assert server.runs.keys() == records.keys()
        for key, record in records.items():
            check(server.runs[key], record)
            assert record.environment["loggers"]["wandb"] == "whole"
            sent = server.runs[key].artifacts
            weights = tmp_path / "runs" / "online" / key / "checkpoints" / "best.ckpt"
            assert sent[f"model-{key}"][weights.name] == weights.read_bytes()
            assert any(json.loads(content)["key"] == key for content in sent[f"record-{key}"].values() if content.startswith(b"{"))
        code, told = bench("sync", suite, **server.environment)
        assert code == 0, told
        assert told.count("no offline log") == 2
        assert all(run.begun == 1 for run in server.runs.values())


@pytest.mark.slow
def test_offline_runs_are_sent_once_when_a_server_is_there(suite, tmp_path):
    code, told = bench("run", suite, "--max-parallel", 1)
    assert code == 0, told
    records = load_records(tmp_path / "runs" / "online" / "records")
    with WandbServer(refuses=401) as server:
        code, told = bench("sync", suite, **server.environment)
        assert code
        assert "wandb cannot reach its server or is refused there" in told
    with WandbServer() as server:
        code, told = bench("sync", suite, **server.environment)
        assert code == 0, told
        assert server.runs.keys() == records.keys()
        for key, record in records.items():
            check(server.runs[key], record)
        code, told = bench("sync", suite, **server.environment)
        assert code == 0, told
        assert told.count("sent before") == 2
        assert all(run.begun == 1 for run in server.runs.values())
