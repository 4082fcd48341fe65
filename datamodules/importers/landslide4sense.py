"""Landslide4Sense: 3799 + 245 + 800 patches of 128 x 128 pixels, 14 bands in HDF5, from landslides all over the world.

Licence: see the competition's repository before redistributing; this project ships none of it.
Citation: O. Ghorbanzadeh et al., "The outcome of the 2022 Landslide4Sense competition", IEEE JSTARS 15, 2022, doi 10.1109/JSTARS.2022.3220845.
Where: linked from the repository iarai/Landslide4Sense-2022 (labels of validation and test: Zenodo record 10463239), mirrored on Hugging Face as
ibm-nasa-geospatial/Landslide4sense. Nothing is downloaded here. Needs h5py: `pip install landslide-zoo[hdf5]`.

Files `image_N.h5` (key img, 128 x 128 x 14) and `mask_N.h5` (key mask, 0/1), in TrainData|ValidData|TestData or train|validation|test.
Bands: Sentinel-2 B1-B12, slope, elevation, resampled to about 10 m, without georeference. All were normalised before publication: the
elevation has no metres, so slope, aspect or hillshade computed from it would mean nothing. Scenes are therefore imported WITHOUT a dem; with
`terrain_bands` the normalised slope and elevation stay as image bands 13 and 14.
"""

import re
from pathlib import Path
from typing import Any, Final

import numpy as np
from affine import Affine

from datamodules.errors import UserError
from datamodules.importers.converting import Array, Picture, Tile, TileWriter, binary_mask
from datamodules.importers.layout import Imported, Importer, ImportOptions, named_split, pair, split_of

_RESOLUTION_M: Final = 10.0
_BANDS: Final = (*(f"Sentinel-2 B{band}, normalised" for band in range(1, 13)), "slope, normalised", "elevation, normalised")


def recognises(folder: Path) -> bool:
    """A file `image_N.h5` somewhere in it."""
    return any(True for _ in folder.rglob("image_*.h5"))


def to_scenes(folder: Path, out: Path, options: ImportOptions) -> Imported:
    """Convert every patch; splits without masks become "predict"."""
    images = sorted(folder.rglob("image_*.h5"), key=lambda file: (str(file.parent), _number(file)))
    labels = {(named_split(file, folder), str(_number(file))): file for file in folder.rglob("mask_*.h5")}
    pairs = pair(images, labels, folder, lambda file: str(_number(file)))
    bands = _BANDS if options.terrain_bands else _BANDS[:12]
    resolution = options.resolution_m or _RESOLUTION_M
    tags = {"ELEVATION": "normalised before publication, not metres: no terrain layer can be derived"}
    writer = TileWriter(out, "Landslide4Sense")
    scenes = []
    for image_file, mask_file in pairs.items():
        split = split_of(image_file, folder, options) if mask_file else "predict"
        values = _read(image_file, "img")
        if values.ndim != 3 or values.shape[2] != len(_BANDS):
            raise UserError(f"is {values.shape}", "patches must be (height, width, 14)", file=image_file, field="img")
        mask = binary_mask(Picture(_read(mask_file, "mask")[None], None, Affine.identity()), mask_file, 1) if mask_file else None
        image = np.ascontiguousarray(values[..., : len(bands)].transpose(2, 0, 1), dtype=np.float32)
        origin = "" if mask_file else f"{named_split(image_file, folder) or ''}"
        name = f"{split}/{f'{origin}_' if origin else ''}{image_file.stem}"
        scenes.append(writer.write(Tile(name, image, mask, resolution_m=resolution, bands=bands, tags=tags)))
    notes = [
        f"patches have no georeference: {resolution:g} m a pixel, arbitrary places",
        "elevation and slope are normalised, not metres: scenes have no dem, terrain layers cannot be derived; train with `inputs: image`",
        f"images have {len(bands)} bands: set data.image_channels to {len(bands)}",
    ]
    unlabelled = sum(scene.label is None for scene in scenes)
    if unlabelled:
        notes.append(f"{unlabelled} patches have no mask and went to split predict")
    return Imported(scenes, notes)


def _number(file: Path) -> int:
    """N of image_N.h5."""
    found = re.search(r"_(\d+)$", file.stem)
    if found is None:
        raise UserError("has no number", "files are named image_N.h5 and mask_N.h5", file=file)
    return int(found.group(1))


def _read(file: Path, key: str) -> Array:
    """One array of an HDF5 file."""
    try:
        import h5py  # noqa: PLC0415 - an extra, needed for this data set only
    except ImportError as error:
        raise UserError("needs h5py", "install it with `pip install landslide-zoo[hdf5]`", file=file) from error
    try:
        with h5py.File(file) as source:
            if key not in source:
                raise UserError(f"has no array {key!r}", f"it holds {', '.join(source) or 'nothing'}", file=file, field=key)
            values: Any = source[key][()]
            return np.asarray(values)
    except OSError as error:
        raise UserError("cannot be read as HDF5, it may be truncated", "get the file anew", file=file) from error


IMPORTER: Final = Importer("landslide4sense", recognises, to_scenes)
