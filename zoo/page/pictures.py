"""Rasters as pictures of a page: averaged to its size, nothing drawn where there are no data."""

import base64
from contextlib import closing
from pathlib import Path
from typing import Any, Final

import cv2
import numpy as np
import numpy.typing as npt
import torch
from rasterio.enums import Resampling
from rasterio.errors import RasterioError
from rasterio.io import DatasetReader

from datamodules.alignment import ElevationModel
from datamodules.errors import UserError
from datamodules.grid import Grid
from datamodules.imagery import ImageRaster
from datamodules.overrides import Overrides
from datamodules.preview.contact_sheet import PERCENTILES, natural_bands
from datamodules.terrain import hillshade
from zoo.mapping.raster import NO_DATA, STEPS

Array = npt.NDArray[Any]
_QUALITY: Final = 80
_ROUNDING: Final = 1e-5
_STRIP_ROWS: Final = 128


def probability_picture(dataset: DatasetReader, path: Path, grid: Grid) -> bytes:
    """The probability as a grey PNG: 0 to 254 for 0 to 1, 255 = no data.

    Args:
        dataset: Of one band, 0 to 1 after its scale.
        path: Its file.
        grid: Of the picture, over the same ground; pixels are means of those that they cover, read from overviews where there are some.

    Raises:
        UserError: A damaged file, or values that are no probabilities.
    """
    try:
        values = dataset.read(1, out_shape=(grid.height, grid.width), resampling=Resampling.average)
    except RasterioError as error:
        raise UserError("cannot be read, it is truncated or damaged", "write the file anew", file=path) from error
    missing = ~np.isfinite(values) if values.dtype.kind == "f" else np.zeros(values.shape, dtype=bool)
    if dataset.nodata is not None:
        missing |= values == dataset.nodata
    probability = np.where(missing, 0, values.astype(np.float64) * dataset.scales[0] + dataset.offsets[0])
    low, high = float(probability.min()), float(probability.max())
    if low < -_ROUNDING or high > 1 + _ROUNDING:
        value = low if low < -_ROUNDING else high
        raise UserError("is no probability", "give a map of `zoo map`, or a raster of 0 to 1", file=path, field="probability", value=value)
    return encoded(np.where(missing, NO_DATA, np.rint(probability * STEPS)).astype(np.uint8), ".png", cv2.IMWRITE_PNG_COMPRESSION, 6)


def image_picture(path: Path, grid: Grid, overrides: Overrides) -> bytes:
    """The image as WebP: bands that it declares red, green and blue, else the first three, else the first; stretched for the eye.

    Args:
        path: The image, on any grid.
        grid: Of the picture.
        overrides: What is stated about the image.
    """
    known = np.ones((grid.height, grid.width), dtype=bool)
    with closing(ImageRaster(path, overrides, grid)) as image:
        bands = natural_bands(path, image.num_bands)
        shown = np.zeros((*known.shape, len(bands)), dtype=np.float32)
        for row in range(0, grid.height, _STRIP_ROWS):  # an image may have hundreds of bands
            rows = slice(row, min(row + _STRIP_ROWS, grid.height))
            values, missing = image.read(row, 0, rows.stop - row, grid.width)
            shown[rows] = np.moveaxis(values[bands], 0, -1)
            if missing is not None:
                known[rows] = ~missing
    if known.any():
        low, high = np.percentile(shown[known], PERCENTILES, axis=0)
        shown = np.clip((shown - low) / np.maximum(high - low, 1e-12), 0, 1)
    return webp(shown, known)


def hillshade_picture(path: Path, grid: Grid, overrides: Overrides) -> bytes:
    """The hillshade of an elevation model as WebP; the sun is in the north-west.

    Args:
        path: The model, on any grid.
        grid: Of the picture.
        overrides: What is stated about the model.
    """
    with closing(ElevationModel(path, grid, 1, "bilinear", overrides)) as model:
        model.check()
        dem = torch.from_numpy(model.read(-1, -1, grid.height + 2, grid.width + 2))
    shade = hillshade(dem, grid.pixel_size)[1:-1, 1:-1].numpy()
    return webp(shade[..., None], ~np.isnan(shade))


def data_uri(picture: bytes, kind: str) -> str:
    """A picture as a part of a page."""
    return f"data:image/{kind};base64,{base64.b64encode(picture).decode()}"


def encoded(pixels: Array, suffix: str, setting: int, value: int) -> bytes:
    """Pixels, grey (H, W) or blue, green, red and alpha (H, W, 4), as a picture."""
    done, content = cv2.imencode(suffix, pixels, [setting, value])
    assert done
    return content.tobytes()


def webp(shown: Array, known: Array) -> bytes:
    """Shades of 0 to 1, (H, W, 1 or 3), see-through where nothing is known."""
    colours = np.broadcast_to(np.where(known[..., None], np.nan_to_num(shown), 0), (*known.shape, 3))[..., ::-1]
    pixels = np.dstack([np.rint(colours * 255), known * 255.0]).astype(np.uint8)
    return encoded(pixels, ".webp", cv2.IMWRITE_WEBP_QUALITY, _QUALITY)
