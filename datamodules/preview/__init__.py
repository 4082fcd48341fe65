"""Pictures of a data set: `zoo-data preview ROOT --out FOLDER` writes a contact sheet, a split map and a page that holds both."""

import os
from collections.abc import Sequence
from pathlib import Path

from datamodules.describing import describe_scene
from datamodules.errors import UserError
from datamodules.label_rules import DEFAULT_RULES, LabelRules
from datamodules.overrides import regridded
from datamodules.preview.choosing import choose
from datamodules.preview.contact_sheet import contact_sheet
from datamodules.preview.page import page
from datamodules.preview.split_map import split_map
from datamodules.reading import SceneReader
from datamodules.scene import read_scenes
from datamodules.windows import index_windows

FILES = ("contact_sheet.png", "split_map.png", "index.html")


def preview(
    root: Path,
    out: Path,
    *,
    windows: int = 12,
    splits: Sequence[str] = (),
    tile_size: int = 128,
    bands: Sequence[int] = (),
    seed: int = 0,
    regrid: str = "refuse",
    rules: LabelRules = DEFAULT_RULES,
) -> list[Path]:
    """Draw a data set; the same seed gives the same bytes.

    Args:
        root: As `read_scenes` takes it.
        out: Folder for the three files; made if missing, and files of these names in it are replaced.
        windows: Rows of the contact sheet.
        splits: Splits that the sheet shows; () = all. The map and the table always show all.
        tile_size: Pixels of a window.
        bands: Bands shown as red, green, blue, from 1; () = those that the file names so, else the first three, else the first.
        seed: Of the choice of windows.
        regrid: As `LandslideDataModule` takes it.
        rules: How labels are read.

    Returns:
        The files.

    Raises:
        UserError: A scene that cannot be read, a split or band that is not there. Nothing is written then.
    """
    if out.exists() and not out.is_dir():
        raise UserError("is no folder", "choose another", file=out, field="--out", exit_code=2)
    scenes = regridded(read_scenes(root), regrid)
    missing = [split for split in splits if split not in {scene.split for scene in scenes}]
    if missing:
        raise UserError("no scene is in this split", "choose another", file=root, field="--split", value=missing[0], exit_code=2)
    described = [describe_scene(scene, tile_size, rules) for scene in scenes]
    readers = []
    for scene in scenes:
        reader = SceneReader(scene, None, 1, "bilinear", rules)
        reader.close()
        readers.append(reader)
    index = index_windows(readers, tile_size, tile_size, once=False)  # a window counts what it shows
    views = choose(readers, index, tile_size=tile_size, number=windows, splits=splits, seed=seed)
    sheet, rows = contact_sheet(readers, views, bands)
    plan, notes = split_map(readers, tile_size)
    html = page(str(root), sheet, rows, plan, notes, described, seed)
    out.mkdir(parents=True, exist_ok=True)
    return [_write(out / name, content) for name, content in zip(FILES, (sheet, plan, html.encode()), strict=True)]


def _write(path: Path, content: bytes) -> Path:
    """Write a file that is either whole or absent."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_bytes(content)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    return path
