"""Where things are on the page: all pictures and outlines of a map share one frame."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from affine import Affine

from datamodules.grid import Grid

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Frame:
    """The rectangle of a map on the page, in units that are as long on the ground along both axes.

    Args:
        grid: Of the map.
        pictures: Of the pictures that fill the frame: the same ground, in as many pixels as the page has room for.
        unit_m: Metres of a unit.
    """

    grid: Grid
    pictures: Grid
    unit_m: float

    @classmethod
    def of(cls, grid: Grid, side: int) -> "Frame":
        """The frame of a map.

        Args:
            grid: Of the map.
            side: Most pixels of a picture along its longer side.
        """
        (x_m, y_m), at = grid.pixel_size, grid.transform
        unit_m = max(min(x_m, y_m), max(grid.width * x_m, grid.height * y_m) / side)
        width, height = (
            min(max(math.ceil(pixels * size / unit_m - 1e-6), 1), pixels, side) for pixels, size in ((grid.width, x_m), (grid.height, y_m))
        )
        across, down = grid.width / width, grid.height / height
        transform = Affine(at.a * across, 0, at.c, 0, at.e * down, at.f)
        return cls(grid, Grid(grid.crs, transform, width, height, (x_m * across, y_m * down)), unit_m)

    @property
    def size(self) -> tuple[float, float]:
        """Units (x, y) of the frame."""
        return self.grid.width * self.grid.pixel_size[0] / self.unit_m, self.grid.height * self.grid.pixel_size[1] / self.unit_m

    def place(self, points: Array) -> Array:
        """Units from the upper left corner, right and down, of map coordinates; float64 (N, 2) both."""
        at, (x_m, y_m) = self.grid.transform, self.grid.pixel_size
        return np.column_stack([(points[:, 0] - at.c) / at.a * x_m, (points[:, 1] - at.f) / at.e * y_m]) / self.unit_m
