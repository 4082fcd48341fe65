"""Labels from a raster on the image grid: its codes become grades of landslide."""

import math
from collections import Counter
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from rasterio.enums import ColorInterp, Resampling
from rasterio.windows import Window

from datamodules.alignment import AlignedRaster
from datamodules.classes import BACKGROUND, IGNORE, LANDSLIDE
from datamodules.errors import UserError
from datamodules.grid import Grid
from datamodules.label_rules import DEFAULT_RULES, NO_COLUMNS, LabelColumns, LabelRules, raster_codes
from datamodules.rasters import read_window

Array = npt.NDArray[Any]
_UNKNOWN: Final = 253
_STRIP_ROWS: Final = 256
_MOST_VALUES: Final = 1000


class LabelRaster(AlignedRaster):
    """Grades of landslide on the image grid, uint8: 0 background, 1 and up landslide, 255 ignore; values are checked as they are read.

    A nodata tag of 0 or of a landslide value is not believed, since these are classes.

    Args:
        path: The raster.
        grid: Grid of the image.
        columns: What scenes.csv says of it.
        rules: What holds for the data set.

    Raises:
        UserError: As for any layer; columns for polygons, or several bands.

    Attributes:
        grades: Certainty of each grade, from grade 1 on; "" where none is stated.
        codes: Meaning of the raster's values.
    """

    role, dtype, fill = "label", "uint8", IGNORE

    def __init__(self, path: Path, grid: Grid, columns: LabelColumns = NO_COLUMNS, rules: LabelRules = DEFAULT_RULES) -> None:
        for name in ("certainty_field", "label_layer"):
            if getattr(columns, name):
                raise UserError(
                    "is for polygons, but the label is a raster",
                    "leave it empty; certainties of rasters are stated as landslide_values 1=certain;2=possible",
                    file=path,
                    field=name,
                    value=getattr(columns, name),
                )
        self.codes = raster_codes(columns, rules, path)
        names = Counter(self.codes.landslide.values())
        self.grades = rules.ordered(names, None, path)
        self._grade_of = {float(BACKGROUND): BACKGROUND, **dict.fromkeys(self.codes.ignore, IGNORE)}
        self._grade_of |= {value: LANDSLIDE + self.grades.index(name) for value, name in self.codes.landslide.items()}
        super().__init__(path, grid, 0, Resampling.nearest)
        bands = [use for use in self._source.colorinterp if use != ColorInterp.alpha]
        if len(bands) != 1 or np.dtype(self._source.dtypes[0]).kind not in "uif":
            raise UserError(
                f"has {len(bands)} bands of {self._source.dtypes[0]}, so that it cannot be told which says where landslides are",
                "give one band of classes, such as `gdal_translate -b 1` writes it",
                file=path,
                field="label",
            )
        if self.nodata is not None and not math.isnan(self.nodata):
            self._grade_of[self.nodata] = IGNORE
        self._table = np.full(256, _UNKNOWN, dtype=np.uint8)
        for value, grade in self._grade_of.items():
            if 0 <= value < 256 and value == int(value):
                self._table[int(value)] = grade

    def _believed(self, nodata: float | None) -> float | None:
        """No class is nodata, whatever the tag says."""
        return None if nodata in (BACKGROUND, *self.codes.landslide) else nodata

    def _convert(self, read: Array) -> Array:
        """Grades of raw values.

        Raises:
            UserError: A value that is neither 0, landslide, ignored nor nodata.
        """
        if read.dtype == np.uint8:
            grades = self._table[read]
        else:
            grades = np.full(read.shape, _UNKNOWN, dtype=np.uint8)
            for value, grade in self._grade_of.items():
                grades[read == value] = grade
            if self.nodata is not None and math.isnan(self.nodata):
                grades[np.isnan(read)] = IGNORE
        if (grades == _UNKNOWN).any():
            self._refuse()
        return grades

    def values(self) -> Counter[float]:
        """How often each value occurs in the raster, as far as `_MOST_VALUES` different ones; nodata does not count."""
        found: Counter[float] = Counter()
        for row in range(0, self._dataset.height, _STRIP_ROWS):
            window = Window(0, row, self._dataset.width, min(_STRIP_ROWS, self._dataset.height - row))
            read = read_window(self._dataset, self.path, window)
            for value, number in zip(*np.unique(read, return_counts=True), strict=True):
                nodata = self.nodata is not None and (value == self.nodata or (math.isnan(self.nodata) and np.isnan(value)))
                if not nodata and (value in found or len(found) < _MOST_VALUES):
                    found[float(value)] += int(number)
        return found

    def unstated_ignore(self) -> bool:
        """Whether 255 occurs and is taken for ignore by convention alone: no nodata tag and no setting says so."""
        return not self.codes.states_ignore and float(IGNORE) in self.codes.ignore and float(IGNORE) in self.values()

    def _refuse(self) -> None:
        """Say which values nobody has explained."""
        unknown = {value: number for value, number in self.values().items() if value not in self._grade_of}
        first = sorted(unknown.items(), key=lambda item: -item[1])[:5]
        listed = ", ".join(f"{value:g} ({number:,} pixels)" for value, number in first)
        more = f" and {len(unknown) - len(first)} more values" if len(unknown) > len(first) else ""
        landslide, ignored = (
            ";".join(f"{value:g}" for value in sorted(values)) or "none" for values in (self.codes.landslide, self.codes.ignore)
        )
        raise UserError(
            f"holds {listed}{more}",
            f"labels must be 0 (background), {landslide} (landslide) or {ignored} (ignore); state others in the columns landslide_values "
            "and ignore_values of scenes.csv, or as data.landslide_values and data.ignore_values",
            file=self.path,
            field="label",
        )
