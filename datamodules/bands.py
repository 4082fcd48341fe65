"""One band on the pixels of the image, by windows that may reach beyond it."""

from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
from rasterio.io import DatasetReader
from rasterio.windows import Window

from datamodules.rasters import read_window

Array = npt.NDArray[Any]


class BandOnGrid:
    """One band of an open file whose pixels are those of the image, read by windows that may reach beyond it.

    Attributes:
        path: The file.
        dtype: Type of the values that are read.
        fill: Value beyond the file, and where there is no data.
    """

    dtype: ClassVar[str]
    fill: ClassVar[float]
    path: Path
    _dataset: DatasetReader
    _row: int
    _column: int

    def read(self, row: int, column: int, height: int, width: int) -> Array:
        """Values of a window whose upper left pixel is (row, column) of the image; (height, width), `fill` where there is no data."""
        top, left = row + self._row, column + self._column
        first_row, first_column = max(top, 0), max(left, 0)
        last_row, last_column = min(top + height, self._dataset.height), min(left + width, self._dataset.width)
        if last_row <= first_row or last_column <= first_column:
            return np.full((height, width), self.fill, dtype=self.dtype)
        part = self._values(Window(first_column, first_row, last_column - first_column, last_row - first_row))
        if part.shape == (height, width):
            return part
        values = np.full((height, width), self.fill, dtype=self.dtype)
        values[first_row - top : last_row - top, first_column - left : last_column - left] = part
        return values

    def _values(self, window: Window) -> Array:
        """Values of a window within the file."""
        return read_window(self._dataset, self.path, window)

    def close(self) -> None:
        """Close the file."""
        self._dataset.close()
