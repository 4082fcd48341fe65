"""Elevation models and labels onto the grid of the image.

The image is never resampled. An elevation model on the same grid is read as it is; any other is warped by bilinear or cubic
convolution, never by nearest neighbour, which would turn slopes into staircases (11.5 degrees RMSE from 10 m to 2 m, against
0.2 and 0.01). Label rasters on another grid are warped by nearest neighbour, since classes have no mean.
"""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Final, Literal

import numpy as np
import numpy.typing as npt
import rasterio
from affine import Affine
from rasterio.crs import CRS
from rasterio.enums import MaskFlags, Resampling
from rasterio.errors import CRSError, RasterioError
from rasterio.io import DatasetReader
from rasterio.vrt import WarpedVRT
from rasterio.warp import transform_bounds
from rasterio.windows import Window

from datamodules.errors import UserError

Array = npt.NDArray[Any]
DemResampling = Literal["bilinear", "cubic"]
NO_IMAGE: Final = 254
"""Code in the mask while a window is being made: ignored because the image has no data there. Batches hold 255 instead."""

_ASSIGN_CRS: Final = "assign it with `gdal_edit.py -a_srs EPSG:CODE FILE`"
_STRIP_ROWS: Final = 256
_SAME_PIXEL: Final = 1e-3
_WARP_TOLERANCE: Final = 0.01


@dataclass(frozen=True)
class Grid:
    """The pixels of an image on the ground.

    Args:
        crs: Projected coordinate system.
        transform: Pixel to map coordinates; north up.
        width: Pixels a row.
        height: Rows.
        pixel_size: Metres (x, y).
    """

    crs: CRS
    transform: Affine
    width: int
    height: int
    pixel_size: tuple[float, float]

    @property
    def bounds(self) -> tuple[float, float, float, float]:
        """Map coordinates (left, bottom, right, top)."""
        left, top = self.transform.c, self.transform.f
        right, bottom = left + self.transform.a * self.width, top + self.transform.e * self.height
        return left, bottom, right, top

    def transform_at(self, row: int, column: int) -> Affine:
        """The transform of a window whose upper left pixel is (row, column)."""
        at = self.transform
        return Affine(at.a, at.b, at.c + column * at.a, at.d, at.e, at.f + row * at.e)

    def widened(self, margin: int) -> "Grid":
        """The same grid with `margin` more pixels on each side."""
        return Grid(self.crs, self.transform_at(-margin, -margin), self.width + 2 * margin, self.height + 2 * margin, self.pixel_size)


def open_raster(path: Path) -> DatasetReader:
    """Open a raster for reading.

    Raises:
        UserError: Not a raster that GDAL can read, or truncated.
    """
    try:
        return rasterio.open(path)
    except RasterioError as error:
        raise UserError("cannot be opened as a raster, it may be truncated", "write the file anew", file=path) from error


def read_window(dataset: DatasetReader, path: Path, window: Window, bands: int | list[int] = 1) -> Array:
    """Read pixels; a truncated or damaged file is reported by name."""
    try:
        return np.asarray(dataset.read(bands, window=window))
    except RasterioError as error:
        raise UserError("cannot be read, it is truncated or damaged", "write the file anew", file=path) from error


def probe(dataset: DatasetReader, path: Path) -> None:
    """Read the last pixel, which a truncated file does not hold: cheap where reading everything is not.

    Raises:
        UserError: The file is damaged.
    """
    read_window(dataset, path, Window(dataset.width - 1, dataset.height - 1, 1, 1))


def image_grid(dataset: DatasetReader, path: Path, channels: int | None = None) -> Grid:
    """Check an image and describe its grid.

    Args:
        dataset: The open image.
        path: Its file.
        channels: Bands that it must have; None accepts any number.

    Raises:
        UserError: Other number of bands, no coordinate system, a geographic one, rotated or not north up.
    """
    bands = len(image_bands(dataset))
    if channels is not None and bands != channels:
        raise UserError(
            f"the image has {bands} bands",
            f"set data.image_channels to {bands} or give images with {channels}",
            file=path,
            field="image_channels",
            value=channels,
        )
    crs, transform = _metric_crs(dataset, path), dataset.transform
    if transform.b or transform.d or transform.a <= 0 or transform.e >= 0:
        raise UserError(
            "is rotated or not north up",
            "warp it to a north-up grid with gdalwarp",
            file=path,
            field="transform",
            value=tuple(transform)[:6],
        )
    metres = crs.linear_units_factor[1]
    return Grid(crs, transform, dataset.width, dataset.height, (transform.a * metres, -transform.e * metres))


def image_bands(dataset: DatasetReader) -> list[int]:
    """Bands that hold the image, from 1; the alpha band says where it has data and is none of them."""
    return list(range(1, dataset.count + (0 if MaskFlags.alpha in dataset.mask_flag_enums[0] else 1)))


def _metric_crs(dataset: DatasetReader, path: Path) -> CRS:
    """The projected coordinate system of a raster."""
    if dataset.crs is None:
        raise UserError("has no coordinate system", _ASSIGN_CRS, file=path, field="crs")
    if dataset.crs.is_geographic:
        raise UserError(
            "is in degrees, so that slopes would be wrong",
            "warp it to a projected system with `gdalwarp -t_srs EPSG:CODE`",
            file=path,
            field="crs",
            value=str(dataset.crs)[:60],
        )
    return dataset.crs


def same_crs(one: CRS, other: CRS) -> bool:
    """Whether two systems are one, also where neither has an EPSG code."""
    return bool(one == other or one.to_wkt() == other.to_wkt())


def _offset(grid: Grid, dataset: DatasetReader) -> tuple[int, int] | None:
    """Rows and columns from the image's origin to the raster's if both share pixels, else None: then a warp is needed."""
    if dataset.crs is None or not same_crs(grid.crs, dataset.crs):
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


class AlignedRaster:
    """One band on the image grid, read by windows that may reach beyond it.

    Args:
        path: The raster.
        grid: Grid of the image.
        margin: Pixels beyond the image that windows may ask for.
        resampling: How to warp where the grids differ.

    Raises:
        UserError: No coordinate system, or it does not overlap the image.
    """

    role: ClassVar[str]
    dtype: ClassVar[str]
    fill: ClassVar[float]

    def __init__(self, path: Path, grid: Grid, margin: int, resampling: Resampling) -> None:
        self.path = path
        self._source = open_raster(path)
        if self._source.crs is None:
            raise UserError(
                "has no coordinate system", "assign it with `gdal_edit.py -a_srs EPSG:CODE`", file=path, field=f"{self.role} crs"
            )
        _check_overlap(self._source, path, grid, self.role)
        probe(self._source, path)
        offset = _offset(grid, self._source)
        self.nodata_tag: float | None = self._source.nodata
        nodata = self._believed(self.nodata_tag)
        self.nodata: float | None = nodata
        if offset is not None:
            self._dataset, self._row, self._column = self._source, -offset[0], -offset[1]
            return
        wide = grid.widened(margin)
        # Where a raster declares no nodata value, "none of its values": GDAL then still marks what lies outside of it.
        source_nodata = nodata if nodata is not None else math.nan
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

    def _believed(self, nodata: float | None) -> float | None:
        """The nodata value of the file, or None where its tag cannot be meant."""
        return nodata

    def read(self, row: int, column: int, height: int, width: int) -> Array:
        """Values of a window whose upper left pixel is (row, column) of the image; (height, width), `fill` where there is no data."""
        top, left = row + self._row, column + self._column
        first_row, first_column = max(top, 0), max(left, 0)
        last_row, last_column = min(top + height, self._dataset.height), min(left + width, self._dataset.width)
        inside = last_row > first_row and last_column > first_column
        whole = inside and (last_row - first_row, last_column - first_column) == (height, width)
        if not whole:
            values = np.full((height, width), self.fill, dtype=self.dtype)
            if not inside:
                return values
        window = Window(first_column, first_row, last_column - first_column, last_row - first_row)
        read = read_window(self._dataset, self.path, window)
        part = self._convert(read)
        if whole:
            return part
        values[first_row - top : last_row - top, first_column - left : last_column - left] = part
        return values

    def _convert(self, read: Array) -> Array:
        """Raw values to the type and the fill value of this layer."""
        part = read.astype(self.dtype, copy=False)
        if self.nodata is not None and not math.isnan(self.nodata):
            part[read == self.nodata] = self.fill
        return part

    def close(self) -> None:
        """Close the file."""
        self._dataset.close()
        self._source.close()


class ElevationModel(AlignedRaster):
    """Elevation on the image grid, float32 metres, NaN = no data."""

    role, dtype, fill = "dem", "float32", math.nan

    def __init__(self, path: Path, grid: Grid, margin: int, resampling: DemResampling) -> None:
        super().__init__(path, grid, margin, Resampling[resampling])
        self._size = grid.height, grid.width
        transform, crs = self._source.transform, self._source.crs
        # A model in degrees has no pixel size in metres: on the grid of the image it has the image's.
        metres = crs.linear_units_factor[1] if not crs.is_geographic else math.nan
        self.pixel_size_m = (abs(transform.a) * metres, abs(transform.e) * metres)

    def require_data(self) -> None:
        """Look for one elevation within the image, from the top: a model that has any is found at once.

        Raises:
            UserError: There is none.
        """
        height, width = self._size
        for row in range(0, height, _STRIP_ROWS):
            if not np.isnan(self.read(row, 0, min(_STRIP_ROWS, height - row), width)).all():
                return
        raise UserError(
            "has no data anywhere in the image",
            "leave the dem column empty, or mend the nodata value",
            file=self.path,
            field="dem nodata",
            value=self.nodata_tag,
        )


def _check_overlap(dataset: DatasetReader, path: Path, grid: Grid, role: str) -> None:
    """Refuse a raster that shows another place than the image."""
    left, bottom, right, top = dataset.bounds
    if not same_crs(dataset.crs, grid.crs):
        try:
            left, bottom, right, top = transform_bounds(dataset.crs, grid.crs, left, bottom, right, top)
        except (CRSError, RasterioError) as error:
            raise UserError("cannot be brought into the image's coordinate system", "check both", file=path, field=f"{role} crs") from error
    image_left, image_bottom, image_right, image_top = grid.bounds
    # Written so that NaN and infinite bounds count as no overlap.
    if not (left < image_right and right > image_left and bottom < image_top and top > image_bottom):
        raise UserError(
            "does not overlap the image",
            "check that both show the same place and that the coordinate systems are right",
            file=path,
            field=role,
            value=tuple(round(bound, 1) for bound in (left, bottom, right, top)),
        )
