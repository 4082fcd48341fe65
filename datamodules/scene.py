"""Scenes: which image, elevation model and label belong together, and to which split.

A data set is a manifest `scenes.csv` (columns scene, image, dem, label, split, region; paths relative to the manifest) or the folder
layout `{train,val,test}/{images,dem,masks}/NAME.tif`, in which each file is a scene of its own, read as one window. Optional columns
state what files leave out or have wrong (`datamodules/overrides.py` lists them) and how labels are read (`LabelColumns`).
"""

import csv
import hashlib
import io
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, fields
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Final

from datamodules.errors import UserError
from datamodules.label_rules import NO_COLUMNS, LabelColumns
from datamodules.overrides import OVERRIDE_COLUMNS, Overrides, read_overrides

MANIFEST: Final = "scenes.csv"
COLUMNS: Final = ("scene", "image", "dem", "label", "split", "region")
LABEL_COLUMNS: Final = tuple(item.name for item in fields(LabelColumns))
OPTIONAL_COLUMNS: Final = (*OVERRIDE_COLUMNS, *LABEL_COLUMNS)
"""Read where the header has them, written where a scene states something."""
SPLITS: Final = ("train", "val", "test", "predict")
WHOLE_CONTENT_BYTES: Final = 64 * 2**20
_SAMPLE_BYTES: Final = 2**20
_SUFFIXES: Final = (".tif", ".tiff")
_ALIKE: Final = 0.85
"""Likeness from which on an unknown column is a slip: `dem_units` is 0.94, `label_file` 0.76."""


@dataclass(frozen=True)
class Scene:
    """One place: files that show the same ground.

    Args:
        name: Unique in the data set; names windows, hence without ":".
        image: Raster whose grid is the master grid of the scene.
        dem: Elevation model on any grid; None where there is none.
        label: Raster of 0, 1, 255 or a vector file of landslide polygons; None only in split "predict".
        split: One of train, val, test, predict.
        region: Free name of the area, for splits by region.
        one_window: The scene is a ready-made tile: it is never cut at random offsets.
        overrides: What the user states about the files.
        labels: How its label is read.
    """

    name: str
    image: Path
    dem: Path | None
    label: Path | None
    split: str
    region: str = ""
    one_window: bool = False
    overrides: Overrides = field(default_factory=Overrides)
    labels: LabelColumns = NO_COLUMNS

    def optional_cells(self) -> dict[str, str]:
        """Optional columns of the manifest in which this scene states something, in the order of `OPTIONAL_COLUMNS`."""
        texts = {**self.overrides.texts(), **{column: getattr(self.labels, column) for column in LABEL_COLUMNS}}
        return {column: text for column, text in texts.items() if text}


def read_scenes(root: str | os.PathLike[str], problems: list[UserError] | None = None) -> list[Scene]:
    """Read a data set.

    Args:
        root: A manifest, a folder with `scenes.csv`, or a folder in the split layout.
        problems: Gathers what is wrong with single scenes, which are then left out; None = the first is raised.

    Returns:
        All scenes in the order of the manifest, or by split and file name.

    Raises:
        UserError: Nothing there, or a row or file that is wrong.
    """
    path = Path(root)
    try:
        return _read(path, problems)
    except OSError as error:
        remedy = "ask for the right to read it, or copy the data"
        raise UserError(f"cannot be read: {(error.strerror or str(error)).lower()}", remedy, file=error.filename or path) from error


def _read(path: Path, problems: list[UserError] | None) -> list[Scene]:
    """A manifest or a folder."""
    if path.is_file():
        return read_manifest(path, problems)
    if not path.exists():
        raise UserError(
            "does not exist",
            "give the folder that holds scenes.csv, or make data with `zoo-data synthesize`",
            field="root",
            value=str(path),
        )
    if (path / MANIFEST).is_file():
        return read_manifest(path / MANIFEST, problems)
    return read_folder(path, problems)


def _raise_or_gather(error: UserError, problems: list[UserError] | None) -> None:
    """Raise a problem of one scene, or add it to the list."""
    if problems is None:
        raise error
    problems.append(error)


def read_manifest(path: Path, problems: list[UserError] | None = None) -> list[Scene]:
    """Read `scenes.csv`; `problems` as in `read_scenes`.

    Raises:
        UserError: A missing column, an empty or repeated name, an unknown split or a file that does not exist.
    """
    problem = _unreadable(path)
    if problem:
        raise UserError(problem, "give a scenes.csv that you may read", file=path)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError("is not UTF-8 text", f"write a CSV file with the columns {', '.join(COLUMNS)}", file=path) from error
    scenes: list[Scene] = []
    for line, row in _table(text, path):
        try:
            values = {column: (row.get(column) or "").strip() for column in (*COLUMNS, *OPTIONAL_COLUMNS)}
            scenes.append(_scene(values, path, line, row.get(None)))
        except UserError as error:
            _raise_or_gather(error, problems)
    for name, number in Counter(scene.name for scene in scenes).items():
        if number > 1:
            _raise_or_gather(
                UserError("appears more than once", "scene names must be unique", file=path, field="scene", value=name), problems
            )
    if not scenes and not problems:
        raise UserError("lists no scene", "add a row for each scene", file=path)
    return scenes


def _table(text: str, path: Path) -> list[tuple[int, dict[str | None, Any]]]:
    """Rows of a manifest by column, each with its line.

    Raises:
        UserError: No table of comma-separated values, or a header without a column, with one twice, or with one that is misspelt.
    """
    reader = csv.DictReader(io.StringIO(text), strict=True)
    try:
        header = [name.strip() for name in reader.fieldnames or []]
        reader.fieldnames = header
        _check_header(header, path)
        return [(reader.line_num, row) for row in reader]
    except csv.Error as error:
        raise UserError(
            f"is no table: {error} (line {reader.line_num})", "close every quote, and separate cells by commas", file=path
        ) from error


def _check_header(header: list[str], path: Path) -> None:
    """Refuse a header that cannot be meant; columns of the user's own are welcome."""
    missing = [column for column in COLUMNS[:5] if column not in header]
    if missing:
        given = f"the header is {','.join(header)[:200]}" if header else "the file is empty"
        remedy = f"the header must be {','.join(COLUMNS)}, separated by commas"
        raise UserError(f"column is missing, {given}", remedy, file=path, field=missing[0])
    twice = [column for column, number in Counter(header).items() if number > 1]
    if twice:
        raise UserError("is there twice", "keep one of the columns", file=path, field="header", value=twice[0])
    for column in header:
        meant = [name for name in get_close_matches(column.lower(), OPTIONAL_COLUMNS, 1, _ALIKE) if name not in header]
        if meant and column not in COLUMNS:
            raise UserError("is no column that is read", f"write {meant[0]}, or rename it", file=path, field="header", value=column)


def _scene(values: dict[str, str], manifest: Path, line: int, beyond: list[str] | None) -> Scene:
    """One row of the manifest, checked; `beyond` are cells that have no column."""
    if beyond is not None:
        raise UserError(
            f"has cells beyond the header (line {line})",
            'put texts that hold commas in quotes, as "a,b"',
            file=manifest,
            field="scene",
            value=values["scene"],
        )
    if not values["scene"] or ":" in values["scene"]:
        raise UserError(
            f"is not a name (line {line})", "give each scene a unique name without ':'", file=manifest, field="scene", value=values["scene"]
        )
    if values["split"] not in SPLITS:
        raise UserError(
            f"is no split (line {line})", f"use one of {', '.join(SPLITS)}", file=manifest, field="split", value=values["split"]
        )
    required = ["image"] if values["split"] == "predict" else ["image", "label"]
    paths: dict[str, Path | None] = {}
    for column in ("image", "dem", "label"):
        if not values[column]:
            if column in required:
                raise UserError(f"is empty (line {line})", "name the file, relative to the manifest", file=manifest, field=column)
            paths[column] = None
            continue
        paths[column] = manifest.parent / values[column]
        problem = _unreadable(manifest.parent / values[column])
        if problem:
            raise UserError(
                f"{problem} (line {line})", "paths are relative to the manifest", file=manifest, field=column, value=values[column]
            )
    image = paths["image"]
    assert image is not None
    overrides = read_overrides(values, manifest, line)
    labels = LabelColumns(*(values[column] for column in LABEL_COLUMNS))
    region = values["region"]
    return Scene(values["scene"], image, paths["dem"], paths["label"], values["split"], region, overrides=overrides, labels=labels)


def _unreadable(path: Path) -> str | None:
    """What keeps a file from being opened; None if nothing does."""
    try:
        if path.is_dir():
            return "is a folder, no file"
        if not path.is_file():
            return "file does not exist"
        with path.open("rb"):
            return None
    except OSError as error:
        return f"cannot be opened: {(error.strerror or str(error)).lower()}"


def read_folder(folder: Path, problems: list[UserError] | None = None) -> list[Scene]:
    """Read the layout `{train,val,test}/{images,dem,masks}/*.tif`; `dem` may be absent; `problems` as in `read_scenes`.

    Raises:
        UserError: No such folders, or an image without its mask or elevation model.
    """
    scenes: list[Scene] = []
    for split in SPLITS:
        images = folder / split / "images"
        if not images.is_dir():
            continue
        dems, masks = folder / split / "dem", folder / split / "masks"
        for image in sorted(path for path in images.iterdir() if path.suffix.lower() in _SUFFIXES):
            dem: Path | None = dems / image.name
            label: Path | None = masks / image.name
            if not dems.is_dir():
                dem = None
            elif not (dems / image.name).is_file():
                remedy = f"add it, or remove the folder {split}/dem"
                _raise_or_gather(UserError("has no elevation model of the same name", remedy, file=image, field="dem"), problems)
                continue
            if not (masks / image.name).is_file():
                if split != "predict":
                    remedy = f"add {split}/masks/{image.name}"
                    _raise_or_gather(UserError("has no mask of the same name", remedy, file=image, field="label"), problems)
                    continue
                label = None
            scenes.append(Scene(f"{split}/{image.stem}", image, dem, label, split, one_window=True))
    if not scenes and not problems:
        raise UserError(
            "holds neither scenes.csv nor {train,val,test}/images/*.tif",
            "see `zoo-data synthesize` for an example of a manifest",
            file=folder,
            field="root",
        )
    return scenes


def write_manifest(scenes: Sequence[Scene], path: Path) -> None:
    """Write `scenes.csv` with paths relative to its folder; an interrupted write leaves the old file."""
    folder = path.resolve().parent
    rows = io.StringIO()
    writer = csv.writer(rows, lineterminator="\n")
    stated = {column for scene in scenes for column in scene.optional_cells()}
    optional = [column for column in OPTIONAL_COLUMNS if column in stated]
    writer.writerow((*COLUMNS, *optional))
    for scene in scenes:
        files = (Path(os.path.relpath(file.resolve(), folder)).as_posix() if file else "" for file in (scene.image, scene.dem, scene.label))
        cells = scene.optional_cells()
        writer.writerow((scene.name, *files, scene.split, scene.region, *(cells.get(column, "") for column in optional)))
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(rows.getvalue(), encoding="utf-8")
    temporary.replace(path)


def of_split(scenes: Iterable[Scene], split: str) -> list[Scene]:
    """The scenes of one split, in order."""
    return [scene for scene in scenes if scene.split == split]


def fingerprint(scenes: Sequence[Scene]) -> str:
    """Identify the data by what they hold: names, splits, regions, optional columns and file contents, never where they lie.

    A file over 64 MiB counts with its size and 64 samples of 1 MiB, so that a data set of any size takes seconds.

    Returns:
        SHA-256 in hexadecimal.
    """
    total = hashlib.sha256()
    for scene in sorted(scenes, key=lambda scene: scene.name):
        total.update("\x1f".join((scene.name, scene.split, scene.region, str(scene.one_window))).encode())
        # Only what is stated, so that data which state nothing keep the fingerprint that their records hold.
        total.update("".join(f"\x1d{column}\x1f{text}" for column, text in scene.optional_cells().items()).encode())
        for role, file in (("image", scene.image), ("dem", scene.dem), ("label", scene.label)):
            total.update(f"\x1e{role}".encode())
            if file is not None:
                total.update(content_digest(file))
    return total.hexdigest()


def content_digest(file: Path) -> bytes:
    """SHA-256 of one file; of its size and 64 samples where it is over 64 MiB."""
    size = file.stat().st_size
    digest = hashlib.sha256(str(size).encode())
    with file.open("rb") as stream:
        if size <= WHOLE_CONTENT_BYTES:
            digest.update(stream.read())
        else:
            for part in range(64):
                stream.seek((size - _SAMPLE_BYTES) * part // 63)
                digest.update(stream.read(_SAMPLE_BYTES))
    return digest.digest()
