"""Splits in which each scene is in one split as a whole: by scene, by a column of the manifest, or one region left out."""

import csv
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import shapely
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from datamodules.components import Survey, systems, whole_landslides
from datamodules.duplicates import copied_pairs
from datamodules.errors import UserError
from datamodules.folds import ROLES, balanced_folds, roles_of_folds
from datamodules.scene import MANIFEST, Scene, write_manifest

Array = npt.NDArray[Any]


def split_by_scene(
    root: Path,
    out: Path,
    surveys: Sequence[Survey],
    predicted: Sequence[Scene],
    by: str,
    column: str,
    buffer_m: float,
    folds: int,
    seed: int,
    copies_together: bool = False,
) -> list[dict[str, Any]]:
    """Write manifests in which each scene is in one split as a whole.

    Args:
        root: Of the data set.
        out: Folder for foldN/scenes.csv.
        surveys: One a labelled scene.
        predicted: Scenes that all manifests list as they are.
        by: "scene", "column" or "region".
        column: Whose values keep scenes together; for "region" it is the region.
        buffer_m: Metres; nearer scenes stay together, for "scene".
        folds: Number of folds; for "region" there are as many as regions.
        seed: Of ties.
        copies_together: Scenes that show one picture stay together too, for "scene".

    Returns:
        One entry a fold.

    Raises:
        UserError: Too few units, an empty value, or a landslide in scenes that the column sets apart.
    """
    scenes = [one.reader.scene for one in surveys]
    landslide, holder = _landslides(surveys)
    pieces = [np.bincount(one.piece_blocks[:, 0], one.piece_blocks[:, 3], len(one.boxes)) for one in surveys]
    pixels_of = np.bincount(landslide, np.concatenate(pieces))
    # Pixels alone would let one large landslide be all that a split has.
    held = np.array([len(np.unique(landslide[holder == number])) for number in range(len(surveys))])
    counts = np.array([[sum(one.labelled.values()), one.piece_blocks[:, 3].sum()] for one in surveys], dtype=np.float64)
    counts = np.column_stack([counts, held])
    shared = _sharing(landslide, holder)
    column = "region" if by == "region" else column
    together = np.concatenate([shared, copied_pairs([one.reader for one in surveys])]) if copies_together else shared
    keys = list(map(str, _near(surveys, buffer_m, together))) if by == "scene" else _values(root, scenes, column)
    for one, other in shared.tolist():
        if keys[one] != keys[other]:
            raise UserError(
                f"a landslide reaches from scene {scenes[one].name} ({keys[one]}) into {scenes[other].name} ({keys[other]})",
                "give both one value, or split by scene or by blocks",
                file=root,
                field=column,
            )
    names, unit = np.unique(keys, return_inverse=True)
    sizes = np.zeros((len(names), counts.shape[1]))
    np.add.at(sizes, unit, counts)
    if by == "region":
        folds = len(names)
        if folds < 3:
            raise UserError(f"names {folds} regions", "train, val and test need one each", file=root, field="region")
    assigned = np.arange(folds) if by == "region" else balanced_folds(sizes, folds, seed)
    summary = []
    for fold in range(folds):
        roles = np.array(roles_of_folds(assigned, folds, fold))[unit]
        folder = out / f"fold{fold}"
        folder.mkdir()
        rows = [replace(scene, split=str(role)) for scene, role in zip(scenes, roles, strict=True)]
        write_manifest([*rows, *predicted], folder / MANIFEST)
        entry: dict[str, Any] = (
            {"fold": fold, "tests": [str(name) for name in names[assigned == fold]]} if by != "scene" else {"fold": fold}
        )
        for role in ROLES:
            labelled, pixels, _ = counts[roles == role].sum(axis=0).astype(int).tolist()
            found = np.unique(landslide[roles[holder] == role])
            entry[role] = {"scenes": int((roles == role).sum()), "labelled": labelled, "landslide": pixels}
            entry[role] |= {"landslides": len(found), "largest": int(pixels_of[found].max(initial=0))}
        summary.append(entry)
    return summary


def _values(root: Path, scenes: Sequence[Scene], column: str) -> list[str]:
    """Values of one column of the manifest, one a scene.

    Raises:
        UserError: No manifest, no such column, or an empty value.
    """
    manifest = root / MANIFEST if root.is_dir() else root
    if not manifest.is_file():
        raise UserError("is a folder without scenes.csv", "make one with `zoo-data index` and fill the column", file=root, field=column)
    with manifest.open(encoding="utf-8-sig", newline="") as stream:
        rows = {(row.get("scene") or "").strip(): (row.get(column) or "").strip() for row in csv.DictReader(stream)}
    for scene in scenes:
        if not rows.get(scene.name):
            raise UserError("is missing or empty", f"fill the column for scene {scene.name}", file=manifest, field=column)
    return [rows[scene.name] for scene in scenes]


def _landslides(surveys: Sequence[Survey]) -> tuple[Array, Array]:
    """Landslide and scene of each piece of one, int64 (pieces)."""
    landslide = whole_landslides(surveys, systems([one.reader for one in surveys]))
    return landslide, np.repeat(np.arange(len(surveys)), [len(one.boxes) for one in surveys])


def _sharing(landslide: Array, scene: Array) -> Array:
    """Pairs of scenes that hold parts of one landslide, int64 (N, 2)."""
    held = np.unique(np.column_stack([landslide, scene]), axis=0)
    same = held[1:, 0] == held[:-1, 0]
    return np.column_stack([held[:-1, 1][same], held[1:, 1][same]])


def _near(surveys: Sequence[Survey], buffer_m: float, together: Array) -> Array:
    """Group of each scene: scenes of one coordinate system within the buffer or that are to stay together, by way of others too."""
    numbers = np.array(systems([one.reader for one in surveys]))
    factors = [one.reader.grid.crs.linear_units_factor[1] for one in surveys]
    shapes = [shapely.box(*(np.array(one.reader.grid.bounds) * factor)) for one, factor in zip(surveys, factors, strict=True)]
    pairs = shapely.STRtree(shapes).query(shapes, predicate="dwithin", distance=buffer_m)
    pairs = np.concatenate([pairs[:, numbers[pairs[0]] == numbers[pairs[1]]], together.T], axis=1)
    graph = coo_array((np.ones(pairs.shape[1], dtype=np.int8), tuple(pairs)), shape=(len(surveys), len(surveys)))
    return np.asarray(connected_components(graph, directed=False)[1])
