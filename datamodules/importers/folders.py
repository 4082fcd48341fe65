"""The zoo's own folder layout `{train,val,test,predict}/{images,dem,masks}/NAME.tif`: scenes point at the files, nothing is converted."""

from pathlib import Path
from typing import Final

from datamodules.importers.layout import Imported, Importer, ImportOptions, pictures, with_resolution
from datamodules.scene import SPLITS, read_folder


def recognises(folder: Path) -> bool:
    """TIFF images in a split folder, and no other pictures in its images and masks."""
    files = [file for split in SPLITS for role in ("images", "masks") for file in pictures(folder / split / role)]
    images = any(file.parent.name == "images" for file in files)
    return images and all(file.suffix.lower() in {".tif", ".tiff"} for file in files)


def to_scenes(folder: Path, out: Path, options: ImportOptions) -> Imported:  # noqa: ARG001 - nothing is converted
    """List the files."""
    return Imported([with_resolution(scene, options) for scene in read_folder(folder)])


IMPORTER: Final = Importer("folders", recognises, to_scenes, converts=False, general=True)
