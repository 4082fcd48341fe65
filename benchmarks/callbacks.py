"""What a run observes of itself: time and progress."""

import math
import time
from pathlib import Path
from typing import Any

import lightning as L  # noqa: N812 - the name everybody uses
from lightning.pytorch.callbacks import Callback

from benchmarks.atomic import write_json


class Clock(Callback):
    """Seconds spent in training, without validation; kept in the checkpoint, so that an interrupted run counts all of its parts."""

    def __init__(self) -> None:
        self.train_seconds = 0.0
        self.earlier_seconds = 0.0
        self._begin = time.perf_counter()
        self._since = self._begin

    @property
    def seconds(self) -> float:
        """Wall time since this object was made, and that of its predecessors up to their last checkpoint."""
        return self.earlier_seconds + time.perf_counter() - self._begin

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:  # noqa: ARG002 - Lightning's signature
        """Start counting."""
        self._since = time.perf_counter()

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:  # noqa: ARG002 - Lightning's signature
        """Stop counting."""
        if trainer.state.fn == "fit":
            self.train_seconds += time.perf_counter() - self._since

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:  # noqa: ARG002 - Lightning's signature
        """Go on counting."""
        self._since = time.perf_counter()

    def state_dict(self) -> dict[str, Any]:
        """For the checkpoint."""
        return {"train_seconds": self.train_seconds, "seconds": self.seconds}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """From the checkpoint."""
        self.train_seconds, self.earlier_seconds = state_dict["train_seconds"], state_dict["seconds"]


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
