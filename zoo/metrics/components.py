"""The objects of a scene and how those of the label overlap with those of the prediction.

Objects are 8-connected components. Those of the label are made of landslide pixels; those of the prediction of predicted pixels, ignored ones
included, so that a gap in the label does not cut a prediction in two. Areas and overlaps count valid pixels only; how much of a predicted
object lies on ignored pixels is kept apart.
"""

from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage, sparse

from datamodules.classes import IGNORE, LANDSLIDE
from zoo.metrics.rasters import STRIP_PIXELS, Raster, check_labels, check_pair, strips

EIGHT_CONNECTED: Final = np.ones((3, 3), dtype=bool)
Pixels = NDArray[np.int64]


@dataclass(frozen=True)
class Overlaps:
    """Objects of one scene, in pixels: T labelled, P predicted, K pairs that share a valid pixel."""

    truth: Pixels
    """(T,): area of each labelled object."""
    predicted: Pixels
    """(P,): valid area of each predicted object; 0 for one that lies on ignored pixels altogether."""
    predicted_ignored: Pixels
    """(P,): pixels of each predicted object that are ignored."""
    truth_index: Pixels
    """(K,): labelled object of each pair."""
    predicted_index: Pixels
    """(K,): predicted object of each pair."""
    shared: Pixels
    """(K,): pixels that the two share."""
    valid: int
    """Valid pixels of the scene."""


@dataclass
class StripComponents:
    """Objects found strip by strip, from top to bottom, under provisional numbers, and which of these are parts of one object.

    Attributes:
        num: Provisional numbers given so far.
    """

    joins: list[NDArray[np.int64]] = field(default_factory=list)
    num: int = 0
    last_row: NDArray[np.int64] | None = None

    def enter(self, labels: NDArray[Any], num: int) -> NDArray[np.int64]:
        """Number the objects of the next strip on from those before it, and join what touches across the edge.

        Args:
            labels: integer (rows, W), as `scipy.ndimage.label` gives them: 0 = none.
            num: How many there are.

        Returns:
            int64 (rows, W): provisional numbers from 1, 0 = none.
        """
        numbered = np.where(labels > 0, labels.astype(np.int64) + self.num, 0)
        if self.last_row is not None:
            above, below = np.pad(self.last_row, 1), numbered[0]
            for shift in range(3):
                met = (neighbour := above[shift : shift + below.size]) > 0
                met &= below > 0
                self.joins.append(np.unique(np.stack([neighbour[met], below[met]]), axis=1))
        self.last_row = numbered[-1]
        self.num += num
        return numbered

    def merged(self) -> tuple[int, NDArray[np.int64]]:
        """Number of objects, and the object (from 0) of each provisional number (from 1)."""
        first, second = np.concatenate([*self.joins, np.zeros((2, 0), np.int64)], axis=1) - 1
        graph = sparse.coo_array((np.ones(first.size, bool), (first, second)), shape=(self.num, self.num))
        count, index = sparse.csgraph.connected_components(graph, directed=False) if self.num else (0, np.zeros(0, np.int64))
        return count, index.astype(np.int64)


def overlaps_of_rasters(truth: Raster, predicted: Raster, *, strip_pixels: int = STRIP_PIXELS) -> Overlaps:
    """Label both rasters strip by strip and count what overlaps, the same as labelling them whole.

    Memory: some 40 bytes a pixel of one strip, and some 100 bytes an object of the scene, hence a fraction of the scene unless it is
    all speckle.

    Args:
        truth: uint8 (H, W): 0, 1 or 255.
        predicted: bool (H, W).
        strip_pixels: Pixels that are read at a time.

    Raises:
        ValueError: The two differ in size, or the label holds other values.
    """
    check_pair(truth, predicted)
    tallies = StripComponents(), StripComponents()
    areas: tuple[list[Pixels], ...] = ([], [], [])
    pairs: list[NDArray[np.int64]] = []
    valid_pixels = 0
    for strip in strips(truth.shape, strip_pixels=strip_pixels):
        label = np.asarray(truth[strip.rows])
        check_labels(label)
        before = tallies[0].num, tallies[1].num
        actual = tallies[0].enter(*ndimage.label(label == LANDSLIDE, EIGHT_CONNECTED))
        guess = tallies[1].enter(*ndimage.label(np.asarray(predicted[strip.rows]), EIGHT_CONNECTED))
        valid = label != IGNORE
        valid_pixels += int(valid.sum())
        for into, numbers, first, last in (
            (areas[0], actual, before[0], tallies[0].num),
            (areas[1], guess[valid], before[1], tallies[1].num),
            (areas[2], guess[~valid], before[1], tallies[1].num),
        ):
            into.append(np.bincount(numbers[numbers > 0] - first - 1, minlength=last - first))
        pairs.append(_shared(actual, guess))
    index = [tally.merged() for tally in tallies]
    return _overlaps(index, areas, pairs, valid_pixels)


def overlaps_of_labels(truth: NDArray[Any], predicted: NDArray[Any], valid: NDArray[np.bool_] | None = None) -> Overlaps:
    """Count what overlaps among objects that are numbered already, for instance polygons that touch and yet are two landslides.

    Args:
        truth: integer (H, W): 0 = none, else the number of the object; those of ignored pixels do not count.
        predicted: integer (H, W), likewise.
        valid: bool (H, W): False where pixels are ignored; default nowhere.

    Raises:
        ValueError: The two differ in size.
    """
    check_pair(truth, predicted)
    known = np.ones(truth.shape, bool) if valid is None else valid
    (num_truth, actual), (num_predicted, guess) = _consecutive(np.where(known, truth, 0)), _consecutive(predicted)
    areas = tuple(
        [np.bincount(numbers, minlength=num + 1)[1:]]
        for numbers, num in ((actual.ravel(), num_truth), (guess[known], num_predicted), (guess[~known], num_predicted))
    )
    index = [(num, np.arange(num)) for num in (num_truth, num_predicted)]
    return _overlaps(index, areas, [_shared(actual, np.where(known, guess, 0))], int(known.sum()))


def _consecutive(labels: NDArray[Any]) -> tuple[int, NDArray[np.int64]]:
    """Objects numbered from 1 without gaps, and how many there are."""
    names, inverse = np.unique(labels, return_inverse=True)
    numbers = np.cumsum(names != 0) * (names != 0)
    return int((names != 0).sum()), numbers[inverse].reshape(labels.shape).astype(np.int64)


def _shared(actual: NDArray[np.int64], guess: NDArray[np.int64]) -> NDArray[np.int64]:
    """(3, K): labelled number, predicted number, shared pixels. Ignored pixels hold no labelled object, hence no pair."""
    both = (actual > 0) & (guess > 0)
    first, second = actual[both], guess[both]
    if not first.size:
        return np.zeros((3, 0), np.int64)
    low_first, low_second = first.min(), second.min()
    width = int(second.max() - low_second) + 1
    code, count = np.unique((first - low_first) * width + second - low_second, return_counts=True)
    return np.stack([code // width + low_first, code % width + low_second, count])


def _overlaps(
    index: list[tuple[int, NDArray[np.int64]]], areas: tuple[list[Pixels], ...], pairs: list[NDArray[np.int64]], valid: int
) -> Overlaps:
    """Sums by provisional object to sums by object."""
    (num_truth, of_truth), (num_predicted, of_predicted) = index

    def summed(parts: list[Pixels], of: NDArray[np.int64], num: int) -> Pixels:
        total = np.zeros(num, np.int64)
        np.add.at(total, of, np.concatenate([*parts, np.zeros(0, np.int64)]))
        return total

    first, second, shared = np.concatenate([*pairs, np.zeros((3, 0), np.int64)], axis=1)
    code, inverse = np.unique(of_truth[first - 1] * max(num_predicted, 1) + of_predicted[second - 1], return_inverse=True)
    pixels = np.zeros(code.size, np.int64)
    np.add.at(pixels, inverse.ravel(), shared)
    return Overlaps(
        truth=summed(areas[0], of_truth, num_truth),
        predicted=summed(areas[1], of_predicted, num_predicted),
        predicted_ignored=summed(areas[2], of_predicted, num_predicted),
        truth_index=code // max(num_predicted, 1),
        predicted_index=code % max(num_predicted, 1),
        shared=pixels,
        valid=valid,
    )
