"""All scores of whole scenes: pixels, calibration, outlines, objects."""

import math
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray

from zoo.metrics.boundary import BoundaryCounts, BoundaryRules, boundary_counts
from zoo.metrics.components import overlaps_of_rasters
from zoo.metrics.counts import Counts
from zoo.metrics.objects import ObjectCounts, ObjectRules, object_counts
from zoo.metrics.pixels import NUM_BINS, oracle_scores, pixel_scores, score_histogram
from zoo.metrics.rasters import STRIP_PIXELS, Raster, Thresholded, check_labels, check_pair, strips


@dataclass(frozen=True)
class SceneRules:
    """What is counted in a scene; scenes pool only by equal rules.

    Args:
        boundary: Distances in metres.
        objects: Areas in square metres.
        threshold: Decision threshold on the probability, rounded up to k / 256, so that pixels, outlines and objects see the same map.
    """

    boundary: BoundaryRules
    objects: ObjectRules
    threshold: float

    def __post_init__(self) -> None:
        object.__setattr__(self, "threshold", math.ceil(self.threshold * NUM_BINS - 1e-9) / NUM_BINS)

    @classmethod
    def by_pixels(cls, pixel_size_m: tuple[float, float], threshold: float) -> Self:
        """Rules for scenes of one pixel size: outlines within 2 and 4 pixels, a band of 2 pixels, objects from 16 pixels on.

        Args:
            pixel_size_m: Width and height of a pixel (x, y); the larger counts for distances.
            threshold: Decision threshold.
        """
        size = max(pixel_size_m)
        objects = ObjectRules(min_area_m2=16 * pixel_size_m[0] * pixel_size_m[1])
        return cls(BoundaryRules((2 * size, 4 * size), 2 * size), objects, threshold)


@dataclass(frozen=True, eq=False)
class SceneCounts(Counts):
    """Counts of one scene, or of many: `pool` adds them."""

    rules: SceneRules
    histogram: NDArray[np.int64]
    """(2, 256): score histogram."""
    boundary: BoundaryCounts
    objects: ObjectCounts

    def scores(self) -> dict[str, float]:
        """Those of `pixel_scores`, `oracle_scores`, `BoundaryCounts.scores` and `ObjectCounts.scores`, by name."""
        histogram = torch.from_numpy(self.histogram)
        return {
            **pixel_scores(histogram, self.rules.threshold),
            **oracle_scores(histogram, self.rules.threshold),
            **self.boundary.scores(),
            **self.objects.scores(),
        }


def scene_scores(
    probability: Raster, truth: Raster, pixel_size_m: tuple[float, float], rules: SceneRules, *, strip_pixels: int = STRIP_PIXELS
) -> SceneCounts:
    """Count everything that is scored in one scene.

    Memory: that of `boundary_counts` or `overlaps_of_rasters`, whichever is more; the scene is read in strips of rows three times and need
    not fit into memory.

    Args:
        probability: float (H, W) in [0, 1]; NaN only where the label is ignored.
        truth: uint8 (H, W): 0, 1 or 255.
        pixel_size_m: Width and height of a pixel (x, y).
        rules: What is counted.
        strip_pixels: Pixels that are read at a time.

    Returns:
        Counts; `.scores()` gives the numbers, `pool` those of many scenes.

    Raises:
        ValueError: The two differ in size, labels are others than 0, 1, 255, or a probability of a valid pixel is not in [0, 1].
        UserError: A distance or area of the rules makes no sense.

    Example:
        >>> truth = np.zeros((64, 64), np.uint8)
        >>> truth[20:40, 20:40] = 1
        >>> rules = SceneRules.by_pixels((5.0, 5.0), threshold=0.5)
        >>> scores = scene_scores(0.8 * truth, truth, (5.0, 5.0), rules).scores()
        >>> scores["boundary_f1_10m"], scores["object_f1_iou0.5"], scores["object_false_alarms_per_km2_any_hit"]
        (1.0, 1.0, 0.0)
    """
    check_pair(truth, probability)
    histogram = np.zeros((2, NUM_BINS), np.int64)
    for strip in strips(truth.shape, strip_pixels=strip_pixels):
        label: NDArray[Any] = np.asarray(truth[strip.rows])
        check_labels(label)
        chances, labels = torch.tensor(np.asarray(probability[strip.rows])), torch.tensor(label)
        histogram += score_histogram(chances[None], labels[None])[0].numpy()
    predicted = Thresholded(probability, rules.threshold)
    overlaps = overlaps_of_rasters(truth, predicted, strip_pixels=strip_pixels)
    return SceneCounts(
        rules=rules,
        histogram=histogram,
        boundary=boundary_counts(truth, predicted, pixel_size_m, rules.boundary, strip_pixels=strip_pixels),
        objects=object_counts(overlaps, pixel_size_m, rules.objects),
    )
