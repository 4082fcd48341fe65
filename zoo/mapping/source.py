"""The scene as the network is to see it: image and elevation on one grid, resampled or with a nodata value of its own where asked for.

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
from datamodules.grid import Grid, open_raster
from datamodules.scene import Scene

_WHOLE_PIXEL: Final = 1e-6


def require_no_alpha(scene: Scene, value: float) -> None:
    """Refuse a nodata value for an image with an alpha band, which already says where there is data.

    Raises:
        UserError: It has one.
    """
    with open_raster(scene.image) as dataset:
        if MaskFlags.alpha in dataset.mask_flag_enums[0]:
            raise UserError(
                "has an alpha band, which says where there is data",
                "leave --image-nodata out",
                file=scene.image,
                field="image_nodata",
                value=value,
            )


def with_nodata(scene: Scene, value: float, view: Path) -> Scene:
    """The scene with a nodata value for its image, for files that declare none or a wrong one.

    Args:
        scene: The scene.
        value: Pixels that have it in all bands have no data.
        view: Where to write the VRT file.
    """
    with open_raster(scene.image) as dataset:
        rasterio.shutil.copy(dataset, view, driver="VRT")
    with rasterio.open(view, "r+") as dataset:
        dataset.nodata = value
    return replace(scene, image=view)


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
    with open_raster(scene.image) as dataset:
        masked = MaskFlags.alpha in dataset.mask_flag_enums[0] or dataset.nodata is not None
        with WarpedVRT(
            dataset,
            crs=grid.crs,
            transform=grid.transform,
            width=grid.width,
            height=grid.height,
            resampling=Resampling.average if grid.transform.a > dataset.transform.a else Resampling.bilinear,
            # Without it the part of the last pixels that lies beyond the image would be read as 0.
            add_alpha=not masked,
        ) as warped:
            rasterio.shutil.copy(warped, view, driver="VRT")
    return replace(scene, image=view)
