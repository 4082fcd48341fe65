"""The process of ONE run: seed, then data, then model; fit, validate, test; one record.

    python -m benchmarks.run RUNS/SUITE/KEY/spec.json --data ROOT --out RESULTS/records [--threads N] [--devices N] [--num-nodes N] ...

The order matters: the seed is set before anything draws from it, so a recorded seed determines the weights. The folder of the
specification keeps checkpoints and logs; a run that was interrupted continues from its last checkpoint there.

With several devices this is the first of several processes (DDP): it starts the others, or SLURM has started them all. The first one
holds the lease and writes the record.
"""

import argparse
import json
import os
import resource
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NoReturn

import lightning as L
import numpy as np
import torch
from lightning.pytorch.utilities.exceptions import SIGTERMException
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import references
from benchmarks.atomic import write_json
from benchmarks.auditing import AUDIT
from benchmarks.callbacks import Checkpoints, Clock, Progress
from benchmarks.energy import energy_meter
from benchmarks.environment import ENVIRONMENT, capture, code_state
from benchmarks.leases import ELSEWHERE, take
from benchmarks.loggers import LoggerOptions, add_logger_arguments
from benchmarks.loggers.running import Guarded, close, log_final, make_loggers, states
from benchmarks.record import Histograms, RunRecord, load_record, save_record
from benchmarks.scenes import evaluate_scenes
from benchmarks.spec import RunSpec
from benchmarks.tiles import Tile, save_tiles
from datamodules.errors import UserError, exit_with
from datamodules.landslide import LandslideDataModule
from zoo import create_method
from zoo.base import LandslideModule
from zoo.mapping import Ensemble
from zoo.metrics.pixels import pixel_scores

PROGRESS: Final = "progress.json"
STARTED: Final = "started.json"


def seed_everything(seed: int) -> None:
    """Seed torch (all devices), NumPy and Python, here and in loader workers."""
    L.seed_everything(seed, workers=True, verbose=False)


def build_data(spec: RunSpec, root: Path, *, num_workers: int, world_size: int = 1, cache_dir: str | None = None) -> LandslideDataModule:
    """The data module of a run; workers and cache change its speed and never what it gives.

    Raises:
        UserError: The batch of the budget cannot be dealt out evenly over the devices.
    """
    if spec.budget is None or spec.seed is None:
        return LandslideDataModule(str(root), num_workers=num_workers, cache_dir=cache_dir, seed=0, **spec.data_settings)
    batch_size = int(spec.budget["batch_size"])
    if batch_size % world_size:
        raise UserError(
            f"does not divide over {world_size} devices", "change --devices-per-run", field="budget.batch_size", value=batch_size
        )
    return LandslideDataModule(
        str(root),
        batch_size=batch_size // world_size,
        num_workers=num_workers,
        cache_dir=cache_dir,
        # An epoch is the stretch between two validations, so every checkpoint lies at the end of an epoch, where the sampler can resume.
        samples_per_epoch=spec.budget["validate_every"] * spec.budget["accumulate"] * batch_size,
        seed=spec.seed,
        **spec.data_settings,
    )


def _is_first() -> bool:
    """Whether this is the first process of its run, by the variables that Lightning, torchrun and srun set."""
    return next((os.environ[name] for name in ("RANK", "LOCAL_RANK", "SLURM_PROCID") if name in os.environ), "0") == "0"


def _resume_point(checkpoints: Checkpoints, work: Path) -> Path | None:
    """The last checkpoint, if the same code wrote it: a result must not mix two versions."""
    state, started = code_state(), work / STARTED
    # In this order: the first process removes what other code left before it writes its own state, and the others may come in between.
    is_same = started.is_file() and json.loads(started.read_text(encoding="utf-8")) == state
    if is_same and checkpoints.last.is_file():
        print(f"continuing from {checkpoints.last}", flush=True)
        return checkpoints.last
    if not _is_first():
        return None
    for stale in (checkpoints.best, checkpoints.last):
        stale.unlink(missing_ok=True)
    write_json(started, state)
    return None


def _peak_memory_mb(*, gpu: bool) -> float:
    if gpu:
        return torch.cuda.max_memory_allocated() / 2**20
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10


def _tile_flop(model: LandslideModule, data: LandslideDataModule) -> int:
    """Floating-point operations of the deployed network on one tile: twice the multiplications of convolutions and matrix products."""
    network, size, margin = model.network, data.tile_size, data.tile_size + 2 * data.halo
    device = next(network.parameters()).device
    layers = [torch.zeros(1, data.image_channels, size, size), torch.zeros(1, 1, margin, margin), torch.ones(1, 2)]
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        network(*(layer.to(device) for layer in layers))
    return int(counter.get_total_flops())


def _to_numpy(histograms: dict[str, Tensor]) -> dict[str, Any]:
    return {tile: histogram.cpu().numpy().astype(np.int64) for tile, histogram in histograms.items()}


def train_and_test(
    spec: RunSpec,
    root: Path,
    work: Path,
    *,
    devices: int,
    num_nodes: int = 1,
    num_workers: int,
    logging: LoggerOptions,
    cache_dir: str | None = None,
    pictures: bool = True,
) -> tuple[RunRecord, Histograms, dict[str, Tile], list[Guarded]] | None:
    """Fit, validate and test one method.

    Args:
        spec: What to run.
        root: Folder of the data.
        work: Folder for checkpoints and logs.
        devices: Processes of the run on each node; the budget's batch is dealt out over all of them.
        num_nodes: Nodes of the run.
        num_workers: Loader workers of each process.
        cache_dir: Folder of aligned layers, or None.
        logging: Which loggers mirror the run.
        pictures: Keep a few test tiles to be looked at.

    Returns:
        The record (its `environment` almost empty), the histograms, the tiles and the loggers, to be closed when the record is written;
        None on all processes but the first.
    """
    assert spec.budget is not None
    assert spec.seed is not None
    budget, clock = spec.budget, Clock(energy_meter(devices))
    seed_everything(spec.seed)
    world_size = devices * num_nodes
    data = build_data(spec, root, num_workers=num_workers, world_size=world_size, cache_dir=cache_dir)
    model = create_method(spec.method, **spec.hyperparameters)
    checkpoints = Checkpoints(work / "checkpoints")
    resume = _resume_point(checkpoints, work)
    loggers = make_loggers(spec, work, logging, resumed=resume is not None)
    trainer = L.Trainer(
        accelerator="auto",
        devices=devices,
        num_nodes=num_nodes,
        strategy="ddp" if world_size > 1 else "auto",
        precision=budget["precision"],
        max_steps=budget["max_steps"],
        max_epochs=-1,
        check_val_every_n_epoch=1,
        accumulate_grad_batches=budget["accumulate"],
        gradient_clip_val=budget["gradient_clip"],
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
        deterministic="warn",
        logger=loggers,
        log_every_n_steps=min(10, budget["validate_every"]),
        callbacks=[
            clock,
            Progress(work / PROGRESS),
            checkpoints,
        ],
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(model, datamodule=data, ckpt_path=resume, weights_only=True)
    steps, train_seconds = trainer.global_step, clock.train_seconds
    chosen = checkpoints.best if budget["select"] == "best" else checkpoints.last
    # Validation of the chosen weights sets their threshold; the test must not see any other. Where training has ended with them, they are in
    # place and validated.
    val_logged = (
        checkpoints.scores(chosen) or trainer.validate(model, datamodule=data, ckpt_path=chosen, weights_only=True, verbose=False)[0]
    )
    # Windows say what a method scores beside pixels; pixels, outlines and objects are those of whole scenes.
    (test_logged,) = trainer.test(model, datamodule=data, verbose=False) if model.auxiliary else ({},)
    data.setup("test")
    predictor = Ensemble([model], device=trainer.strategy.root_device, precision="bf16" if "bf16" in budget["precision"] else "float32")
    scenes = evaluate_scenes(predictor, data, model.threshold, work, pictures=pictures)
    if not trainer.is_global_zero:
        return None
    histograms = {"val": _to_numpy(model.val_histograms), "test": scenes.histograms}
    metrics = score(histograms, model.threshold)
    for split, logged in (("val", val_logged), ("test", test_logged)):
        metrics[split].update(_auxiliary(logged, split, metrics[split]))
    metrics["test"].update(scenes.scores)
    log_final(loggers, metrics, trainer.global_step)
    samples = steps * budget["batch_size"] * budget["accumulate"]
    record = RunRecord(
        key=spec.key,
        status="finished",
        spec=spec.to_dict(),
        metrics=metrics,
        model=describe_model(model),
        cost={
            "parameters": sum(parameter.numel() for parameter in model.network.parameters()),
            "parameters_training": sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad),
            "steps": steps,
            "train_seconds": round(train_seconds, 3),
            "train_watt_hours": None if clock.train_joules is None else round(clock.train_joules / 3600, 4),
            "samples_per_second": round(samples / train_seconds, 3) if train_seconds else None,
            "peak_memory_mb": round(_peak_memory_mb(gpu=trainer.accelerator.__class__.__name__ == "CUDAAccelerator"), 1),
            "tile_gflop": round(_tile_flop(model, data) / 1e9, 4),
            "predict_km2_per_hour": round(scenes.km2 / scenes.seconds * 3600, 3),
            "seconds": round(clock.seconds, 3),
        },
        data=references.describe_data(spec, root, data, histograms),
    )
    if budget["select"] == "best":
        checkpoints.last.unlink(missing_ok=True)  # holds the optimiser too; nobody resumes a finished run
    record.environment["loggers"] = states(loggers)
    return record, histograms, scenes.tiles, loggers


def score(histograms: Histograms, threshold: float) -> dict[str, dict[str, float]]:
    """Pooled pixel scores of each split at one threshold."""
    pooled = {split: torch.from_numpy(np.sum(list(tiles.values()), axis=0)) for split, tiles in histograms.items()}
    return {split: pixel_scores(histogram, threshold) for split, histogram in pooled.items()}


def _auxiliary(logged: Mapping[str, float], split: str, known: Mapping[str, float]) -> dict[str, float]:
    """Scores that a method logs beside those of pixels, by the name they have without the split."""
    names = {name: name.removeprefix(f"{split}/") for name in logged if name.startswith(f"{split}/")}
    return {name: float(logged[full]) for full, name in names.items() if name not in known}


def describe_model(model: LandslideModule) -> dict[str, Any]:
    """What the hyperparameters amount to, defaults included."""
    return {"inputs": model.network.options.inputs, "hyperparameters": model.hyperparameters()}


def main(arguments: Sequence[str]) -> int:
    """Run one specification; see the module's text."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.run", description="Run one specification of a suite.")
    parser.add_argument("spec", type=Path, help="spec.json, written by zoo-bench run")
    parser.add_argument("--data", type=Path, required=True, help="folder of the data set, or scenes.csv of one fold of it")
    parser.add_argument("--out", type=Path, required=True, help="folder of the records")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads")
    parser.add_argument("--devices", type=int, default=1, help="GPUs (or CPU processes) of this run, on each of its nodes")
    parser.add_argument("--num-nodes", type=int, default=1, help="nodes of this run; SLURM starts a process a device on each")
    parser.add_argument("--num-workers", type=int, default=0, help="loader workers of each process")
    parser.add_argument("--cache-dir", default=None, help="folder for aligned layers")
    add_logger_arguments(parser)
    parser.add_argument("--no-pictures", action="store_true", help="keep no test tiles for the report, as where the licence forbids it")
    options = parser.parse_args(list(arguments))
    try:
        spec = RunSpec.from_dict(json.loads(options.spec.read_text(encoding="utf-8")))
    except (FileNotFoundError, json.JSONDecodeError, TypeError) as error:
        raise UserError(f"not a run specification ({error})", "let zoo-bench run write it", file=options.spec, exit_code=2) from None
    torch.set_num_threads(options.threads)
    path: Path = options.out / f"{spec.key}.json"
    if not _is_first():
        # Another process of the same run, or one of a run that is done, which the first one will not join.
        return 0 if spec.is_reference or _is_finished(path) else _execute(spec, options)
    lease = take(options.spec.parent)
    if lease is None:
        print("another process does this run", flush=True)
        return ELSEWHERE
    with lease:
        if _is_finished(path):
            print("another process has done this run", flush=True)
            return 0
        # An old failure is history now; should this attempt be interrupted, the run is interrupted and not failed.
        path.unlink(missing_ok=True)
        (options.spec.parent / PROGRESS).unlink(missing_ok=True)
        return _execute(spec, options)


def _is_finished(path: Path) -> bool:
    try:
        return load_record(path).status == "finished"
    except FileNotFoundError:
        return False


def _execute(spec: RunSpec, options: argparse.Namespace) -> int:
    work, loggers = options.spec.parent, list[Guarded]()
    environment = capture(threads=options.threads, gpu=torch.cuda.get_device_name() if torch.cuda.is_available() else None)
    if _is_first():
        write_json(work / ENVIRONMENT, environment)  # of the code as it begins, and known should the run fail
    if spec.is_reference:
        began = time.perf_counter()
        seed_everything(0)
        data = build_data(spec, options.data, num_workers=options.num_workers, cache_dir=options.cache_dir)
        record, histograms, tiles = references.evaluate(spec, data, options.data, work, pictures=not options.no_pictures)
        record.cost["seconds"] = round(time.perf_counter() - began, 3)
    else:
        logging = LoggerOptions.parse(options.loggers, options.wandb, artifacts=options.wandb_artifacts)
        trained = train_and_test(
            spec,
            options.data,
            work,
            devices=options.devices,
            num_nodes=options.num_nodes,
            num_workers=options.num_workers,
            logging=logging,
            cache_dir=options.cache_dir,
            pictures=not options.no_pictures,
        )
        if trained is None:
            return 0
        record, histograms, tiles, loggers = trained
    audit = work / AUDIT
    record.data["audit"] = json.loads(audit.read_text(encoding="utf-8")) if audit.is_file() else None  # None: run by hand, not audited
    record.environment.update(environment)
    if not options.no_pictures:
        save_tiles(spec.key, tiles, options.out)  # before the record, which says that all is there
    path = save_record(record, options.out, histograms)
    weights = sorted((work / "checkpoints").glob("*.ckpt"))
    close(loggers, {"record": [path, path.with_suffix(".npz")], "model": weights} if options.wandb_artifacts else {})
    return 0


def run() -> NoReturn:
    """Entry point of the process."""
    try:
        exit_with(main)
    except SIGTERMException:
        # Lightning would leave with exit code 0. Who asks why this process ended should see that it was ended, and may go on.
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.raise_signal(signal.SIGTERM)
        raise


if __name__ == "__main__":
    run()
