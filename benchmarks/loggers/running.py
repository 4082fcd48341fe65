"""The loggers of a run, and what a failing one may not do."""

import os
import shutil
from argparse import Namespace
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final

from lightning.fabric.loggers.logger import rank_zero_experiment
from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger, WandbLogger
from lightning_utilities.core.rank_zero import rank_zero_only

from benchmarks.loggers import LoggerOptions, attempt
from benchmarks.spec import RunSpec
from datamodules.errors import UserError

PROJECT: Final = "landslide-zoo"
INIT_SECONDS: Final = 60.0
FINISH_SECONDS: Final = 600.0
"""What an online run may take to send the rest: a network that is gone must not keep a finished run from ending."""


class Guarded(Logger):
    """A logger whose failure is told and never raised; after it, nothing more is asked of that logger.

    Args:
        label: What to call it.
        logger: The one that does the work.
    """

    def __init__(self, label: str, logger: CSVLogger | TensorBoardLogger | WandbLogger) -> None:
        super().__init__()
        self.label = label
        self.logger = logger
        self.failure: str | None = None

    def start(self) -> str | None:
        """Open what the logger writes to.

        Returns:
            None, or in one line why it cannot.
        """
        return attempt(lambda: self.experiment)

    def guard(self, call: Callable[[], object]) -> None:
        """Do something with the logger, unless it has failed before."""
        if self.failure is None:
            self.failure = attempt(call)
            if self.failure is not None:
                print(f"warning: the {self.label} log of this run ends here ({self.failure}); run and record go on", flush=True)

    @property
    def name(self) -> str | None:
        """Of the wrapped one."""
        return self.logger.name

    @property
    def version(self) -> int | str | None:
        """Of the wrapped one."""
        return self.logger.version

    @property
    def save_dir(self) -> str | None:
        """Of the wrapped one."""
        return self.logger.save_dir

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:  # noqa: ANN401 - each logger has its own
        """Of the wrapped one."""
        return self.logger.experiment

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Of the wrapped one."""
        self.guard(lambda: self.logger.log_metrics(dict(metrics), step))

    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 - Lightning's signature
        """Of the wrapped one."""
        self.guard(lambda: self.logger.log_hyperparams(params, *args, **kwargs))

    def save(self) -> None:
        """Of the wrapped one."""
        self.guard(self.logger.save)

    def finalize(self, status: str) -> None:
        """Of the wrapped one."""
        self.guard(lambda: self.logger.finalize(status))


def make_loggers(spec: RunSpec, work: Path, options: LoggerOptions, *, resumed: bool) -> list[Guarded]:
    """Start the loggers of a run.

    Args:
        spec: What is run.
        work: Its folder.
        options: Which loggers.
        resumed: The run continues from a checkpoint, and so does its wandb run, whose id is the key. A run that begins anew drops what an
            attempt that was given up left for wandb, or the two would become one run there.

    Raises:
        UserError: One cannot start.
    """
    loggers = []
    if "csv" in options.files:
        loggers.append(Guarded("csv", CSVLogger(work, name="csv")))
    if "tensorboard" in options.files:
        loggers.append(Guarded("tensorboard", TensorBoardLogger(work, name="tensorboard", default_hp_metric=False)))
    if options.wandb != "off":
        if not resumed:
            _drop_parts(work)
        loggers.append(Guarded("wandb", _wandb_logger(spec, work, options)))
    for logger in loggers:
        failure = logger.start()  # now, where an error can say what to do
        if failure is not None:
            remedy = "leave it out of --loggers" if logger.label in options.files else "run with --wandb offline, or off"
            raise UserError(f"the {logger.label} logger cannot start ({failure})", f"{remedy}: records do not need it", field=logger.label)
    return loggers


@rank_zero_only
def _drop_parts(work: Path) -> None:
    for part in work.glob("wandb/offline-run-*"):
        shutil.rmtree(part)


def _wandb_logger(spec: RunSpec, work: Path, options: LoggerOptions) -> WandbLogger:
    # All that wandb writes stays in the folder of the run.
    for variable in ("WANDB_DIR", "WANDB_CACHE_DIR", "WANDB_DATA_DIR", "WANDB_ARTIFACT_DIR"):
        os.environ[variable] = str(work.resolve())
    if options.wandb == "offline":
        os.environ["WANDB_CONFIG_DIR"] = str(work.resolve())  # online needs the user's own, where the login is
    os.environ["WANDB_SILENT"] = "true"
    import wandb  # noqa: PLC0415 - may be left out

    settings = wandb.Settings(init_timeout=INIT_SECONDS, finish_timeout=FINISH_SECONDS, finish_timeout_raises=True)
    return WandbLogger(
        name=f"{spec.name} seed {spec.seed}",
        save_dir=work,
        id=spec.key,
        project=PROJECT,
        group=spec.suite,
        job_type=spec.method,
        mode=options.wandb,
        log_model=False,
        config=spec.to_dict(),
        settings=settings,
    )


def log_final(loggers: Sequence[Guarded], metrics: Mapping[str, Mapping[str, float]], step: int) -> None:
    """Log the metrics of the record, as `final/SPLIT/NAME`."""
    final = {f"final/{split}/{name}": value for split, scores in metrics.items() for name, value in scores.items()}
    for logger in loggers:
        logger.log_metrics(final, step=step)
        logger.save()
        logger.finalize("success")


def states(loggers: Sequence[Guarded]) -> dict[str, str]:
    """Logger -> `whole`, or how it failed: for the record."""
    return {logger.label: logger.failure or "whole" for logger in loggers}


def close(loggers: Sequence[Guarded], artifacts: Mapping[str, Sequence[Path]]) -> None:
    """End the wandb run of this process, after the record is written.

    Args:
        loggers: From `make_loggers`.
        artifacts: Type -> files that go to wandb too.
    """
    for logger in loggers:
        if logger.label == "wandb":
            logger.guard(partial(_finish, logger.experiment, artifacts))


def _finish(run: Any, artifacts: Mapping[str, Sequence[Path]]) -> None:  # noqa: ANN401 - wandb has no types
    import wandb  # noqa: PLC0415 - as above

    for kind, paths in artifacts.items():
        artifact = wandb.Artifact(f"{kind}-{run.id}", kind)
        for path in paths:
            artifact.add_file(str(path))
        run.log_artifact(artifact)
    run.finish()
