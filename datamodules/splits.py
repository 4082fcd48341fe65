"""New manifests with splits that do not leak: by scene, by a column, one region left out, or by spatial blocks with a buffer.

A block split keeps images and elevation models where they are. Of each scene it writes one label raster a split, in which all that
is not of the split is 255, and lists the scene once a split (`valley__train`, `valley__test`). A landslide goes as a whole to the
split of the block that holds most of it, those that training ignores as uncertain too: the rasters keep certainties. Labels of two splits are at least the buffer apart:

- background within half the buffer of a block of another split (the whole buffer where blocks meet at a corner) is 255;
- background within the buffer of a landslide of another split is 255;
- of two landslides of different splits within the buffer of each other, the smaller is 255 in all splits.

Distances to landslides are distances to the boxes of their pieces, hence never too long. What is ignored has no label, but a training
window may still see its pixels as context: choose a buffer not shorter than the side of a window.
"""

import json
import os
import shutil
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import rasterio
import shapely

from datamodules.classes import BACKGROUND, IGNORE, LANDSLIDE
from datamodules.components import Strip, Survey, is_landslide, metre_coordinates, strips, survey, systems, whole_landslides
from datamodules.errors import UserError
from datamodules.folds import ROLES, balanced_folds, roles_of_folds
from datamodules.label_rules import DEFAULT_RULES, NO_COLUMNS, LabelColumns, LabelRules
from datamodules.overrides import regridded
from datamodules.reading import SceneReader
from datamodules.scene import MANIFEST, Scene, read_scenes, write_manifest
from datamodules.scene_splits import split_by_scene

Array = npt.NDArray[Any]
Block = tuple[int, int, int]  # coordinate system, row, column
SUMMARY: Final = "split.json"


def split_scenes(
    root: Path,
    out: Path,
    *,
    by: str,
    column: str = "region",
    block_m: float,
    buffer_m: float,
    folds: int,
    seed: int,
    copies_together: bool = False,
    regrid: str = "refuse",
    rules: LabelRules = DEFAULT_RULES,
) -> list[dict[str, Any]]:
    """Write `out/foldN/scenes.csv` for each fold, and `out/split.json` with settings and counts.

    Args:
        root: As `read_scenes` takes it. Scenes of split "predict" stay what they are.
        out: Folder to make; must not exist, or be empty.
        by: "scene" (scenes within the buffer of each other stay together), "column", "region" (one fold a region, which it tests) or "blocks".
        column: For "column": the column of the manifest whose values keep scenes together.
        block_m: Metres; side of a block.
        buffer_m: Metres between labels of different splits.
        folds: Number of folds, at least 3; of no meaning for "region".
        seed: Of ties in the assignment.
        copies_together: For "scene": scenes that show one picture, as the audit finds them, stay in one split.
        regrid: As `LandslideDataModule` takes it; written into the manifests.
        rules: How labels are read; a band along boundaries is left to training.

    Returns:
        One entry a fold: name, and per split the labelled and landslide pixels, the scenes, the landslides, and the pixels of the largest.

    Raises:
        UserError: Wrong settings, a file that cannot be used, too few units, or a landslide in scenes that the column sets apart.
    """
    _check(by, block_m, buffer_m, folds, out)
    if copies_together and by != "scene":
        raise UserError(
            "keeps scenes together, which are cut or set apart", "add --by scene, or leave it out", field="--copies-together", exit_code=2
        )
    scenes = regridded(read_scenes(root), regrid)
    predicted = [scene for scene in scenes if scene.split == "predict"]
    scenes = [scene for scene in scenes if scene.split != "predict"]
    if not scenes:
        raise UserError("has no labelled scene", "list scenes with labels", file=root, field="split")
    readers = [SceneReader(scene, None, 0, "bilinear", rules) for scene in scenes]
    surveys = [survey(reader, block_m if by == "blocks" else 1e9) for reader in readers]
    temporary = out.with_name(f".{out.name}.{os.getpid()}.tmp")
    temporary.mkdir(parents=True)
    try:
        if by == "blocks":
            plan = BlockPlan(surveys, block_m, buffer_m, folds, seed)
            plan.write(temporary, predicted)
            summary = plan.summary
        else:
            summary = split_by_scene(root, temporary, surveys, predicted, by, column, buffer_m, folds, seed, copies_together)
        settings = {"by": by, "column": column, "block_m": block_m, "buffer_m": buffer_m, "folds": len(summary), "seed": seed}
        settings |= {"copies_together": True} if copies_together else {}
        (temporary / SUMMARY).write_text(json.dumps({"settings": settings, "folds": summary}, indent=1) + "\n", encoding="utf-8")
        if out.is_dir():
            out.rmdir()
        temporary.rename(out)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return summary


def _check(by: str, block_m: float, buffer_m: float, folds: int, out: Path) -> None:
    """Refuse settings that make no sense before anything is read."""
    if by != "region" and folds < 3:
        raise UserError("is below 3", "train, val and test need a fold each", field="--folds", value=folds, exit_code=2)
    if not 0 <= buffer_m < float("inf"):
        raise UserError("is no distance", "give metres, 0 for none", field="--buffer-m", value=buffer_m, exit_code=2)
    if by == "blocks" and not max(buffer_m, 1e-6) <= block_m < float("inf"):
        raise UserError("is shorter than the buffer", "choose larger blocks", field="--block-m", value=block_m, exit_code=2)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError("exists and is not empty", "choose another folder or remove it", file=out, field="--out", exit_code=2)


@dataclass(frozen=True)
class _Fold:
    """One fold of a block split: split of each block, and of each landslide, "" where it is ignored."""

    blocks: dict[Block, str]
    landslides: list[str]


class BlockPlan:
    """Which block and which landslide is in which split of each fold.

    Args:
        surveys: One a scene, made with this `block_m`.
        block_m, buffer_m: Metres.
        folds: Number of folds.
        seed: Of ties in the assignment.

    Raises:
        UserError: Fewer blocks with labels than folds.
    """

    def __init__(self, surveys: Sequence[Survey], block_m: float, buffer_m: float, folds: int, seed: int) -> None:
        self.surveys, self.block_m, self.buffer_m = list(surveys), block_m, buffer_m
        self.systems = systems([one.reader for one in surveys])
        self.landslide_of = whole_landslides(surveys, self.systems)
        self.starts = np.cumsum([0, *(len(one.boxes) for one in surveys)])
        self.boxes = np.concatenate([one.boxes for one in surveys])
        self.piece_system = np.repeat(self.systems, np.diff(self.starts))
        self._count()
        self.blocks = sorted(self.block_pixels)
        homes = Counter(self.landslide_block)
        sizes = [[self.block_pixels[block], self.block_landslides.get(block, 0), homes[block]] for block in self.blocks]
        assigned = balanced_folds(np.array(sizes, dtype=np.float64).reshape(-1, 3), folds, seed)
        self.fold_of = dict(zip(self.blocks, assigned.tolist(), strict=True))
        close = self._close_landslides()
        self.folds = [self._fold(roles_of_folds(assigned, folds, fold), close) for fold in range(folds)]
        self.summary: list[dict[str, Any]] = []

    def _count(self) -> None:
        """Pixels of blocks, and block and pixels of each landslide."""
        self.block_pixels: dict[Block, int] = {}
        held: list[dict[Block, int]] = [{} for _ in range(int(self.landslide_of.max(initial=-1)) + 1)]
        for one, system, start in zip(self.surveys, self.systems, self.starts, strict=False):
            for (row, column), pixels in one.labelled.items():
                self.block_pixels[system, row, column] = self.block_pixels.get((system, row, column), 0) + pixels
            for piece, row, column, pixels in one.piece_blocks.tolist():
                counts = held[self.landslide_of[start + piece]]
                counts[system, row, column] = counts.get((system, row, column), 0) + pixels
        self.landslide_pixels = np.array([sum(counts.values()) for counts in held], dtype=np.int64)
        self.landslide_block = [max(sorted(counts), key=counts.__getitem__) for counts in held]
        self.block_landslides: dict[Block, int] = {}
        for block, pixels in zip(self.landslide_block, self.landslide_pixels.tolist(), strict=True):
            self.block_landslides[block] = self.block_landslides.get(block, 0) + pixels

    def _close_landslides(self) -> dict[int, set[int]]:
        """For each landslide those within the buffer of it."""
        close: dict[int, set[int]] = {}
        for system in set(self.systems):
            members = np.flatnonzero(self.piece_system == system)
            if not len(members):
                continue
            shapes = shapely.box(*self.boxes[members].T)
            one, other = shapely.STRtree(shapes).query(shapes, predicate="dwithin", distance=self.buffer_m)
            pairs = np.unique(np.stack([self.landslide_of[members[one]], self.landslide_of[members[other]]]), axis=1)
            for mine, near in pairs[:, pairs[0] != pairs[1]].T.tolist():
                close.setdefault(mine, set()).add(near)
        return close

    def _fold(self, roles: Sequence[str], close: dict[int, set[int]]) -> _Fold:
        """Keep landslides from the largest to the smallest, unless one of another split that is kept is within the buffer."""
        blocks = dict(zip(self.blocks, roles, strict=True))
        kept = [""] * len(self.landslide_pixels)
        for landslide in np.argsort(-self.landslide_pixels, kind="stable").tolist():
            role = blocks[self.landslide_block[landslide]]
            if all(kept[near] in ("", role) for near in close.get(landslide, ())):
                kept[landslide] = role
        return _Fold(blocks, kept)

    def write(self, out: Path, predicted: Iterable[Scene]) -> None:
        """Write labels and manifests of all folds; each scene is read once."""
        rows: list[list[Scene]] = [[] for _ in self.folds]
        self.summary = [
            {"fold": fold, **{role: {"scenes": 0, "labelled": 0, "landslide": 0} for role in ROLES}} for fold in range(len(self.folds))
        ]
        for entry, plan in zip(self.summary, self.folds, strict=True):
            entry["landslides"] = len(plan.landslides)
            entry["landslides_ignored"] = plan.landslides.count("")
            for role in ROLES:
                own = self.landslide_pixels[np.array(plan.landslides, dtype=np.str_) == role]
                entry[role] |= {"landslides": len(own), "largest": int(own.max(initial=0))}
            entry["blocks"] = [{"row": row, "column": column, "split": role} for (_, row, column), role in sorted(plan.blocks.items())]
        for number in range(len(self.surveys)):
            self._write_scene(number, out, rows)
        for fold, listed in enumerate(rows):
            write_manifest([*listed, *predicted], out / f"fold{fold}" / MANIFEST)
            empty = [role for role in ROLES if not self.summary[fold][role]["labelled"]]
            if empty:
                raise UserError(
                    f"leaves nothing of split {empty[0]} in fold {fold}", "choose larger blocks", field="--buffer-m", value=self.buffer_m
                )

    def _write_scene(self, number: int, out: Path, rows: Sequence[list[Scene]]) -> None:
        """Labels of one scene for each fold and split; a split without a labelled pixel gets no row."""
        one = self.surveys[number]
        grid, scene = one.reader.grid, one.reader.scene
        opened = one.reader.opened_labels()
        columns = _columns(opened.grades if opened else ())
        profile = {"driver": "GTiff", "dtype": "uint8", "count": 1, "height": grid.height, "width": grid.width, "crs": grid.crs}
        profile |= {"transform": grid.transform, "nodata": IGNORE, "compress": "deflate", "tiled": True, "BIGTIFF": "IF_SAFER"}
        stem = f"{number:04d}_{scene.name}".replace("/", "_").replace(os.sep, "_")
        counts = np.zeros((len(self.folds), len(ROLES), 2), dtype=np.int64)
        with ExitStack() as stack:
            files = []
            for fold in range(len(self.folds)):
                folder = out / f"fold{fold}" / "labels"
                folder.mkdir(parents=True, exist_ok=True)
                paths = [folder / f"{stem}__{role}.tif" for role in ROLES]
                files.append([stack.enter_context(rasterio.open(path, "w", **profile)) for path in paths])
            for strip in strips(one.reader):
                for fold in range(len(self.folds)):
                    for at, labels in enumerate(self.labels(number, strip, fold)):
                        window = rasterio.windows.Window(0, strip.row, grid.width, len(labels))
                        files[fold][at].write(labels, 1, window=window)
                        counts[fold, at] += (labels != IGNORE).sum(), is_landslide(labels).sum()
        one.reader.close()
        for fold, listed in enumerate(rows):
            for at, role in enumerate(ROLES):
                path = out / f"fold{fold}" / "labels" / f"{stem}__{role}.tif"
                known, landslide = counts[fold, at].tolist()
                if not known:
                    path.unlink()
                    continue
                listed.append(replace(scene, name=f"{scene.name}__{role}", label=path, split=role, one_window=False, labels=columns))
                entry = self.summary[fold][role]
                entry["scenes"], entry["labelled"] = entry["scenes"] + 1, entry["labelled"] + known
                entry["landslide"] += landslide

    def labels(self, number: int, strip: Strip, fold: int) -> list[Array]:
        """Grades of a strip of a scene, one a split in the order of `ROLES`: uint8 (H, W), 255 where it is of another split or too near."""
        plan, one, start = self.folds[fold], self.surveys[number], int(self.starts[number])
        background = strip.grades == BACKGROUND
        role_of = self._block_roles(number, strip, fold)
        background &= ~self._near_landslides(number, strip, fold, role_of)
        codes = np.array([ROLES.index(role) if role else -1 for role in plan.landslides] + [-1], dtype=np.int8)
        mine = np.append(codes[self.landslide_of[start : start + len(one.boxes)]], -1)[strip.pieces]
        made = []
        for at in range(len(ROLES)):
            labels = np.full_like(strip.grades, IGNORE)
            labels[background & (role_of == at)] = BACKGROUND
            labels[mine == at] = strip.grades[mine == at]
            made.append(labels)
        return made

    def _block_roles(self, number: int, strip: Strip, fold: int) -> Array:
        """Split of each background pixel by its block, int8 (H, W); -1 within half the buffer of a block of another split."""
        one, blocks = self.surveys[number], self.folds[fold].blocks
        x, y = metre_coordinates(one.reader.grid)
        rows = one.block_rows[strip.row : strip.row + len(strip.grades)]
        y = y[strip.row : strip.row + len(strip.grades)]
        half_pixel = float(np.hypot(*one.reader.grid.pixel_size)) / 2
        made = np.full(strip.grades.shape, -1, dtype=np.int8)
        for row in np.unique(rows).tolist():
            for column in np.unique(one.block_columns).tolist():
                role = blocks.get((self.systems[number], row, column))
                if role is None:
                    continue
                vertical, horizontal = np.flatnonzero(rows == row), np.flatnonzero(one.block_columns == column)
                place = np.s_[vertical[0] : vertical[-1] + 1, horizontal[0] : horizontal[-1] + 1]
                keep = np.ones((len(vertical), len(horizontal)), dtype=bool)
                for down, right in ((d, r) for d in (-1, 0, 1) for r in (-1, 0, 1) if d or r):
                    if blocks.get((self.systems[number], row + down, column + right), role) == role:
                        continue
                    reach = self.buffer_m / (1 if down and right else 2) + half_pixel
                    box = np.array([column + right, row + down, column + right + 1, row + down + 1]) * self.block_m
                    keep &= _squared_distance(box, x[place[1]], y[place[0]]) >= reach**2
                made[place] = np.where(keep, ROLES.index(role), -1)
        return made

    def _near_landslides(self, number: int, strip: Strip, fold: int, role_of: Array) -> Array:
        """Where a pixel is within the buffer of a kept landslide of another split than the pixel's: bool (H, W)."""
        one, kept = self.surveys[number], self.folds[fold].landslides
        x, y = metre_coordinates(one.reader.grid)
        y = y[strip.row : strip.row + len(strip.grades)]
        reach = self.buffer_m + float(np.hypot(*one.reader.grid.pixel_size)) / 2
        left, bottom, right, top = self.boxes.T
        near = (self.piece_system == self.systems[number]) & (left <= x[-1] + reach) & (right >= x[0] - reach)
        near &= (bottom <= y[0] + reach) & (top >= y[-1] - reach)
        found = np.zeros(strip.grades.shape, dtype=bool)
        for piece in np.flatnonzero(near).tolist():
            role = kept[self.landslide_of[piece]]
            if not role:
                continue
            box = self.boxes[piece]
            horizontal = np.flatnonzero((x >= box[0] - reach) & (x <= box[2] + reach))
            vertical = np.flatnonzero((y >= box[1] - reach) & (y <= box[3] + reach))
            if not len(horizontal) or not len(vertical):
                continue
            place = np.s_[vertical[0] : vertical[-1] + 1, horizontal[0] : horizontal[-1] + 1]
            close = _squared_distance(box, x[place[1]], y[place[0]]) < reach**2
            found[place] |= close & (role_of[place] != ROLES.index(role))
        return found


def _columns(grades: Sequence[str]) -> LabelColumns:
    """Columns of scenes.csv for a raster of grades; none where it holds 0, 1 and 255 without certainties."""
    if not any(grades):
        return NO_COLUMNS
    values = ";".join(f"{grade}={name}" if name else f"{grade}" for grade, name in enumerate(grades, start=LANDSLIDE))
    return LabelColumns(landslide_values=values, ignore_values=str(IGNORE))


def _squared_distance(box: Array, x: Array, y: Array) -> Array:
    """Squared distance from points of a grid to a box (left, bottom, right, top): float64 (len(y), len(x))."""
    across = np.maximum(np.maximum(box[0] - x, x - box[2]), 0)
    along = np.maximum(np.maximum(box[1] - y, y - box[3]), 0)
    return np.asarray(along[:, None] ** 2 + across[None] ** 2)
