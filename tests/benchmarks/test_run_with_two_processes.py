"""A run on two devices: two processes that train together, score together and leave one record."""

import json
import os
import subprocess
import sys
from pathlib import Path

import lightning as L
import numpy as np
import pytest
import torch

from benchmarks import run as run_module
from benchmarks.record import load_histograms, load_record
from benchmarks.scenes import evaluate_scenes
from tests.benchmarks.test_run import BUDGET, NETWORK, make_spec
from zoo import create_method
from zoo.mapping import Ensemble


@pytest.mark.slow
def test_two_processes_leave_one_record_and_score_as_one_process_does(scenes_of_bowls, tmp_path):
    """What two processes trained and scored, one process scores alike; each pixel counts once."""
    spec, work = make_spec(scenes_of_bowls, tmp_path, budget={**BUDGET, "max_steps": 4, "precision": "32-true"}), tmp_path / "run"
    work.mkdir()
    (work / "spec.json").write_text(json.dumps(spec.to_dict()))
    command = [sys.executable, "-m", "benchmarks.run", str(work / "spec.json"), "--data", str(scenes_of_bowls)]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "OMP_NUM_THREADS": "1"}
    ended = subprocess.run(
        [*command, "--out", str(work / "records"), "--devices", "2", "--wandb", "off"],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    assert [path.name for path in (work / "records").glob("*.json")] == [f"{spec.key}.json"]
    assert "gloo" in ended.stderr + ended.stdout
    path = work / "records" / f"{spec.key}.json"
    record, histograms = load_record(path), load_histograms(path.with_suffix(".npz"))
    assert record.cost["steps"] == 4
    assert json.loads((work / "lease.1.json").read_text()) == {"released": True}

    data = run_module.build_data(spec, scenes_of_bowls, num_workers=0)
    model = create_method(spec.method, network=NETWORK)
    trainer = L.Trainer(accelerator="cpu", devices=1, logger=False, enable_progress_bar=False, enable_checkpointing=False)
    trainer.validate(model, datamodule=data, ckpt_path=work / "checkpoints" / "best.ckpt", weights_only=True, verbose=False)
    data.setup("test")
    scenes = evaluate_scenes(Ensemble([model], device=torch.device("cpu")), data, model.threshold, tmp_path)
    alone = {"val": {name: counts.numpy() for name, counts in model.val_histograms.items()}, "test": scenes.histograms}
    assert model.threshold == record.metrics["test"]["threshold"]
    for split, tiles in alone.items():
        assert histograms[split].keys() == tiles.keys()
        for name, counts in tiles.items():
            np.testing.assert_array_equal(histograms[split][name], counts)
    for split, scores in run_module.score(alone, model.threshold).items():
        assert {name: record.metrics[split][name] for name in scores} == pytest.approx(scores, abs=1e-6, nan_ok=True)
    assert {name: record.metrics["test"][name] for name in scenes.scores} == pytest.approx(scenes.scores, abs=1e-6, nan_ok=True)


@pytest.mark.parametrize(
    ("variables", "is_first"),
    [
        ({}, True),
        ({"LOCAL_RANK": "1"}, False),
        ({"RANK": "2", "LOCAL_RANK": "0"}, False),
        ({"SLURM_PROCID": "0"}, True),
        ({"SLURM_PROCID": "3"}, False),
    ],
)
def test_the_first_process_of_a_run(monkeypatch, variables, is_first):
    for name in ("RANK", "LOCAL_RANK", "SLURM_PROCID"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert run_module._is_first() == is_first


def test_other_processes_leave_references_and_finished_runs_alone(monkeypatch, scenes_of_bowls, tmp_path):
    monkeypatch.setenv("SLURM_PROCID", "1")
    spec = make_spec(scenes_of_bowls, tmp_path, method="all_background", hyperparameters={}, budget=None, seed=None)
    (tmp_path / "spec.json").write_text(json.dumps(spec.to_dict()))
    arguments = [str(tmp_path / "spec.json"), "--data", str(scenes_of_bowls), "--out", str(tmp_path / "records")]
    assert run_module.main([*arguments, "--wandb", "off"]) == 0
    assert not (tmp_path / "records").exists()
    assert not list(tmp_path.glob("lease*"))


def test_a_batch_that_does_not_divide_is_refused(scenes_of_bowls, tmp_path):
    with pytest.raises(run_module.UserError, match="does not divide over 3 devices"):
        run_module.build_data(make_spec(scenes_of_bowls, tmp_path), scenes_of_bowls, num_workers=0, world_size=3)
