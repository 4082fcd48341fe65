"""The image of a scene at the pixel size that a network was trained on.

A view of the image is a small VRT file, so that all else reads it like any other raster and nothing is resampled that is not needed.
"""

import math
from dataclasses import replace
from pathlib import Path
from typing import Final

import rasterio
import rasterio.shutil
from affine import Affine
from rasterio.enums import MaskFlags, Resampling
from rasterio.vrt import WarpedVRT

from datamodules.errors import UserError
from datamodules.grid import Grid
from datamodules.overrides import REFUSE
from datamodules.rasters import open_raster
from datamodules.scene import Scene

_WHOLE_PIXEL: Final = 1e-6


def require_own_grid(scene: Scene) -> None:
    """Refuse to resample an image that is read on a virtual grid already.

    Raises:
        UserError: Its scene states `regrid`, or a resolution instead of a georeference.
    """
    if scene.overrides.regrid not in (None, REFUSE) or scene.overrides.resolution_m is not None:
        raise UserError(
            "has no grid in metres of its own that could be resampled to the model's pixel size",
            "write it on such a grid first, for example with `gdalwarp -t_srs EPSG:CODE -tr X Y`",
            file=scene.image,
            field="resample_to_model",
            exit_code=2,
        )


def coarser_or_finer(grid: Grid, pixel_m: tuple[float, float]) -> Grid:
    """The grid that covers the same ground from the same upper left corner with pixels of another size, metres (x, y)."""
    x, y = pixel_m[0] / grid.pixel_size[0], pixel_m[1] / grid.pixel_size[1]
    width, height = (max(math.ceil(pixels / factor - _WHOLE_PIXEL), 1) for pixels, factor in ((grid.width, x), (grid.height, y)))
    at = grid.transform
    return Grid(grid.crs, Affine(at.a * x, 0, at.c, 0, at.e * y, at.f), width, height, pixel_m)


def resampled(scene: Scene, grid: Grid, view: Path) -> Scene:
    """The scene with its image on another grid: larger pixels are means of those that they cover, smaller ones are interpolated bilinearly.

    Args:
        scene: The scene.
        grid: The grid.
        view: Where to write the VRT file.
    """
    stated = scene.overrides.image_nodata
    with open_raster(scene.image) as dataset:
        nodata = dataset.nodata if stated is None else None if stated == "none" else stated
        masked = MaskFlags.alpha in dataset.mask_flag_enums[0] or nodata is not None
        with WarpedVRT(
            dataset,
            crs=grid.crs,
            transform=grid.transform,
            width=grid.width,
            height=grid.height,
            src_nodata=nodata,
            nodata=nodata,
            resampling=Resampling.average if grid.transform.a > dataset.transform.a else Resampling.bilinear,
            # Without it the part of the last pixels that lies beyond the image would be read as 0.
            add_alpha=not masked,
        ) as warped:
            rasterio.shutil.copy(warped, view, driver="VRT")
    return replace(scene, image=view)
