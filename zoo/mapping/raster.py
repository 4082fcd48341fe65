"""What the files of a map hold, and how they become Cloud-Optimised GeoTIFFs.

| file | content | uint8 | float32 |
|---|---|---|---|
| `NAME.tif` | probability of landslide | 0...254 for 0...1, 255 = no data | NaN = no data |
| `NAME_class.tif` | 1 where the probability reaches the threshold, else 0; 255 = no data | as said | uint8 too |
| `NAME_uncertainty.tif` | standard deviation over the members, of an ensemble or with TTA | 0...254 for 0...0.5, 255 = no data | NaN = no data |

The factor that turns numbers into probabilities is in the file as the band's scale, which QGIS and GDAL apply. Classes come from the
probabilities before they are rounded.
"""

import os
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal
from xml.sax.saxutils import escape, quoteattr

import numpy as np
import numpy.typing as npt
import rasterio
import rasterio.shutil
from rasterio.errors import RasterioError

from datamodules.errors import UserError
from datamodules.grid import Grid
from zoo.mapping.prediction import CACHE_MB, Band

Array = npt.NDArray[Any]
Dtype = Literal["uint8", "float32"]

NO_DATA: Final = 255
STEPS: Final = 254
"""Steps into which the range of a layer is divided as uint8: 255 is left for no data."""

_BLOCK: Final = 512


@dataclass(frozen=True)
class Layer:
    """One file of a map.

    Args:
        name: Of the layer.
        suffix: Added to the name of the map.
        description: Of the band.
        dtype: Of the band.
        scale: What a step of 1 in the file stands for.
        overviews: How coarser levels come from finer ones.
    """

    name: str
    suffix: str
    description: str
    dtype: Dtype
    scale: float
    overviews: Literal["average", "mode"]

    @property
    def pixel_bytes(self) -> int:
        """Bytes a pixel."""
        return np.dtype(self.dtype).itemsize

    def path(self, out: Path) -> Path:
        """Its file, beside that of the probability."""
        return out.with_name(f"{out.stem}{self.suffix}{out.suffix}")


def layers_of(dtype: Dtype, *, uncertainty: bool) -> list[Layer]:
    """The files of a map; the probability comes last, so that where it is, the others are."""
    step, half = (1 / STEPS, 0.5 / STEPS) if dtype == "uint8" else (1.0, 1.0)
    layers = [Layer("class", "_class", "1 = landslide", "uint8", 1.0, "mode")]
    if uncertainty:
        layers.append(Layer("uncertainty", "_uncertainty", "standard deviation of the probability", dtype, half, "average"))
    layers.append(Layer("probability", "", "probability of landslide", dtype, step, "average"))
    return layers


def encode(band: Band, layers: list[Layer], threshold: float) -> dict[str, Array]:
    """Rows of a prediction as the files hold them."""
    values = {"class": band.probability >= threshold, "probability": band.probability, "uncertainty": band.uncertainty}
    encoded: dict[str, Array] = {}
    for layer in layers:
        layer_values = values[layer.name]
        assert layer_values is not None
        if layer.dtype == "float32":
            encoded[layer.name] = np.where(band.valid, layer_values, np.float32(np.nan))
        else:
            encoded[layer.name] = np.where(band.valid, np.rint(layer_values / layer.scale), NO_DATA).astype(np.uint8)
    return encoded


def require_space(folder: Path, grid: Grid, layers: list[Layer], present: int) -> None:
    """Refuse a map that the disk cannot hold while it is made.

    Counted are the raw rows, the files with overviews (a third more) that are made of them, and the overviews of one file once more;
    compression is not counted on.

    Args:
        folder: Where the map will be.
        grid: Its grid.
        layers: Its files.
        present: Bytes of an earlier draft, which are used again.

    Raises:
        UserError: Too little space.
    """
    raw = [grid.height * grid.width * layer.pixel_bytes for layer in layers]
    needed = sum(raw) * 7 // 3 + max(raw) // 3 - present
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise UserError(
            f"the map of {grid.width} x {grid.height} pixels needs {needed / 1e9:.2f} GB while it is made and the disk has {free / 1e9:.2f} GB",
            "free some space, write to another disk, or choose --dtype uint8",
            file=folder,
            field="out",
        )


def write_cog(raw: Path, grid: Grid, layer: Layer, tags: Mapping[str, str], path: Path) -> None:
    """Make a Cloud-Optimised GeoTIFF of raw rows: deflate with predictor, overviews; whole or absent under its name.

    Args:
        raw: The rows, one after the other.
        grid: Of the map.
        layer: What they are.
        tags: Stored in the file.
        path: The file.

    Raises:
        UserError: It cannot be written, for example since the disk is full.
    """
    view, draft = raw.with_suffix(".vrt"), raw.with_suffix(".tif")
    view.write_text(_describe(raw, grid, layer, tags), encoding="utf-8")
    options = {
        "blocksize": _BLOCK,
        "compress": "deflate",
        "predictor": "yes",
        "level": 3,  # against the default of 6: less than half of the time for probabilities that are 4 % larger
        "overviews": "auto",
        "overview_resampling": layer.overviews,
        "bigtiff": "if_safer",
    }
    try:
        with rasterio.Env(GDAL_CACHEMAX=CACHE_MB):
            rasterio.shutil.copy(view, draft, driver="COG", **options)
    except RasterioError as error:
        raise UserError(f"cannot be written ({error})", "check the space on the disk", file=path) from error
    with draft.open("rb") as file:
        os.fsync(file.fileno())
    draft.replace(path)


def _describe(raw: Path, grid: Grid, layer: Layer, tags: Mapping[str, str]) -> str:
    """The raw rows as a virtual raster that GDAL reads."""
    pixel, (a, b, c, d, e, f) = layer.pixel_bytes, tuple(grid.transform)[:6]
    kind, nodata = ("Byte", str(NO_DATA)) if layer.dtype == "uint8" else ("Float32", "nan")
    metadata = "".join(f"<MDI key={quoteattr(key)}>{escape(value)}</MDI>" for key, value in tags.items())
    return f"""\
<VRTDataset rasterXSize="{grid.width}" rasterYSize="{grid.height}">
  <SRS dataAxisToSRSAxisMapping="1,2">{escape(grid.crs.to_wkt())}</SRS>
  <GeoTransform>{c!r}, {a!r}, {b!r}, {f!r}, {d!r}, {e!r}</GeoTransform>
  <Metadata>{metadata}</Metadata>
  <VRTRasterBand dataType="{kind}" band="1" subClass="VRTRawRasterBand">
    <Description>{escape(layer.description)}</Description>
    <NoDataValue>{nodata}</NoDataValue>
    <Offset>0</Offset>
    <Scale>{layer.scale!r}</Scale>
    <SourceFilename relativeToVRT="1">{escape(raw.name)}</SourceFilename>
    <ImageOffset>0</ImageOffset>
    <PixelOffset>{pixel}</PixelOffset>
    <LineOffset>{grid.width * pixel}</LineOffset>
    <ByteOrder>{"LSB" if sys.byteorder == "little" else "MSB"}</ByteOrder>
  </VRTRasterBand>
</VRTDataset>
"""
