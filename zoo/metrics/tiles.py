"""Scores of yes-or-no predictions about tiles or other objects, pooled over batches and ranks."""

from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric


class ClassificationScores(Metric):
    """F1 of the landslide class and accuracy, from counts that are summed over ranks: each object counts once, wherever it was seen.

    Args:
        name: Prefix of the scores: `tile` gives `tile_f1` and `tile_accuracy`.
    """

    full_state_update = False
    counts: Tensor

    def __init__(self, name: str, **kwargs: Any) -> None:  # noqa: ANN401 - torchmetrics' own signature
        super().__init__(**kwargs)
        self.name = name
        self.add_state("counts", torch.zeros(2, 2, dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, predicted: Tensor, label: Tensor, valid: Tensor) -> None:
        """Add objects.

        Args:
            predicted: bool (N,).
            label: bool (N,).
            valid: bool (N,): objects that count.
        """
        cell = 2 * label.long() + predicted.long()
        self.counts += torch.zeros(4, dtype=torch.int64, device=cell.device).scatter_add(0, cell, valid.long()).view(2, 2)

    def compute(self) -> dict[str, float]:
        """The scores by name; one without a denominator is NaN."""
        (tn, fp), (fn, tp) = self.counts.tolist()
        total, positive = tn + fp + fn + tp, 2 * tp + fp + fn
        return {
            f"{self.name}_f1": 2 * tp / positive if positive else float("nan"),
            f"{self.name}_accuracy": (tp + tn) / total if total else float("nan"),
        }
