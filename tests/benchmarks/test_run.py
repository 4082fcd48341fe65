"""One run, for real, on small scenes: its record, and that nothing but the specification determines the scores."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from benchmarks import run as run_module
from benchmarks.dataset import fingerprint
from benchmarks.record import load_histograms, load_record
from benchmarks.spec import RunSpec
from benchmarks.tiles import load_tiles
from datamodules.errors import UserError
from zoo import create_method
from zoo.metrics.pixels import pixel_scores

BUDGET = {
    "max_steps": 6,
    "validate_every": 2,
    "batch_size": 2,
    "accumulate": 1,
    "precision": "32-true",
    "gradient_clip": None,
    "select": "best",
}
NETWORK = {"encoder": "tu-test_efficientnet", "decoder_channels": 16, "inputs": "both", "terrain": ["elevation", "slope"]}


@pytest.fixture(autouse=True)
def _global_settings():
    threads, deterministic = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    yield
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(deterministic)


@pytest.fixture
def root(scenes_of_bowls):
    return scenes_of_bowls


@pytest.fixture
def execute(root, tmp_path):
    """Run a specification in this process; returns its record and histograms."""

    def execute(place="once", *, arguments=(), **changes):
        spec = make_spec(root, tmp_path, **changes)
        work = tmp_path / place
        work.mkdir(exist_ok=True)
        (work / "spec.json").write_text(json.dumps(spec.to_dict()))
        code = run_module.main([str(work / "spec.json"), "--data", str(root), "--out", str(work / "records"), "--wandb", "off", *arguments])
        assert code == 0
        path = work / "records" / f"{spec.key}.json"
        return load_record(path), load_histograms(path.with_suffix(".npz"))

    return execute


def make_spec(root, tmp_path, **changes):
    spec = RunSpec(
        "s", "row", "deeplab", {"network": NETWORK}, "set", {"tile_size": 64}, BUDGET, 0, fingerprint(root, tmp_path / "fingerprints.json")
    )
    return dataclasses.replace(spec, **changes)


def same(first, second):
    return (
        json.dumps(first[0].metrics) == json.dumps(second[0].metrics)
        and first[1].keys() == second[1].keys()
        and all(np.array_equal(first[1][split][tile], second[1][split][tile]) for split in first[1] for tile in first[1][split])
    )


def test_the_record_says_what_issue_and_reader_need(execute, root):
    begin = time.perf_counter()
    record, histograms = execute()
    assert record.status == "finished"
    for split in ("val", "test"):
        pooled = torch.from_numpy(np.sum(list(histograms[split].values()), axis=0))
        expected = pixel_scores(pooled, record.metrics["test"]["threshold"])
        assert {name: record.metrics[split][name] for name in expected} == pytest.approx(expected, nan_ok=True)
        assert len(histograms[split]) == 2
        assert int(pooled.sum()) == record.data["splits"][split]["pixels"] == 2 * 64 * 64
    assert {"boundary_f1_10m", "object_f1_coverage0.5", "panoptic_quality"} < set(record.metrics["test"]) - set(record.metrics["val"])
    assert record.cost["steps"] == 6
    assert record.cost["parameters"] > 50_000
    assert 0 < record.cost["train_seconds"] < record.cost["seconds"] < time.perf_counter() - begin
    assert record.cost["peak_memory_mb"] > 50
    if not torch.cuda.is_available():
        assert record.cost["train_watt_hours"] is None, "unknown, and not zero"
    assert record.cost["predict_km2_per_hour"] > 0
    network = create_method("deeplab", network=NETWORK).network
    convolutions = [module for module in network.modules() if isinstance(module, torch.nn.Conv2d)]
    multiplications = []
    for module in convolutions:
        module.register_forward_hook(lambda module, _, output: multiplications.append(output[0].numel() * module.weight[0].numel()))
    with torch.no_grad():
        network.eval()(torch.zeros(1, 3, 64, 64), torch.zeros(1, 1, 66, 66), torch.ones(1, 2))
    assert record.cost["tile_gflop"] == pytest.approx(2 * sum(multiplications) / 1e9, abs=1e-4)
    assert record.model["inputs"] == "both"
    assert record.environment["packages"]["torch"] == torch.__version__.split("+")[0]
    assert record.data["splits"]["test"]["km2"] == pytest.approx(2 * 64 * 64 * 25 / 1e6)
    assert str(root) not in json.dumps(dataclasses.asdict(record)), "a record names no path of the machine"


def test_the_same_specification_gives_the_same_scores_whatever_the_workers(execute, tmp_path):
    first = execute("a")
    assert same(first, execute("b"))
    kept = [{path.name: path.read_bytes() for path in (tmp_path / place / "records").glob("*.npz")} for place in "ab"]
    assert kept[0] == kept[1]
    assert len(kept[0]) == 3, "histograms, tiles, and the ground of the tiles"
    assert list(load_tiles(first[0].key, tmp_path / "a" / "records")) == ["test/tile0:0:0", "test/tile1:0:0"]
    assert same(first, execute("c", arguments=["--num-workers", "2"]))
    assert not same(first, execute("d", seed=1, arguments=["--no-pictures"]))
    assert len(list((tmp_path / "d" / "records").iterdir())) == 2, "record and histograms"


def test_an_interrupted_run_continues_from_its_last_checkpoint_to_the_same_scores(execute, tmp_path, monkeypatch):
    whole = execute("whole")
    original, validations = run_module.Progress.on_validation_end, []

    def interrupt(self, trainer, pl_module):
        original(self, trainer, pl_module)
        validations.append(trainer.global_step)
        if len(validations) == 3 and trainer.state.fn == "fit":
            raise RuntimeError("power cut")

    monkeypatch.setattr(run_module.Progress, "on_validation_end", interrupt)
    with pytest.raises(RuntimeError, match="power cut"):
        execute("cut")
    assert validations == [2, 4, 6]
    assert (tmp_path / "cut" / "checkpoints" / "last.ckpt").is_file()
    continued = execute("cut")
    assert validations[:4] == [2, 4, 6, 6], "the last checkpoint was that of step 4"
    assert same(whole, continued)
    assert continued[0].cost["steps"] == 6


@pytest.mark.parametrize("select", ["best", "last"])
def test_what_training_has_just_validated_is_not_validated_again(execute, monkeypatch, select):
    """But where it is, because an earlier process ended the training, or an earlier validation was the best, nothing changes."""
    budget = {**BUDGET, "validate_every": 6, "select": select}
    validated, validate = [], run_module.L.Trainer.validate
    monkeypatch.setattr(run_module.L.Trainer, "validate", lambda *args, **kwargs: validated.append(1) or validate(*args, **kwargs))
    first = execute("once", budget=budget)
    assert not validated
    monkeypatch.setattr(run_module.Checkpoints, "scores", lambda self, path: None)
    assert same(first, execute("again", budget=budget))
    assert len(validated) == 1


def test_only_weights_that_training_ends_with_count_as_validated(tmp_path):
    checkpoints = run_module.Checkpoints(tmp_path)
    trainer = SimpleNamespace(state=SimpleNamespace(fn="fit"), sanity_checking=False, save_checkpoint=lambda path, weights_only=False: None)
    assert checkpoints.scores(checkpoints.last) is None, "nothing was validated"
    for score, best_is_last in ((0.3, True), (0.2, False), (0.3, False), (0.4, True)):
        trainer.callback_metrics = {"val/iou_landslide": torch.tensor(score, dtype=torch.float64), "train/loss": torch.tensor(1.0)}
        checkpoints.on_validation_end(trainer, None)
        assert checkpoints.scores(checkpoints.last) == {"val/iou_landslide": score}
        assert checkpoints.scores(checkpoints.best) == ({"val/iou_landslide": score} if best_is_last else None)


def test_other_code_starts_afresh(execute, tmp_path, capsys):
    execute("once", budget={**BUDGET, "select": "last"})
    assert (tmp_path / "once" / "checkpoints" / "last.ckpt").is_file()
    started = tmp_path / "once" / "started.json"
    started.write_text(json.dumps({**json.loads(started.read_text()), "commit": "other"}))
    capsys.readouterr()
    execute("once", budget={**BUDGET, "select": "last"})
    assert "continuing" not in capsys.readouterr().out


def test_a_logger_that_fails_costs_the_run_nothing_but_its_log(execute, monkeypatch, capsys):
    whole = execute("whole")

    def fail(self, metrics, step):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("lightning.pytorch.loggers.CSVLogger.log_metrics", fail)
    record, histograms = execute("without")
    assert same(whole, (record, histograms))
    assert whole[0].environment["loggers"] == {"csv": "whole"}
    assert record.environment["loggers"] == {"csv": "OSError: [Errno 28] No space left on device"}
    assert "warning: the csv log of this run ends here" in capsys.readouterr().out


@pytest.mark.parametrize("reference", ["all_background", "slope_threshold"])
def test_references(execute, reference):
    record, histograms = execute(method=reference, hyperparameters={}, budget=None, seed=None)
    assert record.metrics["test"]["prevalence"] == pytest.approx(record.data["splits"]["test"]["prevalence"])
    assert set(histograms) == {"val", "test"}
    if reference == "slope_threshold":
        assert record.metrics["test"]["iou_landslide"] > 0.3
        assert record.metrics["test"]["threshold_deg"] % (90 / 256) == pytest.approx(0)


def test_a_file_that_is_no_specification_is_refused(tmp_path):
    (tmp_path / "spec.json").write_text("{}")
    with pytest.raises(UserError, match="not a run specification"):
        run_module.main([str(tmp_path / "spec.json"), "--data", "x", "--out", "y"])


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_killed_run_resumes_in_its_own_process_with_wandb(execute, root, tmp_path, number):
    pytest.importorskip("wandb")
    budget = {**BUDGET, "max_steps": 24}
    whole, spec, work = execute("whole", budget=budget), make_spec(root, tmp_path, budget=budget), tmp_path / "killed"
    work.mkdir()
    (work / "spec.json").write_text(json.dumps(spec.to_dict()))
    command = [sys.executable, "-m", "benchmarks.run", str(work / "spec.json"), "--data", str(root), "--out", str(work / "records")]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while not (work / "progress.json").is_file() or json.loads((work / "progress.json").read_text())["step"] < 8:
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(number)
    assert process.wait(timeout=60) == -number
    assert not (work / "records").exists()
    finished = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr
    assert "continuing from" in finished.stdout
    assert len(list(work.glob(f"wandb/offline-run-*/run-{spec.key}.wandb"))) == 2, "two parts of one run, in the folder of the run"
    path = work / "records" / f"{spec.key}.json"
    assert same(whole, (load_record(path), load_histograms(path.with_suffix(".npz"))))
