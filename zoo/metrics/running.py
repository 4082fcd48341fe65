"""Metrics that grow batch by batch while a method trains or is tested: torchmetrics, for Lightning to move, sum over ranks and reset.

In a room of their own, because torchmetrics takes seconds to import, and reports do without it.
"""

from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from zoo.metrics.pixels import NUM_BINS, score_histogram
from zoo.metrics.tiles import classification_scores


class ScoreHistogram(Metric):
    """Pooled score histogram over batches and ranks.

    The state is one integer tensor that is summed over ranks, so the result does not depend on how samples were dealt out.

    Example:
        >>> from zoo.metrics.pixels import pixel_scores
        >>> metric = ScoreHistogram()
        >>> metric.update(torch.tensor([[[0.9, 0.2]]]), torch.tensor([[[1, 0]]]))
        >>> pixel_scores(metric.compute(), 0.5)["iou_landslide"]
        1.0
    """

    full_state_update = False
    histogram: Tensor

    def __init__(self, **kwargs: Any) -> None:  # noqa: ANN401 - torchmetrics' own signature
        super().__init__(**kwargs)
        self.add_state("histogram", torch.zeros(2, NUM_BINS, dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, probabilities: Tensor, mask: Tensor) -> None:
        """Add a batch; see `score_histogram`."""
        self.histogram += score_histogram(probabilities, mask).sum(0)

    def compute(self) -> Tensor:
        """The pooled histogram, int64 (2, 256)."""
        return self.histogram


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
        return classification_scores(self.name, tp, fp, fn, tn)
