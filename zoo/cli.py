"""`zoo methods | fit | validate | test | map | inventory | export`: the command line of the middle floor."""

import importlib
import inspect
import json
import os
import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, NoReturn

import lightning as L
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from rich.console import Console
from rich.table import Table

from datamodules.errors import UserError, exit_with
from datamodules.landslide import LandslideDataModule
from zoo.base import LandslideModule
from zoo.metrics.pixels import pixel_scores
from zoo.registry import METHODS, Parser, load_checkpoint, read_checkpoint

USAGE: Final = """\
usage: zoo COMMAND [options]

  methods                                   list the methods
  fit --config FILE --data.root DATA        train; any key of the file is also an option (zoo fit --help)
  validate --ckpt FILE --data.root DATA     scores on the validation split
  test --ckpt FILE --data.root DATA         scores on the test split, at the threshold that validation chose
  map CKPT --image A.tif --out PROB.tif     map a scene; with --scenes, all scenes of a manifest
  inventory PROB.tif --out SLIDES.gpkg      polygons of the landslides of a map, with their attributes
  export CKPT --out MODEL.onnx              the deployed network alone; FOLDER/model.safetensors adds a model card

`--debug` shows tracebacks."""

TRAINER_DEFAULTS: Final[dict[str, Any]] = {
    # The data module deals windows to ranks itself; Lightning's sampler would repeat some to make the shares equal.
    "use_distributed_sampler": False,
    "num_sanity_val_steps": 0,
}

_ROOMS: Final = {
    "map": ("zoo.mapping.command", "map_command"),
    "inventory": ("zoo.inventory.command", "inventory_command"),
    "export": ("zoo.export.command", "export"),
}
"""Commands of rooms that training does not load."""

LOGGER: Final = {"class_path": "lightning.pytorch.loggers.CSVLogger", "init_args": {"save_dir": "runs", "name": "fit"}}


class _FitParser(LightningArgumentParser):
    """Lightning's parser with one-line complaints."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        raise UserError(" ".join(message.split()), "see `zoo fit --help` or the comments in the configuration file", exit_code=2) from ex


class _FitCLI(LightningCLI):
    """LightningCLI that knows `fit` alone; evaluation takes a checkpoint and needs no model configuration."""

    def init_parser(self, **kwargs: Any) -> LightningArgumentParser:  # noqa: ANN401 - Lightning's signature
        kwargs.setdefault("dump_header", ["written by `zoo fit`; `zoo fit --config THIS` runs it again"])
        parser = _FitParser(**kwargs)
        parser.add_argument("-c", "--config", action="config", help="configuration file; options after it change its values")
        return parser

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        return {"fit": {"model", "train_dataloaders", "val_dataloaders", "datamodule"}}


def fit(arguments: Sequence[str]) -> int:
    """`zoo fit`: train by a configuration file and options."""
    # Lightning warns that arguments should not be given twice; they are not, `sys.argv` holds the same.
    warnings.filterwarnings("ignore", message="LightningCLI's args parameter", category=UserWarning)
    try:
        _FitCLI(
            LandslideModule,
            LandslideDataModule,
            subclass_mode_model=True,
            seed_everything_default=0,
            save_config_kwargs={"overwrite": True},
            trainer_defaults={**TRAINER_DEFAULTS, "logger": LOGGER},
            args=["fit", *arguments],
        )
    except ValueError as error:
        # jsonargparse wraps what a constructor raises; the reason is further down the chain.
        cause: BaseException | None = error
        while cause is not None and not isinstance(cause, UserError):
            cause = cause.__cause__
        raise (cause or error) from error
    return 0


def evaluate(split: str, arguments: Sequence[str]) -> int:
    """`zoo validate` and `zoo test`: scores of a checkpoint, whose own tile size and data settings are the defaults.

    Args:
        split: `val` or `test`.
        arguments: The options.
    """
    command = "validate" if split == "val" else "test"
    parser = Parser(prog=f"zoo {command}", description=f"Scores of a checkpoint on the {split} split.")
    parser.add_argument("--ckpt", type=str, required=True, help="checkpoint that `zoo fit` or `zoo-bench run` wrote")
    parser.add_argument("--out", type=str | None, default=None, help="also write the scores to this JSON file")
    parser.add_argument("--accelerator", type=str, default="auto", help="as Lightning's Trainer takes it")
    parser.add_argument("--devices", type=int, default=1, help="number of devices")
    parser.add_class_arguments(LandslideDataModule, "data")
    path = _option(arguments, "--ckpt")
    checkpoint = read_checkpoint(path) if path else {}
    known = {name for name in inspect.signature(LandslideDataModule.__init__).parameters if name not in ("self", "root")}
    stored = checkpoint.get("landslide_zoo", {}).get("data", {})
    parser.set_defaults({f"data.{name}": value for name, value in stored.items() if name in known})
    options = parser.parse_args(list(arguments))
    data = parser.instantiate(options).data
    module = load_checkpoint(options.ckpt)
    trainer = L.Trainer(
        accelerator=options.accelerator,
        devices=options.devices,
        logger=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        **TRAINER_DEFAULTS,
    )
    run = trainer.validate if split == "val" else trainer.test
    run(module, datamodule=data, verbose=False)
    histograms = module.val_histograms if split == "val" else module.test_histograms
    scores = pixel_scores(sum(histograms.values()), module.threshold)  # type: ignore[arg-type] # a sum of tensors, never the int 0: empty splits are refused
    if trainer.is_global_zero:
        _print_scores(f"{Path(options.ckpt).name} on {split}, {len(histograms)} tiles", scores)
        if options.out:
            _write_json(Path(options.out), scores)
    return 0


def list_methods() -> int:
    """`zoo methods`: name, class and what it is."""
    table = Table(title="methods", title_justify="left")
    for column in ("method", "class", "what it is"):
        table.add_column(column)
    for stem, method in METHODS.items():
        table.add_row(stem, f"{method.__module__}.{method.__qualname__}", (inspect.getdoc(method) or "").splitlines()[0])
    Console().print(table)
    return 0


def main(arguments: Sequence[str]) -> int:
    """Run a command; the exit code is 0 (done), 1 (bad input) or 2 (usage)."""
    command, rest = (arguments[0], list(arguments[1:])) if arguments else ("", [])
    if command in ("", "-h", "--help"):
        print(USAGE)
        return 0 if command else 2
    if command == "methods":
        return list_methods()
    if command == "fit":
        return fit(rest)
    if command in _ROOMS:
        module, name = _ROOMS[command]
        return int(getattr(importlib.import_module(module), name)(rest))
    if command in ("validate", "test"):
        return evaluate("val" if command == "validate" else "test", rest)
    raise UserError("no such command", "see zoo --help", field="command", value=command, exit_code=2)


def run() -> NoReturn:
    """Entry point of the console script `zoo`."""
    # Lightning's tips and torch's hints about workers are noise beside the one line that an error must be.
    os.environ.setdefault("LIGHTNING_DISABLE_TIPS", "1")
    exit_with(main)


def _option(arguments: Sequence[str], name: str) -> str | None:
    """The value of an option that must be known before the rest is parsed."""
    for position, argument in enumerate(arguments):
        if argument == name and position + 1 < len(arguments):
            return arguments[position + 1]
        if argument.startswith(f"{name}="):
            return argument.partition("=")[2]
    return None


def _print_scores(title: str, scores: dict[str, float]) -> None:
    table = Table(title=title, title_justify="left")
    table.add_column("score")
    table.add_column("value", justify="right")
    for name, value in scores.items():
        table.add_row(name, f"{value:.0f}" if name == "pixels" else f"{value:.4f}")
    Console().print(table)


def _write_json(path: Path, content: dict[str, float]) -> None:
    """Write under a temporary name, then rename, so that no half file is ever seen."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile("w", dir=path.parent, suffix=".tmp", delete=False) as handle:
        # NaN (a score without a denominator) is no JSON.
        json.dump({name: None if value != value else value for name, value in content.items()}, handle, indent=2)  # noqa: PLR0124 - NaN test
    Path(handle.name).replace(path)
