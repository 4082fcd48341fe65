"""Layers of scenes as files on the image grid that read fast: tiled GeoTIFFs, one a layer, which hold what would be computed else.

| layer | values | extent |
|---|---|---|
| image | bands as the file has them; a mask where pixels have no data | the image |
| dem | float32 metres, NaN = no data | the image and the margin that windows may ask for |
| label | uint8 grades of landslide, boundaries that are ignored taken out | the image |

A file is written under a other name, read back and renamed: whatever ends a process, a file with the final name is whole.
Zstandard without a predictor is for the reader: it takes half the time of deflate, a predictor for floats twice as long.
"""

import json
import os
import shutil
import zlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt
import rasterio
from filelock import FileLock
from rasterio.enums import MaskFlags
from rasterio.errors import RasterioError
from rasterio.windows import Window

from datamodules.bands import BandOnGrid
from datamodules.classes import IGNORE
from datamodules.errors import UserError
from datamodules.grid import Grid
from datamodules.label_rules import LabelRules
from datamodules.labels import GradeWeights
from datamodules.rasters import open_raster, probe, read_window, streaming

Array = npt.NDArray[Any]
Role = Literal["image", "dem", "label"]
ROLES: Final[tuple[Role, ...]] = ("image", "dem", "label")
FINGERPRINT: Final = "ALIGNED_FINGERPRINT"
GRADES: Final = "ALIGNED_GRADES"
UNFINISHED: Final = ".unfinished"
"""Folder of locks and of files that are being written."""
_TILE: Final = 256
_COLUMNS: Final = 4096  # of a part that is in memory at a time, a multiple of the tiles
_VALID: Final = 255


@dataclass(frozen=True)
class AlignedFiles:
    """Files to read the layers of a scene from; None = from the scene's own."""

    image: Path | None = None
    dem: Path | None = None
    label: Path | None = None


NOT_ALIGNED: Final = AlignedFiles()


class AlignedImage:
    """The image of a scene, from its aligned file.

    Args:
        path: The file.
    """

    def __init__(self, path: Path) -> None:
        self.path, self._dataset = path, open_raster(path)
        self._bands = list(self._dataset.indexes)
        self._masked = MaskFlags.per_dataset in self._dataset.mask_flag_enums[0]

    def read(self, row: int, column: int, height: int, width: int) -> tuple[Array, Array | None]:
        """A window that lies within the image, as `ImageRaster.read`."""
        window = Window(column, row, width, height)
        values = read_window(self._dataset, self.path, window, self._bands)
        return values, self._dataset.read_masks(1, window=window) == 0 if self._masked else None

    def close(self) -> None:
        """Close the file."""
        self._dataset.close()


class AlignedDem(BandOnGrid):
    """The elevation model of a scene, from its aligned file: float32 metres, NaN = no data.

    Args:
        path: The file.
        margin: Pixels that it holds beyond the image.
    """

    dtype, fill = "float32", np.nan

    def __init__(self, path: Path, margin: int) -> None:
        self.path, self._dataset = path, open_raster(path)
        self._row = self._column = margin


class AlignedLabels:
    """Mask and weight of windows of a scene, from its aligned file.

    Args:
        path: The file.
        rules: What the grades count for.
    """

    def __init__(self, path: Path, rules: LabelRules) -> None:
        self._grades = _Grades(path)
        self._counted = GradeWeights(self._grades.names, rules)
        self.weighted = self._counted.weighted

    def read(self, row: int, column: int, height: int, width: int) -> tuple[Array, Array | None]:
        """As `SceneLabels.read`."""
        return self._counted.applied(self._grades.read(row, column, height, width))

    def close(self) -> None:
        """Close the file."""
        self._grades.close()


class _Grades(BandOnGrid):
    """Grades of landslide, and their names."""

    dtype, fill = "uint8", IGNORE

    def __init__(self, path: Path) -> None:
        self.path, self._dataset = path, open_raster(path)
        self._row = self._column = 0
        self.names: tuple[str, ...] = tuple(json.loads(self._dataset.tags()[GRADES]))


@dataclass(frozen=True)
class Content:
    """What an aligned file is to hold.

    Args:
        grid: Its pixels.
        num_bands: Number of bands.
        dtype: Type of all.
        read: Values (C, H, W) of a part (row, column, height, width), and where there are none, bool (H, W), or None.
        nodata: Value that means no data.
        tags: Facts that readers need.
    """

    grid: Grid
    num_bands: int
    dtype: str
    read: Callable[[int, int, int, int], tuple[Array, Array | None]]
    nodata: float | None = None
    tags: dict[str, str] = field(default_factory=dict)


def is_whole(path: Path, fingerprint: str) -> bool:
    """Whether the file is there, undamaged, and holds what the fingerprint says."""
    if not path.is_file():
        return False
    try:
        dataset = open_raster(path)
        with dataset:
            probe(dataset, path)
            return bool(dataset.tags().get(FINGERPRINT) == fingerprint)
    except UserError:
        return False


def write(path: Path, fingerprint: str, source: AbstractContextManager[Content], done: Callable[[int], object]) -> None:
    """Write an aligned file, unless another process has done so meanwhile.

    Args:
        path: The file to make.
        fingerprint: Of what it holds.
        source: What it holds; opened only when it is known to be needed.
        done: Told the number of rows each time some are written.

    Raises:
        UserError: The source cannot be used, or the file cannot be written.
    """
    unfinished = path.parent / UNFINISHED
    try:
        unfinished.mkdir(parents=True, exist_ok=True)
        with FileLock(unfinished / f"{path.stem}.lock"):
            if is_whole(path, fingerprint):
                return
            # Whoever holds the lock is alone: what an earlier holder has left will never be finished.
            _clear(unfinished, path)
            temporary = unfinished / f"{path.stem}.{os.getpid()}.tif"
            try:
                with source as content:
                    _fill(temporary, fingerprint, content, done)
                temporary.replace(path)
            finally:
                _clear(unfinished, path)
    except (OSError, RasterioError) as error:
        free = (
            f"{shutil.disk_usage(path.parent).free / 1e6:,.0f} MB are free there" if path.parent.is_dir() else "the folder cannot be made"
        )
        reason = " ".join(str(error).split()).rstrip(".")
        raise UserError(
            f"cannot be written ({reason}; {free})", "make room, or choose another cache_dir", file=path, field="cache_dir"
        ) from error


def _clear(folder: Path, path: Path) -> None:
    """Remove unfinished files of a file, and what GDAL may have laid beside them."""
    for file in folder.glob(f"{path.stem}.*.tif*"):
        file.unlink(missing_ok=True)


def _fill(path: Path, fingerprint: str, content: Content, done: Callable[[int], object]) -> None:
    """Write all parts and read them back.

    Raises:
        OSError, RasterioError: The disk is full or fails.
    """
    grid = content.grid
    sums, masked = [], False
    with streaming(), rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True):
        with rasterio.open(
            path,
            "w",
            driver="GTiff",
            width=grid.width,
            height=grid.height,
            count=content.num_bands,
            dtype=content.dtype,
            crs=grid.crs,
            transform=grid.transform,
            nodata=content.nodata,
            tiled=True,
            blockxsize=_TILE,
            blockysize=_TILE,
            interleave="pixel",
            photometric="MINISBLACK",  # else GDAL takes a fourth band of bytes for opacity
            compress="zstd",
            zstd_level=1,
            bigtiff="IF_SAFER",
        ) as file:
            file.update_tags(**content.tags, **{FINGERPRINT: fingerprint})
            for window in _parts(grid):
                values, missing = content.read(window.row_off, window.col_off, window.height, window.width)
                if missing is not None and missing.any() and not masked:
                    masked = True
                    for before in _parts(grid):  # a mask starts out as no data everywhere
                        file.write_mask(np.full((before.height, before.width), _VALID, dtype=np.uint8), window=before)
                file.write(values, window=window)
                mask = (
                    np.full(values.shape[1:], _VALID, dtype=np.uint8) if missing is None else np.where(missing, 0, _VALID).astype(np.uint8)
                )
                if masked:
                    file.write_mask(mask, window=window)
                sums.append(_sum(values, mask))
                if window.col_off + window.width == grid.width:
                    done(window.height)
        with path.open("rb+") as written:
            os.fsync(written.fileno())
        # A full disk shows at the latest when GDAL closes the file, which reports nothing.
        with rasterio.open(path) as file:
            for window, expected in zip(_parts(grid), sums, strict=True):
                mask = file.read_masks(1, window=window) if masked else np.full((window.height, window.width), _VALID, dtype=np.uint8)
                if _sum(file.read(window=window), mask) != expected:
                    raise OSError("what was read back is not what was written")


def _parts(grid: Grid) -> Iterator[Window]:
    """Windows of whole tiles that cover a grid row by row, so that memory does not grow with it."""
    for row in range(0, grid.height, _TILE):
        for column in range(0, grid.width, _COLUMNS):
            yield Window(column, row, min(_COLUMNS, grid.width - column), min(_TILE, grid.height - row))


def _sum(values: Array, mask: Array) -> int:
    """Checksum of a part."""
    return zlib.crc32(np.ascontiguousarray(mask).data, zlib.crc32(np.ascontiguousarray(values).data))
