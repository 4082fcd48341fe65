"""What all importers share: which split a path names, which files are pictures, and what an importer gives back."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from datamodules.errors import UserError
from datamodules.grid import georeferenced
from datamodules.rasters import open_raster
from datamodules.scene import SPLITS, Scene

PICTURES: Final = frozenset({".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp"})
_SPLIT_NAMES: Final = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
    "testing": "test",
    "predict": "predict",
}


@dataclass(frozen=True)
class ImportOptions:
    """What the user says where the files do not.

    Args:
        split: Split of scenes whose folders name none; None refuses them.
        resolution_m: Metres a pixel of pictures without georeference; None = as published for the set, or refuse.
        terrain_bands: Landslide4Sense: keep the normalised slope and elevation as image bands 13 and 14.
    """

    split: str | None = None
    resolution_m: float | None = None
    terrain_bands: bool = False


@dataclass(frozen=True)
class Imported:
    """Scenes of a data set, and what was assumed or left out, in sentences for the user."""

    scenes: list[Scene]
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Importer:
    """One layout.

    Args:
        name: As `--layout` takes it.
        recognises: Whether a folder has this layout; cheap, reads at most a few files.
        to_scenes: Folder, folder to write converted files into (empty; unused where nothing is converted), options -> scenes.
        converts: Whether files are written; otherwise the scenes point at the source.
        general: A layout that says little about its data gives way to a set that is recognised.
    """

    name: str
    recognises: Callable[[Path], bool]
    to_scenes: Callable[[Path, Path, ImportOptions], Imported]
    converts: bool = True
    general: bool = False


def pictures(folder: Path) -> list[Path]:
    """Picture files of a folder by name; empty where there is no such folder."""
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in PICTURES) if folder.is_dir() else []


def named_split(file: Path, root: Path) -> str | None:
    """The split that a folder between `root` and `file` names: `train`, `TrainData`, `validation`, ...; None where none does."""
    for part in file.relative_to(root).parts[:-1]:
        split = _SPLIT_NAMES.get(part.lower().removesuffix("data"))
        if split:
            return split
    return None


def split_of(file: Path, root: Path, options: ImportOptions) -> str:
    """The split of a labelled scene.

    Raises:
        UserError: Its folders name none and the user neither: tiles are never put into a split by chance.
    """
    split = named_split(file, root) or options.split
    if split is None:
        raise UserError(
            "its folders name no split (train, val, test)",
            "give --split train, then divide the scenes with `zoo-data split` or in scenes.csv",
            file=root,
            field="split",
            exit_code=2,
        )
    if split not in SPLITS:
        raise UserError("is no split", f"use one of {', '.join(SPLITS)}", field="--split", value=split, exit_code=2)
    return split


def pair(
    images: Iterable[Path], labels: dict[tuple[str | None, str], Path], root: Path, key: Callable[[Path], str]
) -> dict[Path, Path | None]:
    """The label of each image; a split without any label is one to predict, a single label that lacks is a mistake.

    Args:
        images: Image files.
        labels: By (split that the folders name, key).
        root: The data set.
        key: What an image shares with its label.

    Raises:
        UserError: A label is missing where others of its split are there.
    """
    labelled = {split for split, _ in labels}
    pairs: dict[Path, Path | None] = {}
    for image in images:
        split = named_split(image, root)
        label = labels.get((split, key(image)))
        if label is None and split in labelled:
            raise UserError(
                "has no mask of the same name, unlike others of its split", "add it, or remove the image", file=image, field="label"
            )
        pairs[image] = label
    return pairs


def with_resolution(scene: Scene, options: ImportOptions) -> Scene:
    """The scene with the stated pixel size, where its image has no georeference of its own."""
    if options.resolution_m is None:
        return scene
    with open_raster(scene.image) as image:
        if georeferenced(image):
            return scene
    return replace(scene, overrides=replace(scene.overrides, resolution_m=options.resolution_m))
