"""Walking over a scene in strips of rows, so that memory does not grow with its height."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from datamodules.classes import BACKGROUND, IGNORE, LANDSLIDE

STRIP_PIXELS: Final = 4_000_000
"""Pixels of a strip without its halo; whoever works on strips needs some 40 bytes for each of them."""


class Raster(Protocol):
    """A scene of H x W pixels of which rows can be read: an array, a memory map, or a reader of a file on disk."""

    @property
    def shape(self) -> tuple[int, ...]:
        """(H, W)."""

    def __getitem__(self, rows: slice, /) -> NDArray[Any]:
        """Rows start to stop, (stop - start, W)."""


@dataclass(frozen=True)
class Thresholded:
    """Where a probability reaches a threshold, read as the rows are asked for.

    Args:
        probability: (H, W), in [0, 1]; NaN is below any threshold.
        threshold: Decision threshold.
    """

    probability: Raster
    threshold: float

    @property
    def shape(self) -> tuple[int, ...]:
        """(H, W)."""
        return self.probability.shape

    def __getitem__(self, rows: slice, /) -> NDArray[np.bool_]:
        """Rows start to stop, bool (stop - start, W)."""
        reached: NDArray[np.bool_] = self.probability[rows] >= self.threshold
        return reached


@dataclass(frozen=True)
class Strip:
    """Rows of a scene.

    Attributes:
        rows: The strip with its halo.
        inner: The strip itself, counted from the first row of `rows`.
    """

    rows: slice
    inner: slice


def strips(shape: tuple[int, ...], *, halo: int = 0, strip_pixels: int = STRIP_PIXELS) -> Iterator[Strip]:
    """Cut a scene into strips of whole rows that cover each pixel once.

    Args:
        shape: (H, W).
        halo: Rows to read beyond a strip on either side, where the scene has them. A strip is at least twice as high, so that the halo
            at most doubles the work.
        strip_pixels: Pixels of a strip without its halo.
    """
    height, width = shape
    step = max(1, 2 * halo, strip_pixels // max(width, 1))
    for begin in range(0, height, step):
        end = min(begin + step, height)
        first = max(begin - halo, 0)
        yield Strip(slice(first, min(end + halo, height)), slice(begin - first, end - first))


def check_pair(truth: Raster, predicted: Raster) -> None:
    """Check that label and prediction are of the same scene.

    Raises:
        ValueError: They are not two-dimensional or differ in size.
    """
    if len(truth.shape) != 2 or tuple(truth.shape) != tuple(predicted.shape):
        raise ValueError(f"label {tuple(truth.shape)} and prediction {tuple(predicted.shape)} must be of one size (H, W)")


def check_labels(truth: NDArray[Any]) -> None:
    """Check that a label holds nothing but 0, 1 and 255.

    Raises:
        ValueError: It holds other values.
    """
    if not bool(((truth == BACKGROUND) | (truth == LANDSLIDE) | (truth == IGNORE)).all()):
        raise ValueError("labels must be 0 (background), 1 (landslide) or 255 (ignore)")
