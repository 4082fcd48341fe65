"""How well outlines agree, in metres.

Rules, the same for label and prediction:

- *Outline*: the landslide pixels with a background pixel among their four neighbours. A pixel that is ignored or outside the scene is no
  background: an object that is cut by them has no outline there. Ignored pixels of the prediction are neither landslide nor background.
- *Distance*: between pixel centres, in metres, with the pixel's own width and height.
- *Boundary precision* at a tolerance: share of the predicted outline that lies within it from the labelled outline; *recall* the other
  way round; *F1* their harmonic mean (Csurka et al. 2013, doi 10.5244/C.27.32, with metres for pixels).
- *Boundary IoU* (Cheng et al. 2021, doi 10.1109/CVPR46437.2021.01508): IoU of the two inner bands, a band being the landslide pixels at
  most so far from background. The paper's width, two percent of the image diagonal, means nothing on a map, so it is stated in metres;
  and the border of the picture, an edge in the paper, is none here, since a scene ends where the image does and not where a landslide ends.
- Nothing labelled and nothing predicted: all scores are NaN. Nothing predicted: precision is NaN, recall and F1 are 0. Nothing labelled:
  recall is NaN, precision and F1 are 0.

Counts are pixels, so on pixels that are not square a metre of outline does not weigh the same in all directions; that holds for label and
prediction alike.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from datamodules.classes import IGNORE, LANDSLIDE
from datamodules.errors import UserError
from zoo.metrics.counts import Counts, f1_score, ratio
from zoo.metrics.rasters import STRIP_PIXELS, Raster, check_labels, check_pair, strips

SLACK = 1 + 1e-9
"""Three pixels of 0.1 m are 0.3 m, whatever their sum in floating point."""

Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class BoundaryRules:
    """What is counted.

    Args:
        tolerances_m: Distances within which outlines agree.
        band_m: Width of the inner band of boundary IoU; at least one pixel.
    """

    tolerances_m: tuple[float, ...]
    band_m: float


@dataclass(frozen=True, eq=False)
class BoundaryCounts(Counts):
    """Pixels of outlines and bands; T tolerances."""

    rules: BoundaryRules
    predicted: int
    """Pixels of the predicted outline."""
    truth: int
    """Pixels of the labelled outline."""
    predicted_near: NDArray[np.int64]
    """(T,): those of the predicted outline within each tolerance of the labelled one."""
    truth_near: NDArray[np.int64]
    """(T,): those of the labelled outline within each tolerance of the predicted one."""
    band_intersection: int
    """Pixels in both bands."""
    band_union: int
    """Pixels in either band."""

    def scores(self) -> dict[str, float]:
        """`boundary_precision_10m`, `boundary_recall_10m`, `boundary_f1_10m` for each tolerance, and `boundary_iou_10m` for the band."""
        scores: dict[str, float] = {}
        for tolerance, predicted_near, truth_near in zip(self.rules.tolerances_m, self.predicted_near, self.truth_near, strict=True):
            precision, recall = ratio(int(predicted_near), self.predicted), ratio(int(truth_near), self.truth)
            scores[f"boundary_precision_{tolerance:g}m"] = precision
            scores[f"boundary_recall_{tolerance:g}m"] = recall
            scores[f"boundary_f1_{tolerance:g}m"] = f1_score(precision, recall)
        scores[f"boundary_iou_{self.rules.band_m:g}m"] = ratio(self.band_intersection, self.band_union)
        return scores


def boundary_counts(
    truth: Raster, predicted: Raster, pixel_size_m: tuple[float, float], rules: BoundaryRules, *, strip_pixels: int = STRIP_PIXELS
) -> BoundaryCounts:
    """Count outlines and bands of one scene.

    Memory: some 40 bytes a pixel of one strip of rows with a halo as high as the largest distance.

    Args:
        truth: uint8 (H, W): 0, 1 or 255.
        predicted: bool (H, W).
        pixel_size_m: Width and height of a pixel (x, y).
        rules: Distances in metres.
        strip_pixels: Pixels that are read at a time.

    Raises:
        ValueError: The two differ in size, or the label holds other values.
        UserError: A distance is not positive, or the band is narrower than a pixel, so that nothing would lie in it.
    """
    check_pair(truth, predicted)
    _check(rules, pixel_size_m)
    # One row more, since an outline depends on the next row too.
    halo = math.ceil(max(*rules.tolerances_m, rules.band_m) / pixel_size_m[1]) + 1
    total = _nothing(rules)
    for strip in strips(truth.shape, halo=halo, strip_pixels=strip_pixels):
        label = np.asarray(truth[strip.rows])
        check_labels(label)
        known = label != IGNORE
        actual, guess = label == LANDSLIDE, np.asarray(predicted[strip.rows]) & known
        total += _strip(known, actual, guess, strip.inner, pixel_size_m, rules)
    return total


def _nothing(rules: BoundaryRules) -> BoundaryCounts:
    zeros = np.zeros(len(rules.tolerances_m), np.int64)
    return BoundaryCounts(rules, 0, 0, zeros, zeros, 0, 0)


def _check(rules: BoundaryRules, pixel_size_m: tuple[float, float]) -> None:
    if not rules.tolerances_m:
        raise UserError("is empty", "give at least one distance in metres", field="tolerances_m")
    for tolerance in rules.tolerances_m:
        if not tolerance > 0:
            raise UserError("is no distance", "give positive metres", field="tolerances_m", value=tolerance)
    if not rules.band_m * SLACK >= max(pixel_size_m):
        raise UserError("is narrower than a pixel", f"give at least {max(pixel_size_m):g} metres", field="band_m", value=rules.band_m)


def _strip(known: Mask, actual: Mask, guess: Mask, inner: slice, pixel_size_m: tuple[float, float], rules: BoundaryRules) -> BoundaryCounts:
    """Counts of the inner rows of a strip whose halo holds all that is near enough to matter."""
    if not (actual[inner].any() or guess[inner].any()):
        return _nothing(rules)
    truth_outline, predicted_outline = outline(actual, known), outline(guess, known)
    truth_band = _band(actual, known, inner, pixel_size_m, rules.band_m)
    predicted_band = _band(guess, known, inner, pixel_size_m, rules.band_m)
    return BoundaryCounts(
        rules=rules,
        predicted=int(predicted_outline[inner].sum()),
        truth=int(truth_outline[inner].sum()),
        predicted_near=_near(predicted_outline, truth_outline, inner, pixel_size_m, rules.tolerances_m),
        truth_near=_near(truth_outline, predicted_outline, inner, pixel_size_m, rules.tolerances_m),
        band_intersection=int((truth_band & predicted_band).sum()),
        band_union=int((truth_band | predicted_band).sum()),
    )


def outline(inside: Mask, known: Mask) -> Mask:
    """Pixels inside with a known pixel outside among their four neighbours; bool (H, W)."""
    outside, beside = known & ~inside, np.zeros_like(inside)
    beside[1:] |= outside[:-1]
    beside[:-1] |= outside[1:]
    beside[:, 1:] |= outside[:, :-1]
    beside[:, :-1] |= outside[:, 1:]
    return inside & beside


def distances(
    rows: NDArray[np.int64], columns: NDArray[np.int64], to: Mask, pixel_size_m: tuple[float, float], reach_m: float
) -> NDArray[np.float64]:
    """Euclidean distance in metres of some pixels to the nearest pixel of a set.

    A distance transform in two passes (along rows, then over rows), whose second pass is done for the given pixels only and no farther
    than asked: outlines are few, and tolerances small against a scene.

    Args:
        rows: (N,).
        columns: (N,).
        to: bool (H, W): the set.
        pixel_size_m: Width and height of a pixel (x, y).
        reach_m: Distances up to this one are exact; where there is none, the result is beyond it.

    Returns:
        float64 (N,); infinite where nothing was found.
    """
    width_m, height_m = pixel_size_m
    aside = _columns_to_nearest(to)
    best = np.full(rows.size, np.inf)
    left = np.arange(rows.size)
    for step in range(int(reach_m * SLACK / height_m) + 1):
        for row in (rows[left] - step, rows[left] + step):
            there = (row >= 0) & (row < to.shape[0])
            which = left[there]
            # float64 from here on: 0.3 m times a float32 is more than 0.3 m.
            columns_m = width_m * aside[row[there], columns[which]].astype(np.float64)
            best[which] = np.minimum(best[which], np.hypot(step * height_m, columns_m))
        left = left[best[left] > (step + 1) * height_m]
        if not left.size:
            break
    return best


def _columns_to_nearest(to: Mask) -> NDArray[np.float32]:
    """Columns to the nearest pixel of the set in the same row; infinite where the row has none."""
    column = np.arange(to.shape[1], dtype=np.float32)
    before = np.maximum.accumulate(np.where(to, column, -np.float32(np.inf)), axis=1)
    after = np.minimum.accumulate(np.where(to, column, np.float32(np.inf))[:, ::-1], axis=1)[:, ::-1]
    nearest: NDArray[np.float32] = np.minimum(column - before, after - column)
    return nearest


def _band(inside: Mask, known: Mask, inner: slice, pixel_size_m: tuple[float, float], width_m: float) -> Mask:
    """Pixels of the inner rows that are inside, at most `width_m` from a known pixel outside."""
    rows, columns = np.nonzero(inside[inner])
    near = np.zeros_like(inside[inner])
    near[rows, columns] = distances(rows + inner.start, columns, known & ~inside, pixel_size_m, width_m) <= width_m * SLACK
    return near


def _near(of: Mask, to: Mask, inner: slice, pixel_size_m: tuple[float, float], tolerances_m: tuple[float, ...]) -> NDArray[np.int64]:
    rows, columns = np.nonzero(of[inner])
    distance = distances(rows + inner.start, columns, to, pixel_size_m, max(tolerances_m))
    return np.array([int((distance <= tolerance * SLACK).sum()) for tolerance in tolerances_m], np.int64)
