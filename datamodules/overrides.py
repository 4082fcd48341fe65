"""What a user states about the files of a scene where these are silent or wrong: optional columns of `scenes.csv`.

| column | value | meaning |
|---|---|---|
| image_nodata | a number, `nan` or `none` | value of image pixels without data, instead of the tag; `none`: the tag is wrong and there is no such value |
| dem_nodata | a number, `nan` or `none` | the same of the elevation model; `none` also vouches for values such as -9999 |
| dem_unit | m, ft, us-ft, dm, cm or a factor to metres | vertical unit of the elevation model, instead of the unit that its file states |
| resolution_m | metres | side of a pixel of an image without coordinate system or geotransform (PNG, JPEG, plain TIFF) |
| regrid | refuse, reproject or EPSG:CODE | what to do with an image in degrees or a rotated one (`refuse` if empty) |

An empty cell states nothing. Alpha bands and mask bands count whatever the columns say.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

from rasterio.crs import CRS
from rasterio.errors import CRSError

from datamodules.errors import UserError

if TYPE_CHECKING:
    from datamodules.scene import Scene

Nodata = float | Literal["none"] | None
"""A stated value, "none" = no value means no data, None = as the file's tag says."""

METRES_PER_UNIT: Final = {"m": 1.0, "ft": 0.3048, "us-ft": 1200 / 3937, "dm": 0.1, "cm": 0.01}
REFUSE: Final = "refuse"
REPROJECT: Final = "reproject"


@dataclass(frozen=True)
class Overrides:
    """Statements about the files of one scene; None where nothing is stated.

    Args:
        image_nodata, dem_nodata: Value of pixels without data, or "none".
        dem_unit: Key of `METRES_PER_UNIT`, or a positive factor to metres as text.
        resolution_m: Metres a pixel of an image without georeference.
        regrid: "refuse", "reproject" or a coordinate system, for images whose own grid is not north up in metres.
    """

    image_nodata: Nodata = None
    dem_nodata: Nodata = None
    dem_unit: str | None = None
    resolution_m: float | None = None
    regrid: str | None = None

    @property
    def metres_per_unit(self) -> float | None:
        """Factor from the stated unit of elevation to metres; None where none is stated."""
        return None if self.dem_unit is None else METRES_PER_UNIT.get(self.dem_unit) or float(self.dem_unit)

    def texts(self) -> dict[str, str]:
        """As the cells of a manifest, by column; empty where nothing is stated."""
        values = {column: getattr(self, column) for column in OVERRIDE_COLUMNS}
        return {
            column: "" if value is None else value if isinstance(value, str) else repr(float(value)).removesuffix(".0")
            for column, value in values.items()
        }


OVERRIDE_COLUMNS: Final = tuple(field.name for field in fields(Overrides))


def read_overrides(values: Mapping[str, str], manifest: Path, line: int) -> Overrides:
    """One row of a manifest.

    Args:
        values: Text by column; columns that are missing state nothing.
        manifest: The file, for the message.
        line: Its line, for the message.

    Raises:
        UserError: A value that its column does not take.
    """
    cell = {column: values.get(column) or "" for column in OVERRIDE_COLUMNS}

    def wrong(column: str, remedy: str) -> UserError:
        return UserError(f"cannot be used (line {line})", remedy, file=manifest, field=column, value=cell[column])

    nodata: dict[str, Nodata] = {}
    for column in ("image_nodata", "dem_nodata"):
        value = _number(cell[column])
        if cell[column] and cell[column] != "none" and value is None:
            raise wrong(column, "give a number, nan, or none where no value means no data")
        nodata[column] = "none" if cell[column] == "none" else value
    factor = METRES_PER_UNIT.get(cell["dem_unit"], _number(cell["dem_unit"]))
    if cell["dem_unit"] and not (factor and 0 < factor < math.inf):
        raise wrong("dem_unit", f"give one of {', '.join(METRES_PER_UNIT)}, or a positive factor to metres")
    resolution = _number(cell["resolution_m"])
    if cell["resolution_m"] and not (resolution and 0 < resolution < math.inf):
        raise wrong("resolution_m", "give metres a pixel, above 0")
    try:
        require_regrid(cell["regrid"] or REFUSE)
    except ValueError as error:
        raise wrong("regrid", str(error)) from error
    return Overrides(nodata["image_nodata"], nodata["dem_nodata"], cell["dem_unit"] or None, resolution, cell["regrid"] or None)


def require_regrid(value: str) -> None:
    """Check a value of `regrid`.

    Raises:
        ValueError: Says what it may be.
    """
    if value in (REFUSE, REPROJECT):
        return
    try:
        known = CRS.from_user_input(value)
    except CRSError:
        known = None
    if known is None or not known.is_projected:
        raise ValueError(f"give {REFUSE}, {REPROJECT} or a projected coordinate system such as EPSG:32645")


def regridded(scenes: Sequence["Scene"], regrid: str | None) -> list["Scene"]:
    """The scenes with `regrid` where they state none themselves; unchanged for None and "refuse"."""
    if regrid in (None, REFUSE):
        return list(scenes)
    return [
        scene if scene.overrides.regrid is not None else replace(scene, overrides=replace(scene.overrides, regrid=regrid))
        for scene in scenes
    ]


def _number(text: str) -> float | None:
    """A number, or None."""
    try:
        return float(text)
    except ValueError:
        return None
