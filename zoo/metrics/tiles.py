"""Scores of yes-or-no predictions about tiles or other objects, pooled over batches, ranks and units.

The answers may be those of a classifier; `tile_counts` derives one from the score histogram of each tile, for any
method that maps pixels.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from zoo.metrics.counts import Counts, ratio
from zoo.metrics.pixels import NUM_BINS

MIN_SHARE: Final = 0.05
"""Share of landslide from which a tile is one; also what ICSSN's own labels of objects take by default."""


def classification_scores(name: str, tp: int, fp: int, fn: int, tn: int) -> dict[str, float]:
    """F1 of the landslide class and accuracy as `NAME_f1` and `NAME_accuracy`; NaN without a denominator."""
    return {f"{name}_f1": ratio(2 * tp, 2 * tp + fp + fn), f"{name}_accuracy": ratio(tp + tn, tp + fp + fn + tn)}


@dataclass(frozen=True)
class TileRule:
    """When a tile is a landslide tile.

    Args:
        threshold: Decision threshold on the probability of a pixel.
        min_share: Least share of the tile's valid pixels: labelled landslide for the label, at or above the threshold for the prediction. The
            same on both sides, so that nothing is tuned. In (0, 1].
    """

    threshold: float
    min_share: float = MIN_SHARE

    def __post_init__(self) -> None:
        if not 0 < self.min_share <= 1:
            raise ValueError(f"min_share must lie in (0, 1], not {self.min_share}")


@dataclass(frozen=True, eq=False)
class TileCounts(Counts):
    """Tiles by label and prediction."""

    rules: TileRule
    tp: int
    fp: int
    fn: int
    tn: int

    def scores(self) -> dict[str, float]:
        """`tile_share_f1` of the landslide class, `tile_share_accuracy`, `tile_share_prevalence`: share of tiles labelled landslide."""
        tiles = self.tp + self.fp + self.fn + self.tn
        scores = classification_scores("tile_share", self.tp, self.fp, self.fn, self.tn)
        return {**scores, "tile_share_prevalence": ratio(self.tp + self.fn, tiles)}


def tile_counts(histograms: Iterable[NDArray[Any]], rule: TileRule) -> TileCounts:
    """Classify tiles by their pixels; a tile without a valid pixel does not count.

    Args:
        histograms: int64 (2, 256), one a tile.
        rule: When a tile is a landslide tile.
    """
    counts = np.stack([np.zeros((2, NUM_BINS), np.int64), *histograms])
    pixels = counts.sum((1, 2))
    counts, least = counts[pixels > 0], rule.min_share * pixels[pixels > 0]
    edge = math.ceil(rule.threshold * NUM_BINS - 1e-9)
    labelled, predicted = counts[:, 1].sum(1) >= least, counts[:, :, edge:].sum((1, 2)) >= least
    (tn, fp), (fn, tp) = np.bincount(2 * labelled + predicted, minlength=4).reshape(2, 2).tolist()
    return TileCounts(rule, tp=tp, fp=fp, fn=fn, tn=tn)
