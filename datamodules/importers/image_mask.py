"""Plain folders of pictures and masks, any names of the usual ones; also pairs of GVLM and its like, one folder a site.

Licence, citation and source are those of the data that you bring (GVLM: non-commercial use only, repository zxk688/GVLM). Nothing is downloaded.

`{images,image,img}` beside `{masks,mask,labels,label,gt}`, perhaps in {train,val,test}, a mask with the stem of its picture (PNG, JPEG, BMP, TIFF);
or sites `SITE/{im2,ref}.png`, where im2 is the picture after the event and im1, before it, is not used. Masks are 0/1 (255 = ignore) or 0/255; which of the
two is found out over all masks together. Pictures with a coordinate system keep it; the others need `resolution_m`.
"""

from pathlib import Path
from typing import Final

import numpy as np

from datamodules.errors import UserError
from datamodules.importers.converting import Array, Picture, Tile, TileWriter, binary_mask, read_picture
from datamodules.importers.layout import PICTURES, Imported, Importer, ImportOptions, named_split, pair, pictures, split_of

_IMAGES: Final = ("images", "image", "img", "imgs")
_MASKS: Final = ("masks", "mask", "labels", "label", "gt")


def recognises(folder: Path) -> bool:
    """Pictures beside masks, at least one of them no TIFF or outside of {train,val,test}; otherwise the layout is `folders`."""
    images, masks = _find(folder, _IMAGES), _find(folder, _MASKS)
    if images and masks:
        plain = any(file.suffix.lower() not in {".tif", ".tiff"} for file in (*images, *masks))
        return plain or any(file.parent.name != "images" or named_split(file, folder) is None for file in images)
    return bool(_sites(folder))


def to_scenes(folder: Path, out: Path, options: ImportOptions) -> Imported:
    """Convert every picture and its mask."""
    sites = _sites(folder)
    if sites:
        pairs: dict[Path, Path | None] = dict(sites)
    else:
        labels = {(named_split(mask, folder), mask.stem): mask for mask in _find(folder, _MASKS)}
        pairs = pair(_find(folder, _IMAGES), labels, folder, lambda file: file.stem)
    if not pairs:
        raise UserError(
            "holds no picture", f"put pictures into images and masks into masks ({', '.join(_IMAGES)}; {', '.join(_MASKS)})", file=folder
        )
    landslide = _landslide_value([mask for mask in pairs.values() if mask])
    writer = TileWriter(out, folder.resolve().name)
    scenes = []
    for image_file, mask_file in pairs.items():
        split = split_of(image_file, folder, options) if mask_file else "predict"
        source = read_picture(image_file)
        mask = binary_mask(read_picture(mask_file), mask_file, landslide) if mask_file else None
        stem = image_file.parent.name if sites else image_file.stem
        region = stem if sites else ""
        transform = source.transform if source.crs is not None else None
        scenes.append(
            writer.write(Tile(f"{split}/{stem}", _with_gaps(source), mask, None, source.crs, transform, options.resolution_m, region))
        )
    return Imported(scenes, [f"masks were read as 0 and {landslide}", "scenes have no elevation: train with `inputs: image`"])


def _find(folder: Path, names: tuple[str, ...]) -> list[Path]:
    """Pictures in `NAME` and `*/NAME`."""
    return [file for name in names for path in (folder / name, *sorted(folder.glob(f"*/{name}"))) for file in pictures(path)]


def _sites(folder: Path) -> dict[Path, Path]:
    """Picture after the event and reference of each site."""
    found = {}
    for image in sorted(path for path in folder.glob("**/im2.*") if path.suffix.lower() in PICTURES):
        references = [file for file in pictures(image.parent) if file.stem == "ref"]
        if references:
            found[image] = references[0]
    return found


def _landslide_value(masks: list[Path]) -> int:
    """1 if any mask holds it, else 255."""
    return 1 if any((read_picture(mask).bands == 1).any() for mask in masks) else 255


def _with_gaps(picture: Picture) -> Array:
    """Image values; float32 with NaN where the alpha band or the nodata tag says that there are none."""
    if picture.missing is None or not picture.missing.any():
        return picture.bands if picture.bands.dtype == np.uint8 else picture.bands.astype(np.float32)
    bands = picture.bands.astype(np.float32)
    bands[:, picture.missing] = np.nan
    return bands


IMPORTER: Final = Importer("image_mask", recognises, to_scenes, general=True)
