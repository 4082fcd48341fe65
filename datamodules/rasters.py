"""Raster files: opened, read by windows and probed, with a clear error where one is missing, truncated or no raster."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import rasterio
from rasterio.errors import NotGeoreferencedWarning, RasterioError
from rasterio.io import DatasetReader
from rasterio.windows import Window

from datamodules.errors import UserError

Array = npt.NDArray[Any]
_STREAM_CACHE_MB: Final = 128
_SMALL: Final = 512  # pixels of a ready-made tile, whose strips are all read anyway
_ENDS: Final = {".png": b"IEND", ".jpg": b"\xff\xd9", ".jpeg": b"\xff\xd9"}
_TAIL_BYTES: Final = 4096  # some programs append notes after the end mark


def open_raster(path: Path) -> DatasetReader:
    """Open a raster for reading.

    Raises:
        UserError: Not a raster that GDAL can read, or truncated.
    """
    _require_end(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NotGeoreferencedWarning)  # whoever needs a place says so in words that help
            return rasterio.open(path)
    except RasterioError as error:
        raise UserError(
            "cannot be opened as a raster, it may be truncated or of another format",
            "write the file anew, such as a GeoTIFF; outlines of landslides as .gpkg, .shp or .geojson",
            file=path,
        ) from error


def _require_end(path: Path) -> None:
    """Refuse a PNG or JPEG without its end mark: GDAL fills what is cut off with 0 and reports nothing."""
    end = _ENDS.get(path.suffix.lower())
    if end is None or not path.is_file():
        return
    with path.open("rb") as stream:
        stream.seek(max(path.stat().st_size - _TAIL_BYTES, 0))
        if end not in stream.read():
            raise UserError("is truncated, its end mark is missing", "get the file anew", file=path)


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


@contextmanager
def streaming() -> Iterator[None]:
    """A small cache of blocks in GDAL, for passes over whole scenes: by default it grows to a twentieth of the machine's memory."""
    with rasterio.Env(GDAL_CACHEMAX=_STREAM_CACHE_MB):
        yield


def tiled(dataset: DatasetReader) -> bool:
    """Whether a window costs little more than its own pixels: a GeoTIFF in tiles, or a small one."""
    return bool(dataset.driver == "GTiff" and (dataset.block_shapes[0][1] != dataset.width or max(dataset.shape) <= _SMALL))
