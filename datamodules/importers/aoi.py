"""Areas of interest: one large image with its elevation model and its polygons or label raster; a folder, or one folder each.

Licence, citation and source are those of the data that you bring. Nothing is downloaded, and nothing is converted: scenes point at the files.

Files are told by their names: `image`, `rgb`, `ortho...` the image (or the only raster that is left), `dem`, `dtm`, `dsm`, `elevation` the elevation
model, `mask`, `label`, `landslide...` the label. A polygon file (also one folder below) goes before a label raster, which was made from it.
"""

from pathlib import Path
from typing import Final

from datamodules.errors import UserError
from datamodules.importers.layout import Imported, Importer, ImportOptions, split_of, with_resolution
from datamodules.polygons import VECTOR_SUFFIXES
from datamodules.reading import SceneReader
from datamodules.scene import Scene

_RASTERS: Final = frozenset({".tif", ".tiff", ".vrt", ".img", ".jp2"})
_ROLES: Final = {
    "dem": ("dem", "dtm", "dsm", "elevation"),
    "label": ("mask", "label", "landslide", "inventory"),
    "image": ("image", "rgb", "ortho"),
}


def recognises(folder: Path) -> bool:
    """Every folder that holds rasters is one area, with an image and a label."""
    areas = _areas(folder)
    return bool(areas) and all(_missing(files) is None for files in areas.values())


def to_scenes(folder: Path, out: Path, options: ImportOptions) -> Imported:  # noqa: ARG001 - nothing is converted
    """Name the files of each area and open them once."""
    scenes = []
    for area, files in _areas(folder).items():
        problem = _missing(files)
        if problem:
            raise UserError(problem, "name the files image, dem and label, or write scenes.csv", file=area, field="layout aoi")
        dem = files["dem"][0] if files["dem"] else None
        name = area.resolve().name
        scene = Scene(name, files["image"][0], dem, files["label"][0], split_of(files["image"][0], folder, options), name)
        scene = with_resolution(scene, options)
        SceneReader(scene, None, 0, "bilinear").close()
        scenes.append(scene)
    if not scenes:
        raise UserError("holds no raster", "give a folder with an image, perhaps a dem, and a label", file=folder, field="layout aoi")
    return Imported(scenes)


def _areas(folder: Path) -> dict[Path, dict[str, list[Path]]]:
    """Files by role of the folder itself, or of its subfolders where it holds no raster."""
    own = _roles(folder)
    if own["image"] or own["label"] or own["dem"]:
        return {folder: own}
    below = {path: _roles(path) for path in sorted(folder.iterdir()) if path.is_dir()}
    return {
        path: files for path, files in below.items() if any(file.suffix.lower() in _RASTERS for group in files.values() for file in group)
    }


def _roles(folder: Path) -> dict[str, list[Path]]:
    """Image, dem and label candidates of one folder."""
    files: dict[str, list[Path]] = {"image": [], "dem": [], "label": []}
    rest: list[Path] = []
    for file in sorted(path for path in folder.iterdir() if path.suffix.lower() in _RASTERS):
        role = next((role for role, names in _ROLES.items() if any(file.stem.lower().startswith(name) for name in names)), None)
        (files[role] if role else rest).append(file)
    vectors = sorted(path for path in (*folder.iterdir(), *folder.glob("*/*")) if path.suffix.lower() in VECTOR_SUFFIXES)
    files["label"] = vectors or files["label"]
    files["image"] = files["image"] or rest
    return files


def _missing(files: dict[str, list[Path]]) -> str | None:
    """What keeps a folder from being an area."""
    for role, most in (("image", 1), ("label", 1)):
        if len(files[role]) != most:
            listed = ", ".join(file.name for file in files[role]) or "none"
            return f"{len(files[role])} files may be the {role} ({listed})"
    return f"{len(files['dem'])} files may be the dem" if len(files["dem"]) > 1 else None


IMPORTER: Final = Importer("aoi", recognises, to_scenes, converts=False)
