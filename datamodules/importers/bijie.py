"""Bijie landslide data set: 770 landslide and 2003 other pictures of Bijie, Guizhou, with elevation and masks.

Licence: none stated; for academic use, do not redistribute the pictures.
Citation: S. Ji, D. Yu, C. Shen, W. Li, Q. Xu, "Landslide detection from an open satellite imagery and digital elevation model dataset using
attention boosted convolutional neural networks", Landslides 17, 2020.
Where: from the authors (Wuhan University, photogrammetry and computer vision group), also mirrored on Kaggle. Nothing is downloaded here.

Two layouts: the original `landslide/{image,dem,mask}` and `non-landslide/{image,dem}`, and the copy `{train,val,test}/{images,masks}` with
pictures named `ls_NNNN` and `nls_NNNN`. Pictures differ in size, have 0.8 m pixels as published, and no georeference. A picture without
landslide has an all-0 mask. Elevation is used only where it can be metres: 8-bit files hold grey levels, which have no slope, and are left out;
so are scenes without one (the dem column stays empty, `inputs: image` trains on them).
"""

import re
from pathlib import Path
from typing import Final

import numpy as np

from datamodules.errors import UserError
from datamodules.importers.converting import Array, Picture, Tile, TileWriter, binary_mask, read_picture, without_sentinels
from datamodules.importers.layout import Imported, Importer, ImportOptions, pictures, split_of

_RESOLUTION_M: Final = 0.8
_COPY_NAME: Final = re.compile(r"n?ls_\d+")
_CLASSES: Final = ("landslide", "non-landslide")


def recognises(folder: Path) -> bool:
    """`landslide/image` and `non-landslide/image`, or {train,val,test}/images in which every picture is `ls_N` or `nls_N`."""
    if any(True for _ in folder.glob("**/landslide/image")) and any(True for _ in folder.glob("**/non-landslide/image")):
        return True
    names = [image.stem for images in folder.glob("*/images") for image in pictures(images)]
    return bool(names) and all(_COPY_NAME.fullmatch(name) for name in names)


def to_scenes(folder: Path, out: Path, options: ImportOptions) -> Imported:
    """Convert every picture, its mask and, where it is in metres, its elevation."""
    writer = TileWriter(out, "Bijie")
    scenes, grey = [], 0
    for image_file, mask_file, dem_file, has_landslide in _files(folder):
        split = split_of(image_file, folder, options)
        image = read_picture(image_file)
        size = image.bands.shape[1:]
        if mask_file is not None:
            mask = binary_mask(_as_255(mask_file), mask_file, 255)
        elif has_landslide:
            raise UserError("has no mask of the same name", "add it, or remove the picture", file=image_file, field="label")
        else:
            mask = np.zeros(size, dtype=np.uint8)
        dem = _elevation(dem_file) if dem_file else None
        grey += dem_file is not None and dem is None
        stem = image_file.stem if _COPY_NAME.fullmatch(image_file.stem) else f"{'ls' if has_landslide else 'nls'}_{image_file.stem}"
        resolution = options.resolution_m or _RESOLUTION_M
        tile = Tile(f"{split}/{stem}", image.bands, mask, dem, image.crs, image.transform, resolution, region="Bijie")
        scenes.append(writer.write(tile))
    without = sum(scene.dem is None for scene in scenes)
    notes = [f"pictures have no georeference: {options.resolution_m or _RESOLUTION_M:g} m a pixel, arbitrary places"]
    if without < len(scenes):
        notes.append(f"the elevations of {len(scenes) - without} scenes were taken as metres, which their files do not state")
    if grey:
        notes.append(f"{grey} elevation files hold 8-bit grey levels, not metres, and were left out")
    if without:
        notes.append(f"{without} of {len(scenes)} scenes have no elevation: train with `inputs: image`")
    return Imported(scenes, notes)


def _files(folder: Path) -> list[tuple[Path, Path | None, Path | None, bool]]:
    """Image, mask, elevation and whether there is a landslide, of each picture."""
    original = sorted(path for path in folder.glob("**/image") if path.parent.name in _CLASSES)
    found = []
    for images in original or sorted(folder.glob("*/images")):
        masks, dems = ({file.stem: file for file in pictures(images.parent / role)} for role in ("mask" if original else "masks", "dem"))
        found += [
            (
                image,
                masks.get(image.stem),
                dems.get(image.stem),
                (images.parent.name if original else image.stem).startswith(("landslide", "ls_")),
            )
            for image in pictures(images)
        ]
    return found


def _as_255(file: Path) -> Picture:
    """A mask whose landslide is 255, also where the file says 1."""
    picture = read_picture(file)
    bands = np.where(picture.bands == 1, 255, picture.bands)
    return Picture(bands, picture.crs, picture.transform)


def _elevation(file: Path) -> Array | None:
    """Metres, or None where the file holds grey levels."""
    picture = read_picture(file)
    if picture.bands.dtype == np.uint8:
        return None
    dem = without_sentinels(picture.bands[0])
    if picture.missing is not None:
        dem[picture.missing] = np.nan
    return dem if np.isfinite(dem).any() else None


IMPORTER: Final = Importer("bijie", recognises, to_scenes)
