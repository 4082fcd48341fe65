"""The label of one scene, raster or polygons, as mask and loss weight of windows, with uncertain boundaries taken out."""

import math
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from datamodules.classes import BACKGROUND, IGNORE, LANDSLIDE
from datamodules.errors import UserError
from datamodules.grid import Grid
from datamodules.label_raster import LabelRaster
from datamodules.label_rules import LabelColumns, LabelRules
from datamodules.polygons import VECTOR_SUFFIXES, LabelPolygons

if TYPE_CHECKING:
    from datamodules.reading import SceneReader

Array = npt.NDArray[Any]
_ROUNDING = 1e-6
"""Of a pixel: two pixels of 0.1 m are 0.2 m apart, whatever floats say."""


class GradeWeights:
    """What grades of landslide count for: mask and loss weight.

    Args:
        grades: Certainty of each grade, from grade 1 on.
        rules: What holds for the data set.

    Attributes:
        weights: Loss weight of each grade, from grade 1 on; 0 = ignored.
        weighted: Some landslides count less than others, and are not ignored.
    """

    def __init__(self, grades: tuple[str, ...], rules: LabelRules) -> None:
        self.weights = tuple(rules.weight_of(name) for name in grades)
        self.weighted = any(0 < weight < 1 for weight in self.weights)
        table, weight_of = np.full(256, IGNORE, dtype=np.uint8), np.zeros(256, dtype=np.float32)
        table[BACKGROUND], weight_of[BACKGROUND] = BACKGROUND, 1
        for grade, weight in enumerate(self.weights, start=LANDSLIDE):
            table[grade], weight_of[grade] = LANDSLIDE if weight else IGNORE, weight
        self._table, self._weight_of = table, weight_of
        self._plain = self.weights in ((), (1.0,))  # grades are the mask already

    def applied(self, grades: Array) -> tuple[Array, Array | None]:
        """Mask, uint8: 0, 1, 255; and weight, float32, 0 where ignored, or None where all count alike."""
        return grades if self._plain else self._table[grades], self._weight_of[grades] if self.weighted else None


class SceneLabels:
    """Mask and weight of windows of one scene.

    Args:
        path: Raster or vector file.
        grid: Grid of the image.
        columns: What scenes.csv says of the label.
        rules: What holds for the data set.

    Attributes:
        source: The raster or the polygons, which give grades: 0 background, 1 and up landslide, 255 ignore.
        grades: Certainty of each grade, from grade 1 on; "" where none is stated.
        weights, weighted: As in `GradeWeights`.

    Raises:
        UserError: As `LabelRaster` and `LabelPolygons`.
    """

    def __init__(self, path: Path, grid: Grid, columns: LabelColumns, rules: LabelRules) -> None:
        vector = path.suffix.lower() in VECTOR_SUFFIXES
        if vector and not grid.placed:
            raise UserError(
                "are polygons, and the image has no place on the map",
                "georeference the image, or give a label raster of its size",
                file=path,
                field="label",
            )
        self.source: LabelRaster | LabelPolygons = (LabelPolygons if vector else LabelRaster)(path, grid, columns, rules)
        self.grades = self.source.grades
        self._counted = GradeWeights(self.grades, rules)
        self.weights, self.weighted = self._counted.weights, self._counted.weighted
        self._grid, self._radius_m = grid, rules.boundary_ignore_m

    def grades_at(self, row: int, column: int, height: int, width: int) -> Array:
        """Grades of a window as the source has them, uint8 (height, width): 0, 1 and up, 255."""
        return self.source.read(row, column, height, width)

    def read(self, row: int, column: int, height: int, width: int) -> tuple[Array, Array | None]:
        """Mask uint8 (height, width): 0, 1, 255; and weight float32 (height, width), 0 where ignored, or None where all count alike."""
        return self._counted.applied(self.settled(row, column, height, width))

    def settled(self, row: int, column: int, height: int, width: int) -> Array:
        """Grades with 255 near uncertain boundaries: read with a margin, so that a window gives what the whole scene gives."""
        if not self._radius_m:
            return self.grades_at(row, column, height, width)
        down, across = (math.floor(self._radius_m / side + _ROUNDING) for side in reversed(self._grid.pixel_size))
        first, left = max(row - down, 0), max(column - across, 0)
        last, right = min(row + height + down, self._grid.height), min(column + width + across, self._grid.width)
        grades = np.full((height, width), IGNORE, dtype=np.uint8)
        if last <= first or right <= left:
            return grades
        wide = self.grades_at(first, left, last - first, right - left)
        wide[boundary_band(wide, self._radius_m, self._grid.pixel_size)] = IGNORE
        top, bottom = max(row, 0), min(row + height, self._grid.height)
        start, stop = max(column, 0), min(column + width, self._grid.width)
        if bottom > top and stop > start:
            grades[top - row : bottom - row, start - column : stop - column] = wide[
                top - first : bottom - first, start - left : stop - left
            ]
        return grades

    def close(self) -> None:
        """Close the file."""
        self.source.close()


def refuse_unstated_ignore(readers: "Iterable[SceneReader]") -> None:
    """Of scenes without any landslide: refuse a raster that holds 255 where neither settings nor its nodata tag say what that is.

    Masks of 0 and 255, as pictures have them, would else train as background and ignore, without a word.

    Raises:
        UserError: There is one.
    """
    for reader in readers:
        labels = reader.opened_labels()
        source = labels.source if labels else None
        if isinstance(source, LabelRaster) and source.unstated_ignore():
            raise UserError(
                "holds only 0 and 255, and no scene holds a landslide: 255 counts as ignore unless it is stated",
                "if 255 marks landslides, set data.landslide_values to 255 (or the column landslide_values of scenes.csv); "
                "if it marks pixels without a label, set data.ignore_values (or the column ignore_values) to 255",
                file=source.path,
                field="label",
            )
        reader.close()


def boundary_band(grades: Array, radius_m: float, pixel_size: tuple[float, float]) -> Array:
    """Where a landslide meets background: pixels with one of the other class within a distance, between centres.

    A boundary with ignored pixels is none. That of an ignored landslide is one: if it is there, its outline is as uncertain.

    Args:
        grades: uint8 (H, W): 0 background, 255 ignore, others landslide.
        radius_m: Metres; below a pixel nothing is near.
        pixel_size: Metres (x, y).

    Returns:
        bool (H, W).
    """
    background = grades == BACKGROUND
    landslide = ~background & (grades != IGNORE)
    if not background.any() or not landslide.any():
        return np.zeros(grades.shape, dtype=bool)
    near = (background & within(landslide, radius_m, pixel_size)) | (landslide & within(background, radius_m, pixel_size))
    return np.asarray(near)


def within(region: Array, radius_m: float, pixel_size: tuple[float, float]) -> Array:
    """Where a pixel of a region lies within a distance, between centres, in metres on pixels of any shape: a disk's dilation, exact.

    A row of the disk is a dilation along rows, which the distance to the next pixel in the row decides for all its widths at once.

    Args:
        region: bool (H, W).
        radius_m: Metres.
        pixel_size: Metres (x, y).

    Returns:
        bool (H, W).
    """
    height, width = region.shape
    far = 2**30  # beyond any radius: a row without the region reaches nothing
    columns = np.arange(width)
    before = np.maximum.accumulate(np.where(region, columns, -far), axis=1)
    after = np.minimum.accumulate(np.where(region, columns, width + far)[:, ::-1], axis=1)[:, ::-1]
    along = np.minimum(columns - before, after - columns).astype(np.int32)
    near = np.zeros(region.shape, dtype=bool)
    for down in range(min(math.floor(radius_m / pixel_size[1] + _ROUNDING), height - 1) + 1):
        rest = max(radius_m**2 - (down * pixel_size[1]) ** 2, 0.0)
        reached = along <= math.floor(math.sqrt(rest) / pixel_size[0] + _ROUNDING)
        near[down:] |= reached[: height - down]
        near[: height - down] |= reached[down:]
    return near
