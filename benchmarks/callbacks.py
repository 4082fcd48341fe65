"""What a run keeps and tells of itself while it trains: checkpoints, time, progress."""

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback, Checkpoint

from benchmarks.atomic import write_json


class Checkpoints(Checkpoint):
    """Keeps, at each validation, the best weights so far (`best.ckpt`, by IoU) and what a resumed run needs (`last.ckpt`).

    Lightning's own ModelCheckpoint can do this but for two things that a resumed run must not get wrong (2.6). A file that it writes at
    the end of an epoch resumes with the epoch number one too high, hence with other training windows. And two of them save `last` before
    `best`, so that `last` does not know the best score of its own validation. Equal scores keep the earlier weights; NaN is the worst.

    Args:
        folder: Of the two files.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.best_score: float | None = None
        self._seen: dict[Path, dict[str, float]] = {}

    @property
    def best(self) -> Path:
        """Weights of the best validation."""
        return self.folder / "best.ckpt"

    @property
    def last(self) -> Path:
        """Everything as it was after the last validation."""
        return self.folder / "last.ckpt"

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:  # noqa: ARG002 - Lightning's signature
        """Save."""
        if trainer.state.fn != "fit" or trainer.sanity_checking:
            return
        score = float(trainer.callback_metrics["val/iou_landslide"])
        self._seen = {self.last: {name: float(value) for name, value in trainer.callback_metrics.items() if name.startswith("val/")}}
        # The first validation is always kept, even a NaN: there must be something to test. All ranks see the same score and decide alike.
        if self.best_score is None or score > self.best_score:
            self.best_score = -math.inf if math.isnan(score) else score
            trainer.save_checkpoint(self.best, weights_only=True)
            self._seen[self.best] = self._seen[self.last]
        trainer.save_checkpoint(self.last)

    def scores(self, path: Path) -> dict[str, float] | None:
        """What validation gave for the weights of a file, if they are those that training has just ended with; else None."""
        return self._seen.get(path)

    def state_dict(self) -> dict[str, Any]:
        """For the checkpoint."""
        return {"best_score": self.best_score}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """From the checkpoint."""
        self.best_score = state_dict["best_score"]


class Clock(Callback):
    """Seconds and joules spent in training, without validation; kept in the checkpoint, so that an interrupted run counts all of its parts.

    Args:
        meter: Reads an energy counter [J]; None where there is none.
    """

    def __init__(self, meter: Callable[[], float] | None = None) -> None:
        self.train_seconds = 0.0
        self.train_joules = None if meter is None else 0.0
        self.earlier_seconds = 0.0
        self._meter = meter
        self._begin = time.perf_counter()
        self._since, self._joules_since = self._begin, 0.0
        self._stage = ""

    @property
    def seconds(self) -> float:
        """Wall time since this object was made, and that of its predecessors up to their last checkpoint."""
        return self.earlier_seconds + time.perf_counter() - self._begin

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:  # noqa: ARG002 - Lightning's signature
        """Know why a checkpoint is loaded next."""
        self._stage = stage

    def _start(self) -> None:
        self._since = time.perf_counter()
        if self._meter is not None:
            self._joules_since = self._meter()

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:  # noqa: ARG002 - Lightning's signature
        """Start counting."""
        self._start()

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:  # noqa: ARG002 - Lightning's signature
        """Stop counting."""
        if trainer.state.fn == "fit":
            self.train_seconds += time.perf_counter() - self._since
            if self._meter is not None and self.train_joules is not None:
                self.train_joules += self._meter() - self._joules_since

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:  # noqa: ARG002 - Lightning's signature
        """Go on counting."""
        if trainer.state.fn == "fit":
            self._start()

    def state_dict(self) -> dict[str, Any]:
        """For the checkpoint."""
        return {"train_seconds": self.train_seconds, "train_joules": self.train_joules, "seconds": self.seconds}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """From the checkpoint, when it is resumed; one that is loaded to be tested holds what is counted already."""
        if self._stage == "fit":
            self.train_seconds, self.earlier_seconds = state_dict["train_seconds"], state_dict["seconds"]
            # A part that nobody measured makes the whole unknown, also when this part can be measured.
            earlier = state_dict["train_joules"]
            self.train_joules = None if self._meter is None else earlier


class Progress(Callback):
    """Tells the runner's display how far the run is: a small file at each validation.

    Args:
        path: Of that file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:  # noqa: ARG002 - Lightning's signature
        """Write the step and the score."""
        if trainer.is_global_zero and trainer.state.fn == "fit":
            score = float(trainer.callback_metrics["val/iou_landslide"])
            content = {"step": trainer.global_step, "max_steps": trainer.max_steps, "iou": None if math.isnan(score) else score}
            write_json(self.path, content)
