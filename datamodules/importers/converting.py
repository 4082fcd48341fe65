"""Sources that GDAL or the zoo cannot use as they stand, written as GeoTIFFs: right nodata tags, a metric grid, 0/1/255 labels.

Tiles without georeference get a stated pixel size and an arbitrary place: each its own, 20 km from the next, in a coordinate system
whose name says so and with tags that say what was assumed. Nothing about distances between such tiles is true.
"""

import math
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import rasterio
from affine import Affine
from rasterio.crs import CRS
from rasterio.enums import MaskFlags
from rasterio.errors import RasterioError

from datamodules.classes import BACKGROUND, IGNORE, LANDSLIDE
from datamodules.errors import UserError
from datamodules.grid import PLACE_UNKNOWN, georeferenced, nowhere
from datamodules.rasters import open_raster
from datamodules.scene import Scene

Array = npt.NDArray[Any]
NO_ELEVATION: Final = -9999.0
_SENTINEL: Final = -1e30
_CELL_M: Final = 20_000.0
_COLUMNS: Final = 64


@dataclass(frozen=True)
class Picture:
    """A raster as read: bands (C, H, W), where it lies if it says so, and where it has no data (H, W)."""

    bands: Array
    crs: CRS | None
    transform: Affine
    missing: Array | None = None


@dataclass(frozen=True)
class Tile:
    """A scene to write.

    Args:
        name: `split/stem`, unique.
        image: (C, H, W), uint8 or float32; NaN = no data.
        mask: (H, W) of 0, 1, 255; None for scenes to predict.
        dem: (H, W) metres, NaN = no data; None where there is none.
        crs, transform: Of the source; None = place unknown.
        resolution_m: Metres a pixel where the place is unknown.
        bands: Names of the image bands.
        tags: What was assumed or changed, written into each file.
    """

    name: str
    image: Array
    mask: Array | None
    dem: Array | None = None
    crs: CRS | None = None
    transform: Affine | None = None
    resolution_m: float | None = None
    region: str = ""
    bands: tuple[str, ...] = ()
    tags: Mapping[str, str] = field(default_factory=dict)


def read_picture(path: Path) -> Picture:
    """Read a whole raster or picture; an alpha band becomes `missing`.

    Raises:
        UserError: Not readable, or cut off.
    """
    with open_raster(path) as source:
        try:
            bands = source.read()
        except RasterioError as error:
            raise UserError("cannot be read as a picture, it may be truncated", "write the file anew", file=path) from error
        missing = None
        if MaskFlags.alpha in source.mask_flag_enums[0]:
            bands, missing = bands[:-1], bands[-1] == 0
        elif source.nodata is not None:
            missing = (bands == source.nodata).all(axis=0)
        return Picture(bands, source.crs if georeferenced(source) else None, source.transform, missing)


def without_sentinels(values: Array) -> Array:
    """float32 with NaN where values are not finite or below -1e30, the untagged "no data" of several GIS programs."""
    values = values.astype(np.float32)
    return np.where(np.isfinite(values) & (values > _SENTINEL), values, np.float32(np.nan))


def compact(image: Array) -> Array:
    """uint8 where every value is a whole number in 0..255, else float32."""
    whole = np.isfinite(image).all() and (image >= 0).all() and (image <= 255).all() and (image == np.round(image)).all()
    return image.astype(np.uint8 if whole else np.float32)


def binary_mask(picture: Picture, path: Path, landslide: int) -> Array:
    """A label picture as 0, 1, 255.

    Args:
        picture: One band, or several that are equal.
        path: Its file, for the message.
        landslide: The value that means landslide, 1 or 255. With 1, 255 stays "ignore".

    Raises:
        UserError: Colours, or values that are no class.
    """
    bands = picture.bands
    if not (bands == bands[:1]).all():
        raise UserError("the mask has colours", "give one band of 0 and 1 or 0 and 255", file=path, field="label")
    values = bands[0]
    allowed = {BACKGROUND, landslide, IGNORE}
    strange = sorted({float(value) for value in np.unique(values)} - allowed)
    if strange:
        listed = ", ".join(f"{value:g}" for value in strange[:5])
        raise UserError(f"holds {listed}", "masks must be 0 and 1, or 0 and 255, without compression losses", file=path, field="label")
    mask = np.full(values.shape, IGNORE, dtype=np.uint8)
    mask[values == BACKGROUND] = BACKGROUND
    mask[values == landslide] = LANDSLIDE
    return mask


class TileWriter:
    """Writes tiles as `{split}/{images,dem,masks}/NAME.tif`.

    Args:
        folder: Where to; empty.
        source: Name of the data set, for the tags.
    """

    def __init__(self, folder: Path, source: str) -> None:
        self._folder, self._source = folder, source
        self._placed = 0

    def write(self, tile: Tile) -> Scene:
        """Write one tile.

        Raises:
            UserError: Layers of different size, or neither place nor pixel size.
        """
        split, stem = tile.name.split("/", 1)
        height, width = tile.image.shape[-2:]
        for role, layer in (("label", tile.mask), ("dem", tile.dem)):
            if layer is not None and layer.shape != (height, width):
                raise UserError(
                    f"is {layer.shape[1]} x {layer.shape[0]} pixels, the image {width} x {height}",
                    "give layers of one size",
                    file=tile.name,
                    field=role,
                )
        crs, transform, tags = self._place(tile, height, width)
        paths: dict[str, Path | None] = {}
        for role, layer in (("images", tile.image), ("masks", tile.mask), ("dem", tile.dem)):
            paths[role] = None
            if layer is None:
                continue
            values = layer if layer.ndim == 3 else layer[None]
            if role == "dem":
                values = np.where(np.isnan(values), NO_ELEVATION, values).astype(np.float32)
            path = self._folder / split / role / f"{stem}.tif"
            path.parent.mkdir(parents=True, exist_ok=True)
            profile = {"driver": "GTiff", "height": height, "width": width, "count": len(values), "dtype": values.dtype.name}
            nodata = NO_ELEVATION if role == "dem" else math.nan if values.dtype.kind == "f" else None
            with rasterio.open(path, "w", **profile, crs=crs, transform=transform, nodata=nodata, compress="deflate") as file:
                file.write(values)
                file.update_tags(**tags)
                if role == "images" and tile.bands:
                    file.descriptions = tile.bands
            paths[role] = path
        image = paths["images"]
        assert image is not None
        return Scene(tile.name, image, paths["dem"], paths["masks"], split, tile.region)

    def _place(self, tile: Tile, height: int, width: int) -> tuple[CRS, Affine, dict[str, str]]:
        """The grid of a tile and the tags that explain it."""
        tags = {"SOURCE_DATA_SET": self._source, **tile.tags}
        if tile.crs is not None and tile.transform is not None:
            return tile.crs, tile.transform, tags
        size = tile.resolution_m
        if size is None:
            raise UserError(
                "has no georeference", "state its pixel size with --resolution-m METRES", file=tile.name, field="resolution_m", exit_code=2
            )
        if max(height, width) * size >= _CELL_M:
            raise UserError(
                f"is wider than {_CELL_M / 1000:g} km but has no georeference", "assign it with gdal_translate", file=tile.name, field="crs"
            )
        row, column = divmod(self._placed, _COLUMNS)
        self._placed += 1
        tags |= {"GEOREFERENCE": PLACE_UNKNOWN, "RESOLUTION_M_ASSUMED": f"{size:g}"}
        return nowhere(), Affine(size, 0, column * _CELL_M, 0, -size, -row * _CELL_M), tags


@contextmanager
def new_folder(out: Path, source: Path) -> Iterator[Path]:
    """A temporary folder beside `out` that becomes `out` when all went well, and goes away otherwise.

    Raises:
        UserError: `out` holds something already, or lies in the source, which is never changed.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError("exists and is not empty", "choose another folder or remove it", file=out, field="--out", exit_code=2)
    if out.resolve().is_relative_to(source.resolve()):
        raise UserError("lies in the source, which is never changed", "choose a folder elsewhere", file=out, field="--out", exit_code=2)
    out.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
    try:
        yield temporary
        temporary.chmod(0o777 & ~_umask())
        temporary.replace(out)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _umask() -> int:
    """The permissions that this process withholds; reading them needs setting them."""
    mask = os.umask(0)
    os.umask(mask)
    return mask
