"""Pixel metrics of the landslide class from score histograms.

The sufficient statistic of a unit (tile, block or scene) is a *score histogram*: int64 counts (2, 256), row 0 the background
pixels and row 1 the landslide pixels, column k those with a predicted probability in [k / 256, (k + 1) / 256), the last closed.
Histograms add up, over batches, ranks, tiles and scenes; any threshold k / 256 gives its exact confusion matrix, and average
precision, Brier score and calibration follow without the predictions. All scores are pooled: one matrix over all pixels, the
definition that the papers' own numbers satisfy (IoU = F1 / (2 - F1)).
"""

import math
from typing import Final

import torch
from torch import Tensor

from datamodules.classes import IGNORE, LANDSLIDE
from zoo.metrics.counts import ratio

NUM_BINS: Final = 256


def score_histogram(probabilities: Tensor, mask: Tensor) -> Tensor:
    """Count pixels by label and probability, one histogram a sample.

    Args:
        probabilities: float (B, H, W) in [0, 1].
        mask: integer (B, H, W): 0, 1 or 255 (ignored).

    Returns:
        int64 (B, 2, 256).

    Raises:
        ValueError: A probability of a counted pixel is not in [0, 1], NaN included.
    """
    valid = mask != IGNORE
    counted = probabilities[valid]
    if not bool(((counted >= 0) & (counted <= 1)).all()):
        raise ValueError("probabilities must lie in [0, 1]; the network gave NaN or was not passed through a sigmoid")
    size = probabilities.shape[0]
    # float64, since bf16 and float16 cannot tell 256 bins apart near 1.
    bins = (probabilities.double() * NUM_BINS).nan_to_num(0).long().clamp(0, NUM_BINS - 1)
    sample = torch.arange(size, device=mask.device).view(-1, 1, 1)
    index = (sample * 2 + (mask == LANDSLIDE).long()) * NUM_BINS + bins
    return torch.bincount(index[valid], minlength=size * 2 * NUM_BINS).view(size, 2, NUM_BINS)


def confusion(histogram: Tensor, threshold: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """True positives, false positives, false negatives, true negatives at `probability >= threshold`.

    Args:
        histogram: int64 (..., 2, 256).
        threshold: In [0, 1]; rounded up to a bin edge k / 256, so that the counts are exact. At 1 nothing is predicted: the last bin
            holds 1 itself with all that is near it.

    Returns:
        Four int64 tensors (...).
    """
    edge = math.ceil(threshold * NUM_BINS - 1e-9)
    above = histogram[..., edge:].sum(-1)
    below = histogram[..., :edge].sum(-1)
    return above[..., 1], above[..., 0], below[..., 1], below[..., 0]


def average_precision(histogram: Tensor) -> float:
    """Area under the precision-recall curve by the step rule of scikit-learn, ties within a bin taken together.

    Args:
        histogram: int64 (2, 256).

    Returns:
        In [0, 1]; NaN without landslide pixels.
    """
    counts = histogram.double().flip(-1).cumsum(-1)
    positives = counts[1, -1]
    if positives == 0:
        return math.nan
    precision = counts[1] / counts.sum(0).clamp(min=1)
    recall_step = torch.diff(counts[1], prepend=counts.new_zeros(1)) / positives
    return float((precision * recall_step).sum())


def best_threshold(histogram: Tensor) -> float:
    """The threshold k / 256, k in 1..255, with the highest F1 (and hence IoU); to be chosen on validation, never on test.

    Args:
        histogram: int64 (2, 256). Without landslide pixels there is nothing to choose: 0.5.
    """
    if int(histogram[1].sum()) == 0:
        return 0.5
    above = histogram.double().flip(-1).cumsum(-1).flip(-1)
    f1 = 2 * above[1] / (above[1] + above[0] + histogram[1].sum())
    # The middle of all best thresholds: ties are common where bins are empty, and the middle is the safest of them.
    candidates = (f1[1:] >= f1[1:].max() - 1e-12).nonzero().flatten() + 1
    return float(candidates[len(candidates) // 2]) / NUM_BINS


def pixel_scores(histogram: Tensor, threshold: float) -> dict[str, float]:
    """All pixel scores of one pooled histogram.

    Args:
        histogram: int64 (2, 256).
        threshold: Decision threshold on the probability.

    Returns:
        `iou_landslide, iou_background, miou, f1, precision, recall, pixel_accuracy, mcc, ap, brier, prevalence, threshold,
        pixels`. A score without a denominator (precision of an empty prediction) is NaN.
    """
    tp, fp, fn, tn = (int(count) for count in confusion(histogram, threshold))
    total = tp + fp + fn + tn
    iou_landslide, iou_background = ratio(tp, tp + fp + fn), ratio(tn, tn + fp + fn)
    centre = (torch.arange(NUM_BINS, dtype=torch.float64) + 0.5) / NUM_BINS
    counts = histogram.double().cpu()
    squared_error = float((counts[0] * centre**2 + counts[1] * (1 - centre) ** 2).sum())
    return {
        "iou_landslide": iou_landslide,
        "iou_background": iou_background,
        "miou": (iou_landslide + iou_background) / 2,
        "f1": ratio(2 * tp, 2 * tp + fp + fn),
        "precision": ratio(tp, tp + fp),
        "recall": ratio(tp, tp + fn),
        "pixel_accuracy": ratio(tp + tn, total),
        "mcc": ratio(tp * tn - fp * fn, math.sqrt((tp + fp) * (tp + fn) * (tn + fp) * (tn + fn))),
        "ap": average_precision(histogram),
        "brier": ratio(squared_error, total),
        "prevalence": ratio(tp + fn, total),
        "threshold": threshold,
        "pixels": float(total),
    }


def oracle_scores(histogram: Tensor, threshold: float) -> dict[str, float]:
    """What a threshold that knew the labels would have gained; a diagnosis of the threshold, never a result.

    Args:
        histogram: int64 (2, 256), of test.
        threshold: The one that validation chose.

    Returns:
        `oracle_threshold`, the best on these pixels; `oracle_iou`, the landslide IoU there; `oracle_gap`, how far that is above the IoU at
        `threshold`. NaN without landslide pixels.
    """
    if int(histogram[1].sum()) == 0:
        return dict.fromkeys(("oracle_threshold", "oracle_iou", "oracle_gap"), math.nan)
    best = best_threshold(histogram)
    iou, known = (pixel_scores(histogram, value)["iou_landslide"] for value in (threshold, best))
    return {"oracle_threshold": best, "oracle_iou": known, "oracle_gap": known - iou}
