"""Training that SIGKILL ends at a random step goes on from its last checkpoint, and ends as if nothing had happened: to the bit."""

import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from benchmarks.dataset import fingerprint
from benchmarks.record import load_record
from benchmarks.spec import RunSpec

STEPS, VALIDATE_EVERY = 24, 3
NETWORK = {"encoder": "tu-test_efficientnet", "decoder_channels": 16, "terrain": ["elevation", "slope"]}
METHODS = {
    "deeplab": {"network": {**NETWORK, "inputs": "both"}},
    "hpcl_net": {
        "network": {**NETWORK, "inputs": "both", "fusion": "concat_ca", "fusion_levels": "deep"},
        "contrast": {"queue_length": 40, "momentum": 0.9, "momentum_end": 1.0, "projection_dim": 16},
    },
    "icssn": {"network": {**NETWORK, "inputs": "image"}, "iteration": {"rounds": 2, "ocl_dim": 16, "socl_dim": 16}},
    "mrife": {"network": {**NETWORK, "inputs": "image"}, "enhancement": {"block_size": 16, "recover_channels": 16, "mfm_loss": "ibot"}},
}
CLOCKS = {"train_seconds", "seconds"}


def equal(first, second, place=""):
    """Name the places where two checkpoints differ."""
    if isinstance(first, dict):
        names = (first.keys() | second.keys()) - CLOCKS
        return [found for name in sorted(names, key=str) for found in equal(first.get(name), second.get(name), f"{place}/{name}")]
    if isinstance(first, list | tuple):
        if len(first) != len(second):
            return [place]
        return [found for index, pair in enumerate(zip(first, second, strict=True)) for found in equal(*pair, f"{place}/{index}")]
    same = torch.equal(first, second) if isinstance(first, torch.Tensor) else first == second
    return [] if same else [place]


def step_of(work):
    """Optimiser steps that a run has told of so far."""
    path = work / "progress.json"
    return json.loads(path.read_text())["step"] if path.is_file() else 0


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_a_killed_training_ends_with_the_same_weights(method, scenes_of_bowls, tmp_path):
    budget = {
        "max_steps": STEPS,
        "validate_every": VALIDATE_EVERY,
        "batch_size": 2,
        "accumulate": 1,
        "precision": "32-true",
        "gradient_clip": None,
        "select": "last",
    }
    data = fingerprint(scenes_of_bowls, tmp_path / "fingerprints.json")
    spec = RunSpec("kill", "row", method, METHODS[method], "bowls", {"tile_size": 64}, budget, 0, data)
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "OMP_NUM_THREADS": "1"}

    def start(place):
        work = tmp_path / place
        work.mkdir(exist_ok=True)
        (work / "spec.json").write_text(json.dumps(spec.to_dict()))
        command = [sys.executable, "-m", "benchmarks.run", str(work / "spec.json"), "--data", str(scenes_of_bowls)]
        log = (work / "log.txt").open("a")
        return subprocess.Popen(
            [*command, "--out", str(work / "records"), "--wandb", "off"], env=environment, stdout=log, stderr=subprocess.STDOUT
        )

    whole = start("whole")
    chance = random.Random(f"{method}{time.time_ns()}")
    killed, goal = tmp_path / "killed", chance.randrange(VALIDATE_EVERY, STEPS, VALIDATE_EVERY)
    process, began = start("killed"), time.perf_counter()
    # The first validation is told before its checkpoint is whole, and without one there is nothing to continue from.
    while step_of(killed) < goal or not (killed / "checkpoints" / "last.ckpt").is_file():
        assert process.poll() is None, (killed / "log.txt").read_text()
        assert time.perf_counter() - began < 300
        time.sleep(0.005)
    time.sleep(chance.uniform(0, 0.3))  # some steps further, or within a validation or the writing of a checkpoint
    process.kill()
    process.wait()
    assert not list((killed / "records").glob("*.json")), "the run was over before it was killed"
    assert start("killed").wait(timeout=300) == 0, (killed / "log.txt").read_text()
    assert whole.wait(timeout=300) == 0, (tmp_path / "whole" / "log.txt").read_text()
    assert "continuing from" in (killed / "log.txt").read_text()

    first, second = (torch.load(tmp_path / place / "checkpoints" / "last.ckpt", weights_only=True) for place in ("whole", "killed"))
    assert first["global_step"] == STEPS
    for part in ("state_dict", "optimizer_states", "lr_schedulers"):
        assert equal(first[part], second[part]) == [], f"killed after step {goal}"
    records = [load_record(tmp_path / place / "records" / f"{spec.key}.json") for place in ("whole", "killed")]
    assert json.dumps(records[0].metrics) == json.dumps(records[1].metrics)
