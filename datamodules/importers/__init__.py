"""Public data sets and usual layouts as scenes: `zoo-data index FOLDER --layout auto`.

One file a data set says what it is, its licence and citation, and where users get it. Nothing is downloaded, and a source is never changed:
what cannot be used as it stands is converted into another folder.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from datamodules.errors import UserError
from datamodules.importers import aoi, bijie, folders, image_mask, landslide4sense, mmls
from datamodules.importers.converting import new_folder
from datamodules.importers.layout import Imported, Importer, ImportOptions
from datamodules.scene import MANIFEST, Scene, write_manifest

IMPORTERS: Final[dict[str, Importer]] = {
    module.IMPORTER.name: module.IMPORTER for module in (folders, bijie, landslide4sense, mmls, image_mask, aoi)
}
LAYOUTS: Final = ("auto", *IMPORTERS)

__all__ = ["IMPORTERS", "LAYOUTS", "ImportOptions", "Imported", "Importer", "import_folder", "recognise"]


def recognise(folder: Path) -> Importer:
    """The one layout of a folder; a data set goes before a general layout.

    Raises:
        UserError: None or several recognise it.
    """
    found = [importer for importer in IMPORTERS.values() if importer.recognises(folder)]
    found = [importer for importer in found if not importer.general] or found
    if len(found) == 1:
        return found[0]
    problem = f"may be {' or '.join(importer.name for importer in found)}" if found else "has no layout that is known"
    raise UserError(
        problem,
        f"give --layout, one of {', '.join(IMPORTERS)}, or write {MANIFEST}",
        file=folder,
        field="--layout",
        value="auto",
        exit_code=2,
    )


def import_folder(folder: Path, layout: str, out: Path | None, options: ImportOptions) -> tuple[Importer, Path, Imported]:
    """Index a folder, converting what cannot be used as it stands.

    Args:
        folder: The source; never changed, but for `scenes.csv` where nothing is converted and `out` is None.
        layout: One of `LAYOUTS`.
        out: Folder to make, or, where nothing is converted, the folder or file of the manifest.
        options: What the files do not say.

    Returns:
        The importer, the manifest and what was imported.

    Raises:
        UserError: Not recognised, not readable, or `out` missing or in use.
    """
    importer = recognise(folder) if layout == "auto" else IMPORTERS[layout]
    if not importer.converts:
        imported = importer.to_scenes(folder, folder, options)
        manifest = out or folder / MANIFEST
        if manifest.is_dir() or not manifest.suffix:
            manifest.mkdir(parents=True, exist_ok=True)
            manifest /= MANIFEST
        write_manifest(_unique(imported.scenes, folder), manifest)
        return importer, manifest, imported
    if out is None:
        raise UserError(
            "files of this layout must be converted", "give --out DIR", file=folder, field="--layout", value=importer.name, exit_code=2
        )
    with new_folder(out, folder) as temporary:
        imported = importer.to_scenes(folder, temporary, options)
        if not imported.scenes:
            raise UserError(
                "holds no scene of this layout",
                f"give another, one of {', '.join(IMPORTERS)}",
                file=folder,
                field="--layout",
                value=importer.name,
            )
        write_manifest(_unique(imported.scenes, folder), temporary / MANIFEST)
    return importer, out / MANIFEST, imported


def _unique(scenes: Sequence[Scene], folder: Path) -> Sequence[Scene]:
    """The scenes, if no name appears twice: the later file would have replaced the earlier."""
    seen: set[str] = set()
    for scene in scenes:
        if scene.name in seen:
            raise UserError(
                "appears more than once", "give the files of a split different names", file=folder, field="scene", value=scene.name
            )
        seen.add(scene.name)
    return scenes
