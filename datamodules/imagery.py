"""Images of any number of bands and any real type: their values, and which of their pixels hold no data.

A pixel has no data where one of these says so: an alpha band (0; it is no band of the image), a mask band or mask file, the nodata value
(the tag of each band, or `image_nodata` of the manifest instead), a value that is not finite. The nodata value must be in all bands of
an image of 8 bits, in which a single 0 or 255 may be a colour; in others one band with it suffices, since it is no measurement.
Beyond 1e15 nothing was measured: an untagged -3.4e38 is an error that asks for `image_nodata`.
"""

from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from rasterio.enums import ColorInterp, MaskFlags, Resampling
from rasterio.io import DatasetReader
from rasterio.vrt import WarpedVRT
from rasterio.windows import Window

from datamodules.errors import UserError
from datamodules.grid import Grid, georeferenced, image_grid, same_crs
from datamodules.overrides import Nodata, Overrides
from datamodules.rasters import open_raster, probe, read_window, tiled

Array = npt.NDArray[Any]
_WARP_TOLERANCE: Final = 0.01
_NO_MEASUREMENT: Final = 1e15
_FEW: Final = 4
"""Rows or columns of no image, but bands of most."""


def value_of_type(nodata: float | None, dtype: str) -> float | None:
    """A nodata value as pixels of a type hold it; None where they cannot hold it, as a tag of -9999 on bytes."""
    kind = np.dtype(dtype)
    if nodata is None or kind.kind == "f":
        return nodata
    limits = np.iinfo(kind)
    return nodata if float(nodata).is_integer() and limits.min <= nodata <= limits.max else None


def nodata_of(stated: Nodata, tag: float | None, dtype: str, path: Path, column: str) -> float | None:
    """The value that means no data in a band: the stated one if there is one, else the tag; None = no value does.

    Args:
        stated: As the manifest says.
        tag: As the file says.
        dtype: Type of the band.
        path: The file, for the message.
        column: Column of the manifest, for the message.

    Raises:
        UserError: A stated value that the type cannot hold.
    """
    if stated == "none":
        return None
    value = value_of_type(tag if stated is None else stated, dtype)
    if stated is not None and value is None:
        raise UserError(f"is no value of {dtype} pixels", "give the value in the file, or none", file=path, field=column, value=stated)
    return value


class ImageRaster:
    """The image of a scene on the grid on which the scene is read.

    Args:
        path: The file.
        overrides: What the user states about it.
        grid: Its grid, where a reader before has found it.

    Attributes:
        grid: The image's own grid, or the virtual one laid over it.
        num_bands: Bands of the image, an alpha band not counted.
        dtype: Type of its values, as numpy names it.
        files: The file and those beside it that GDAL reads with it.

    Raises:
        UserError: Not readable, colours of a palette, no band but alpha, complex numbers, swapped axes, or a grid that is refused.
    """

    def __init__(self, path: Path, overrides: Overrides, grid: Grid | None = None) -> None:
        self.path = path
        self._source = source = open_raster(path)
        self._alpha = next((band for band, use in enumerate(source.colorinterp, start=1) if use == ColorInterp.alpha), None)
        self._bands = [band for band in source.indexes if band != self._alpha]
        self.num_bands, self.dtype = len(self._bands), source.dtypes[0]
        if not self._bands:
            raise UserError("holds an alpha band and nothing else", "give the file with the colours", file=path, field="image")
        if self.num_bands > _FEW >= min(source.width, source.height):
            raise UserError(
                f"holds {self.num_bands} bands of {source.height} x {source.width} pixels (rows x columns)",
                "its axes seem to be swapped: write it with bands first, as an array (bands, rows, columns)",
                file=path,
                field="image",
            )
        if ColorInterp.palette in source.colorinterp:
            raise UserError(
                "holds colours of a palette, no bands", "convert it with `gdal_translate -expand rgb`", file=path, field="image"
            )
        if np.dtype(self.dtype).kind not in "uif":
            raise UserError(f"holds {self.dtype} values", "give an image of real numbers", file=path, field="image")
        flags = source.mask_flag_enums[self._bands[0] - 1]
        self._masked = MaskFlags.per_dataset in flags and MaskFlags.alpha not in flags
        self._nodata = [
            nodata_of(overrides.image_nodata, source.nodatavals[band - 1], self.dtype, path, "image_nodata") for band in self._bands
        ]
        self.grid = grid if grid is not None else image_grid(source, path, overrides)
        self.files = [Path(file) for file in source.files]
        self._warped: tuple[DatasetReader, DatasetReader] | None = None
        if georeferenced(source) and not (source.transform == self.grid.transform and same_crs(source.crs, self.grid.crs)):
            self._warped = self._warp(Resampling.bilinear), self._warp(Resampling.nearest)

    def _warp(self, resampling: Resampling) -> DatasetReader:
        """A virtual raster on the new grid; without an alpha band of the source it gets one, which is its last."""
        grid = self.grid
        nodata = next((value for value in self._nodata if value is not None), None)
        return WarpedVRT(
            self._source,
            crs=grid.crs,
            transform=grid.transform,
            width=grid.width,
            height=grid.height,
            resampling=resampling,
            src_nodata=np.nan if nodata is None and np.dtype(self.dtype).kind == "f" else nodata,
            src_alpha=self._alpha or 0,
            add_alpha=self._alpha is None,
            tolerance=_WARP_TOLERANCE,
            UNIFIED_SRC_NODATA="YES" if self.dtype == "uint8" else "PARTIAL",
        )

    @property
    def warped(self) -> bool:
        """Whether its pixels are computed from others, because its own grid is not the scene's."""
        return self._warped is not None

    @property
    def tiled(self) -> bool:
        """Whether the file is fast to read by windows."""
        return tiled(self._source)

    def check(self) -> None:
        """Find out whether the file is whole.

        Raises:
            UserError: It is truncated or damaged.
        """
        probe(self._source, self.path)

    def read(self, row: int, column: int, height: int, width: int) -> tuple[Array, Array | None]:
        """A window that lies within the image.

        Returns:
            Values (C, height, width) of the file's type, and where there are none, bool (height, width); None = it has data everywhere.
        """
        window = Window(column, row, width, height)
        if self._warped is None:
            values = read_window(self._source, self.path, window, self._bands)
            missing = self._missing(values)
            if self._alpha is not None:
                missing = _either(missing, read_window(self._source, self.path, window, self._alpha) == 0)
            if self._masked:
                missing = _either(missing, self._source.read_masks(self._bands[0], window=window) == 0)
            return values, missing
        smooth, nearest = self._warped
        values = read_window(smooth, self.path, window, self._bands)
        covered = read_window(nearest, self.path, window, self._alpha or nearest.count)
        missing = _either(self._missing(read_window(nearest, self.path, window, self._bands)), covered == 0)
        if values.dtype.kind == "f":
            missing = _either(missing, ~np.isfinite(values).all(axis=0))
        return values, missing

    def _missing(self, values: Array) -> Array | None:
        """Where values (C, H, W) of the file are no data."""
        missing: Array | None = None
        if any(value is not None for value in self._nodata):
            equal = np.stack(
                [
                    np.zeros(band.shape, dtype=bool) if nodata is None else np.isnan(band) if np.isnan(nodata) else band == nodata
                    for band, nodata in zip(values, self._nodata, strict=True)
                ]
            )
            missing = np.asarray(equal.all(axis=0) if self.dtype == "uint8" else equal.any(axis=0))
        if values.dtype.kind == "f":
            missing = _either(missing, ~np.isfinite(values).all(axis=0))
            strange = (np.abs(values) > _NO_MEASUREMENT) & ~missing
            if strange.any():
                value = str(values[strange][0])
                raise UserError(
                    f"{int(strange.sum())} values of a window are {value}, which was not measured",
                    f"state image_nodata = {value} in scenes.csv",
                    file=self.path,
                    field="image",
                )
        return missing

    def close(self) -> None:
        """Close the file."""
        for file in self._warped or ():
            file.close()
        self._source.close()


def _either(one: Array | None, other: npt.ArrayLike) -> Array:
    """Pixels that either marks."""
    return np.asarray(other if one is None else one | np.asarray(other))
