"""Elevation models and labels onto the grid of the image.

An elevation model on the same grid is read as it is; any other is warped by bilinear or cubic convolution, never by nearest
neighbour, which would turn slopes into staircases (11.5 degrees RMSE from 10 m to 2 m, against 0.2 and 0.01). Label rasters on
another grid are warped by nearest neighbour, since classes have no mean.

Elevations become metres by the unit that the manifest states (`dem_unit`), else by the file's own. Before anything is warped, the part of
the model under the image is read once: a value that no planet's ground has (below -12,000 m or above 22,500 m; the Earth spans -11,000 to
8,850, Mars -8,200 to 21,900), a usual sentinel (-9999, -32768, ...) and the end of an integer type are an error unless the
file's tag or `dem_nodata` says what they are; so is 0 in a model of which all else is 50 m above it. A single -3.4e38 would otherwise spread over the kernel of the warp.
"""

import math
from pathlib import Path
from typing import Any, ClassVar, Final, Literal

import numpy as np
import numpy.typing as npt
from pyproj.exceptions import ProjError
from rasterio.enums import ColorInterp, Resampling
from rasterio.io import DatasetReader
from rasterio.vrt import WarpedVRT
from rasterio.windows import Window

from datamodules.bands import BandOnGrid
from datamodules.errors import UserError
from datamodules.grid import Grid, outline_in, require_invertible, same_crs, transform_points
from datamodules.imagery import nodata_of
from datamodules.overrides import METRES_PER_UNIT, Nodata, Overrides
from datamodules.rasters import open_raster, probe, read_window, tiled

Array = npt.NDArray[Any]
DemResampling = Literal["bilinear", "cubic"]
NO_IMAGE: Final = 254
"""Code in the mask while a window is being made: ignored because the image has no data there. Batches hold 255 instead."""
ELEVATION_RANGE_M: Final = (-12_000.0, 22_500.0)
"""No ground of the Earth or Mars lies outside, sea floors included."""

_SENTINELS: Final = (-9999.0, -32768.0, -32767.0, -99999.0)
_UNIT_TAGS: Final = {
    **METRES_PER_UNIT,
    **dict.fromkeys(("", "metre", "meter", "metres", "meters", "1"), 1.0),
    **dict.fromkeys(("foot", "feet", "international foot"), METRES_PER_UNIT["ft"]),
    **dict.fromkeys(("us survey foot", "foot_us", "ftus", "us_survey_foot"), METRES_PER_UNIT["us-ft"]),
    **dict.fromkeys(("decimetre", "decimeter"), METRES_PER_UNIT["dm"]),
    **dict.fromkeys(("centimetre", "centimeter"), METRES_PER_UNIT["cm"]),
}
_ASSIGN_CRS: Final = "assign it with `gdal_edit.py -a_srs EPSG:CODE`"
_STRIP_ROWS: Final = 256
_SAME_PIXEL: Final = 1e-3
_EDGE: Final = 0.5  # pixels that a border may be off
_CLIFF_M: Final = 50.0  # where a model reaches the sea, some of its pixels are lower
_WARP_TOLERANCE: Final = 0.01
_KERNEL: Final = 4  # pixels of the source around the image that a cubic warp may use, and some


def _offset(grid: Grid, dataset: DatasetReader) -> tuple[int, int] | None:
    """Rows and columns from the image's origin to the raster's if both share pixels, else None: then a warp is needed."""
    if not same_crs(grid.crs, dataset.crs):
        return None
    ours, theirs = grid.transform, dataset.transform
    drift = max(dataset.width, dataset.height)
    sizes = abs(theirs.a - ours.a) * drift < _SAME_PIXEL * ours.a and abs(theirs.e - ours.e) * drift < -_SAME_PIXEL * ours.e
    if not sizes or theirs.b or theirs.d:
        return None
    column, row = (theirs.c - ours.c) / ours.a, (theirs.f - ours.f) / ours.e
    if abs(column - round(column)) > _SAME_PIXEL or abs(row - round(row)) > _SAME_PIXEL:
        return None
    return round(row), round(column)


class AlignedRaster(BandOnGrid):
    """One band on the image grid, read by windows that may reach beyond it.

    A raster without georeference is taken pixel by pixel where the image has none either and both have one size.

    Args:
        path: The raster.
        grid: Grid of the image.
        margin: Pixels beyond the image that windows may ask for.
        resampling: How to warp where the grids differ.
        nodata: Stated value of pixels without data.

    Attributes:
        files: The file and those beside it that GDAL reads with it.

    Raises:
        UserError: No coordinate system, or it does not overlap the image.
    """

    role: ClassVar[str]

    def __init__(self, path: Path, grid: Grid, margin: int, resampling: Resampling, nodata: Nodata = None) -> None:
        self.path, self._grid = path, grid
        self._source = open_raster(path)
        self.files = [Path(file) for file in self._source.files]
        tag = self._believed(self._source.nodata)
        self.nodata_tag = nodata_of(nodata, tag, self._source.dtypes[0], path, f"{self.role}_nodata")
        self.nodata = self.nodata_tag
        flags = {flag.name for flag in self._source.mask_flag_enums[0]}
        self._masked = not flags & {"all_valid", "nodata"}  # by a mask band or an alpha band
        if self._source.crs is None:
            self._require_pixels_of(grid)
            offset: tuple[int, int] | None = (0, 0)
        else:
            require_invertible(self._source, path, self.role)
            _check_overlap(self._source, path, grid, self.role)
            offset = _offset(grid, self._source)
        probe(self._source, path)
        if offset is not None:
            self._dataset, self._row, self._column = self._source, -offset[0], -offset[1]
            return
        wide = grid.widened(margin)
        # Where a raster declares no nodata value, "none of its values": GDAL then still marks what lies outside of it.
        source_nodata = self.nodata if self.nodata is not None else math.nan
        self._dataset = WarpedVRT(
            self._source,
            crs=wide.crs,
            transform=wide.transform,
            width=wide.width,
            height=wide.height,
            resampling=resampling,
            src_nodata=source_nodata,
            nodata=math.nan,  # no class and no height
            dtype="float32",  # holds every class and height exactly enough; a strange label must survive to be reported
            tolerance=_WARP_TOLERANCE,
        )
        self.nodata = math.nan
        self._row = self._column = margin

    @property
    def warped(self) -> bool:
        """Whether its values are computed from others, because its own grid is not the image's."""
        return self._dataset is not self._source

    @property
    def tiled(self) -> bool:
        """Whether the file is fast to read by windows."""
        return tiled(self._source)

    def _require_pixels_of(self, grid: Grid) -> None:
        """Refuse a raster without coordinate system that cannot be laid on the image pixel by pixel."""
        size, image_size = (self._source.width, self._source.height), (grid.width, grid.height)
        if grid.placed:
            raise UserError("has no coordinate system, the image has one", _ASSIGN_CRS, file=self.path, field=f"{self.role} crs")
        if size != image_size:
            raise UserError(
                "has no coordinate system and another size than the image, so that it cannot be laid on it",
                f"give {image_size[0]} x {image_size[1]} pixels, or georeference both",
                file=self.path,
                field=self.role,
                value=size,
            )
        ours, theirs = grid.bare_transform, self._source.transform
        if ours is None or ours.is_identity or theirs.is_identity:
            return
        if not ours.almost_equals(theirs, _SAME_PIXEL * abs(ours.determinant) ** 0.5):
            raise UserError(
                "has no coordinate system and another geotransform than the image",
                "give both on one pixel grid, or georeference both",
                file=self.path,
                field=f"{self.role} transform",
                value=tuple(theirs)[:6],
            )

    def _believed(self, nodata: float | None) -> float | None:
        """The nodata value of the file, or None where its tag cannot be meant."""
        return nodata

    @property
    def coverage(self) -> float:
        """Share of the image that this raster covers, data or not, in [0, 1]; by 33 x 33 points."""
        if self._source.crs is None:
            return 1.0
        columns, rows = _pixels_under(self._source, self._grid)
        within = (columns > -_EDGE) & (columns < self._source.width + _EDGE) & (rows > -_EDGE) & (rows < self._source.height + _EDGE)
        return float(within.mean())

    def _values(self, window: Window) -> Array:
        part = self._convert(read_window(self._dataset, self.path, window))
        if self._masked and not self.warped:  # a warp has seen to it
            part[self._source.read_masks(1, window=window) == 0] = self.fill
        return part

    def _convert(self, read: Array) -> Array:
        """Raw values to the type and the fill value of this layer."""
        part = read.astype(self.dtype, copy=False)
        if self.nodata is not None and not math.isnan(self.nodata):
            part[read == self.nodata] = self.fill
        return part

    def close(self) -> None:
        """Close the file."""
        super().close()
        self._source.close()


class ElevationModel(AlignedRaster):
    """Elevation on the image grid, float32 metres, NaN = no data.

    Args:
        path: The model: one band, any type, any coordinate system and grid.
        grid: Grid of the image.
        margin: Pixels beyond the image that windows may ask for.
        resampling: How to warp where the grids differ.
        overrides: What the user states about it.

    Raises:
        UserError: As for any layer; several bands, or a unit that is not known.
    """

    role, dtype, fill = "dem", "float32", math.nan

    def __init__(self, path: Path, grid: Grid, margin: int, resampling: DemResampling, overrides: Overrides) -> None:
        super().__init__(path, grid, margin, Resampling[resampling], overrides.dem_nodata)
        self._margin, self._vouched = margin, overrides.dem_nodata == "none"
        source = self._source
        bands = [use for use in source.colorinterp if use != ColorInterp.alpha]
        if len(bands) != 1 or np.dtype(source.dtypes[0]).kind not in "uif":
            raise UserError(f"has {len(bands)} bands of {source.dtypes[0]}", "give one band of elevations", file=path, field="dem")
        unit = self._unit(overrides)
        self._scale, self._shift = source.scales[0] * unit, source.offsets[0] * unit
        self.pixel_size_m = self._pixel_size_m()

    def _pixel_size_m(self) -> tuple[float, float]:
        """Sides of the model's own pixels on the ground under its middle, metres; NaN where that cannot be told."""
        source, grid, at = self._source, self._grid, self._source.transform
        if source.crs is None:
            return grid.pixel_size
        if source.crs.is_projected:
            metres = source.crs.linear_units_factor[1]
            return math.hypot(at.a, at.d) * metres, math.hypot(at.b, at.e) * metres
        x, y = at.c + at.a * source.width / 2 + at.b * source.height / 2, at.f + at.d * source.width / 2 + at.e * source.height / 2
        east, north = transform_points(source.crs, grid.crs, [x, x + at.a, x + at.b], [y, y + at.d, y + at.e])
        metres = grid.crs.linear_units_factor[1]
        first, second = (math.hypot(east[end] - east[0], north[end] - north[0]) * metres for end in (1, 2))
        return first, second

    def _unit(self, overrides: Overrides) -> float:
        """Metres of a unit of elevation: as stated, else as the file says."""
        stated, tag = overrides.metres_per_unit, (self._source.units[0] or "").strip()
        if stated is None:
            stated = _UNIT_TAGS.get(tag.lower())
        if stated is None:
            raise UserError(
                "is a unit of elevation that is not known",
                "state it in column dem_unit of scenes.csv",
                file=self.path,
                field="unit",
                value=tag,
            )
        return stated

    def _convert(self, read: Array) -> Array:
        """Raw values to metres."""
        part = super()._convert(read)
        if (self._scale, self._shift) != (1.0, 0.0):
            part = (part * self._scale + self._shift).astype(np.float32)
        return part

    def check(self) -> None:
        """Read the part under the image once, from top to bottom.

        Raises:
            UserError: Values that are no elevations, gaps of 0, or no elevation at all.
        """
        found, zeros, lowest = False, 0, math.inf
        low, high = ELEVATION_RANGE_M
        counts: dict[float, int] = {}
        for window in self._strips_under_image():
            raw = read_window(self._source, self.path, window)
            known = self._source.read_masks(1, window=window) > 0 if self._masked else np.ones(raw.shape, dtype=bool)
            if self.nodata_tag is not None and not math.isnan(self.nodata_tag):
                known &= raw != self.nodata_tag
            if raw.dtype.kind == "f":
                known &= ~np.isnan(raw)
            found |= bool(known.any())
            metres = raw * np.float64(self._scale) + self._shift
            ground = np.abs(metres[known & (raw != 0)])
            zeros, lowest = zeros + int((known & (raw == 0)).sum()), min(lowest, float(ground.min(initial=math.inf)))
            strange = known & ((metres < low) | (metres > high))
            if not self._vouched:
                for sentinel in self._sentinels():
                    strange |= known & (raw == sentinel)
            if strange.any():
                for value, number in zip(*np.unique(raw[strange], return_counts=True), strict=True):
                    counts[value.item()] = counts.get(value.item(), 0) + int(number)
        if counts:
            value = max(counts, key=lambda value: counts[value])
            others = f" (and {len(counts) - 1} other values)" if len(counts) > 1 else ""
            text = str(np.dtype(self._source.dtypes[0]).type(value))
            raise UserError(
                f"{counts[value]} pixels hold {text}{others}, which is no elevation ({low:,.0f} to {high:,.0f} m)",
                f"state what means no data in column dem_nodata of scenes.csv (dem_nodata = {text}, or none if it is true), or its dem_unit",
                file=self.path,
                field="dem",
            )
        self._require_no_gaps_of_zero(zeros, lowest)
        if not found or not self._reaches_image():
            raise UserError(
                "has no data anywhere in the image",
                "leave the dem column empty, or mend the nodata value",
                file=self.path,
                field="dem nodata",
                value=self.nodata_tag,
            )

    def _require_no_gaps_of_zero(self, zeros: int, lowest: float) -> None:
        """Refuse zeros among ground that is far above: some programs fill gaps with 0 and tag nothing."""
        if zeros and _CLIFF_M < lowest < math.inf and not self._vouched:
            raise UserError(
                f"{zeros} pixels hold 0, and no other is within {lowest:,.0f} m of it: they seem to hold no data",
                "state it in column dem_nodata of scenes.csv (dem_nodata = 0, or none if it is true)",
                file=self.path,
                field="dem",
            )

    def _sentinels(self) -> list[float]:
        """Values that stand for no data by custom."""
        kind = np.dtype(self._source.dtypes[0])
        if kind.kind == "f":
            return list(_SENTINELS)
        limits = np.iinfo(kind)
        # A byte may well be 255 metres; the end of a wider type is never a height by chance.
        ends = [] if kind.itemsize == 1 else [float(limits.max), *([float(limits.min)] if limits.min < 0 else [])]
        return [value for value in (*_SENTINELS, *ends) if limits.min <= value <= limits.max]

    def _strips_under_image(self) -> list[Window]:
        """Windows of the source that a read within the image and its margin may use."""
        height, width = self._source.height, self._source.width
        top, left, bottom, right = 0, 0, height, width
        if self._source.crs is not None:
            columns, rows = _pixels_under(self._source, self._grid.widened(self._margin))
            if np.isfinite(columns).all() and np.isfinite(rows).all():
                left, right = max(0, math.floor(columns.min()) - _KERNEL), min(width, math.ceil(columns.max()) + _KERNEL)
                top, bottom = max(0, math.floor(rows.min()) - _KERNEL), min(height, math.ceil(rows.max()) + _KERNEL)
        return [Window(left, row, right - left, min(_STRIP_ROWS, bottom - row)) for row in range(top, bottom, _STRIP_ROWS)]

    def _reaches_image(self) -> bool:
        """Whether any pixel of the image has an elevation; from the top, so that a model that has any is found at once."""
        for row in range(0, self._grid.height, _STRIP_ROWS):
            if not np.isnan(self.read(row, 0, min(_STRIP_ROWS, self._grid.height - row), self._grid.width)).all():
                return True
        return False


def _pixels_under(dataset: DatasetReader, grid: Grid) -> tuple[Array, Array]:
    """Columns and rows of a raster at points spread over the image and its edges, float64; infinite where there is no way.

    Raises:
        ProjError: There is no way from one system to the other.
    """
    along = np.linspace(0, 1, 33)
    left, bottom, right, top = grid.bounds
    x, y = (part.ravel() for part in np.meshgrid(left + along * (right - left), bottom + along * (top - bottom)))
    x, y = transform_points(grid.crs, dataset.crs, x, y)
    at = ~dataset.transform
    return at.a * x + at.b * y + at.c, at.d * x + at.e * y + at.f


def _check_overlap(dataset: DatasetReader, path: Path, grid: Grid, role: str) -> None:
    """Refuse a raster that shows another place than the image."""
    if not grid.placed and not same_crs(dataset.crs, grid.crs):
        raise UserError(
            "has a place on the map, the image has none",
            "georeference the image too, or give both without and of one size",
            file=path,
            field=f"{role} crs",
            value=str(dataset.crs)[:60],
        )
    try:
        points = outline_in(dataset, grid.crs)
        columns, rows = _pixels_under(dataset, grid)
    except ProjError as error:
        raise UserError("cannot be brought into the image's coordinate system", "check both", file=path, field=f"{role} crs") from error
    # A model of half the globe holds the image, though its edges have no place in the image's system.
    if ((columns > 0) & (columns < dataset.width) & (rows > 0) & (rows < dataset.height)).any():
        return
    if not np.isfinite(points).all():
        at = dataset.transform
        raise UserError(
            f"its coordinates, such as ({at.c:.6g}, {at.f:.6g}), are none of its system, or none near the image",
            "assign the right system with `gdal_edit.py -a_srs EPSG:CODE`",
            file=path,
            field=f"{role} crs",
            value=str(dataset.crs)[:60],
        )
    (left, bottom), (right, top) = points.min(axis=0), points.max(axis=0)
    image_left, image_bottom, image_right, image_top = grid.bounds
    if not (left < image_right and right > image_left and bottom < image_top and top > image_bottom):
        raise UserError(
            "does not overlap the image",
            "check that both show the same place and that the coordinate systems are right",
            file=path,
            field=role,
            value=tuple(round(float(bound), 1) for bound in (left, bottom, right, top)),
        )
