"""Landslides of scenes as whole objects: 8-connected pieces found strip by strip, joined across strips, gaps, scenes and polygons.

Landslides of every certainty count, those that training ignores too. Where ignored pixels cut a landslide, as a band along uncertain
boundaries does at a neck, its parts are one: ignored pixels within half of `GAP_M` of a landslide connect. So two parts are one
object where only ignored pixels lie between them, up to a gap of that width.

Memory does not grow with the height of a scene, since labels are read by strips; what stays are counts and boxes of pieces.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import shapely
from scipy.ndimage import find_objects
from scipy.ndimage import label as label_components
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from datamodules.classes import BACKGROUND, IGNORE
from datamodules.grid import Grid, same_crs
from datamodules.labels import within
from datamodules.polygons import LabelPolygons
from datamodules.reading import SceneReader

Array = npt.NDArray[Any]
STRIP_ROWS: Final = 256
GAP_M: Final = 100.0
EIGHT: Final = np.ones((3, 3), dtype=np.uint8)


@dataclass(frozen=True)
class Strip:
    """A strip of labels.

    Args:
        row: First row.
        grades: uint8 (H, W): 0 background, 1 and up landslide by certainty, 255 ignore; 255 also where the image has no data.
        pieces: int32 (H, W): number of the landslide piece in the scene, from 0; -1 = no landslide.
        areas: int32 (H, W): number in the scene of the connected area of landslide and of ignored pixels near it, from 0; else -1.
    """

    row: int
    grades: Array
    pieces: Array
    areas: Array


def labelled(reader: SceneReader, row: int, column: int, height: int, width: int) -> Array:
    """Labels of a window, uint8 (height, width), 255 where there is no label or no image."""
    mask = reader.label(row, column, height, width)
    missing = reader.image(row, column, height, width)[1]
    if missing is not None:
        mask[missing] = IGNORE
    return mask


def graded(reader: SceneReader, row: int, column: int, height: int, width: int) -> Array:
    """Grades of a window, uint8 (height, width), as `Strip` has them."""
    labels = reader.opened_labels()
    missing = reader.image(row, column, height, width)[1]
    if labels is None:
        return np.full((height, width), IGNORE, dtype=np.uint8)
    grades = labels.grades_at(row, column, height, width)
    if missing is not None:
        grades[missing] = IGNORE
    return grades


def is_landslide(grades: Array) -> Array:
    """Where grades are those of landslides of any certainty, bool."""
    return np.asarray((grades != BACKGROUND) & (grades != IGNORE))


def strips(reader: SceneReader) -> Iterator[Strip]:
    """The labels of a scene from top to bottom; pieces and areas are numbered alike in each pass, and end at the strip."""
    grid, done, done_areas = reader.grid, 0, 0
    margin = int(GAP_M / 2 / grid.pixel_size[1]) + 1
    for row in range(0, grid.height, STRIP_ROWS):
        height, top = min(STRIP_ROWS, grid.height - row), min(row, margin)
        wide = graded(reader, row - top, 0, min(top + height + margin, grid.height - row + top), grid.width)
        place = np.s_[top : top + height]
        found, grades = is_landslide(wide), wide[place]
        linked = found | ((wide == IGNORE) & within(found, GAP_M / 2, grid.pixel_size)) if found.any() else found
        landslide = found[place]
        areas, number = label_components(linked[place], structure=EIGHT)
        held = np.unique(areas[landslide])
        piece_of = np.full(number + 1, -1, dtype=np.int32)
        piece_of[held] = np.arange(done, done + len(held))
        yield Strip(
            row, grades, np.where(landslide, piece_of[areas], -1), np.where(areas > 0, areas + (done_areas - 1), -1).astype(np.int32)
        )
        done, done_areas = done + len(held), done_areas + number


def metre_coordinates(grid: Grid) -> tuple[Array, Array]:
    """Pixel centres in metres along the map axes: x float64 (W), y float64 (H)."""
    factor = grid.crs.linear_units_factor[1]
    at = grid.transform
    return (at.c + (np.arange(grid.width) + 0.5) * at.a) * factor, (at.f + (np.arange(grid.height) + 0.5) * at.e) * factor


@dataclass(frozen=True)
class Survey:
    """What one scene holds, by block.

    Args:
        reader: The scene.
        block_columns, block_rows: int64 (W), (H), block of each column and row of pixels.
        labelled: (row, column) of a block -> labelled pixels.
        piece_blocks: Rows (piece, block row, block column, pixels), int64 (N, 4).
        boxes: float64 (pieces, 4): left, bottom, right, top in metres, outer edges of pixels.
        joins: int64 (M, 2), pieces that are one landslide.
    """

    reader: SceneReader
    block_columns: Array
    block_rows: Array
    labelled: dict[tuple[int, int], int]
    piece_blocks: Array
    boxes: Array
    joins: Array


def survey(reader: SceneReader, block_m: float) -> Survey:
    """Read the labels of one scene once; blocks of `block_m` metres start at the origin of the coordinate system."""
    x, y = metre_coordinates(reader.grid)
    block_columns, block_rows = np.floor(x / block_m).astype(np.int64), np.floor(y / block_m).astype(np.int64)
    first_column, first_row = int(block_columns.min()), int(block_rows.min())
    columns, rows = block_columns - first_column, block_rows - first_row
    across = int(columns.max()) + 1
    half_x, half_y = reader.grid.pixel_size[0] / 2, reader.grid.pixel_size[1] / 2
    counts = np.zeros(across * (int(rows.max()) + 1), dtype=np.int64)
    by_block: list[Array] = []
    boxes: list[tuple[float, float, float, float]] = []
    joins: list[Array] = []
    homes: list[Array] = []  # area of each piece
    above: Array | None = None
    for strip in strips(reader):
        block = rows[strip.row : strip.row + len(strip.grades), None] * across + columns[None]
        counts += np.bincount(block[strip.grades != IGNORE], minlength=len(counts))
        found = strip.pieces >= 0
        if found.any():
            homes.append(strip.areas[found][np.unique(strip.pieces[found], return_index=True)[1]])
            pairs, pixels = np.unique(np.stack([strip.pieces[found], block[found]]), axis=1, return_counts=True)
            by_block.append(np.column_stack([pairs[0], pairs[1] // across + first_row, pairs[1] % across + first_column, pixels]))
            for place in find_objects(np.where(found, strip.pieces - len(boxes) + 1, 0)):
                top, left = place[0].start + strip.row, place[1].start
                bottom, right = place[0].stop + strip.row - 1, place[1].stop - 1
                boxes.append((x[left] - half_x, y[bottom] - half_y, x[right] + half_x, y[top] + half_y))
        if above is not None:
            joins.append(touching(above, strip.areas[0]))
        above = strip.areas[-1]
    labelled_pixels = {(int(at) // across + first_row, int(at) % across + first_column): int(counts[at]) for at in np.flatnonzero(counts)}
    reader.close()
    return Survey(
        reader,
        block_columns,
        block_rows,
        labelled_pixels,
        np.concatenate(by_block) if by_block else np.empty((0, 4), dtype=np.int64),
        np.array(boxes, dtype=np.float64).reshape(-1, 4),
        _of_one_area(np.concatenate([np.empty((0, 2), dtype=np.int64), *joins]), np.concatenate([np.empty(0, dtype=np.int64), *homes])),
    )


def _of_one_area(touching: Array, homes: Array) -> Array:
    """Pairs of pieces whose areas touch, by way of other areas too: int64 (M, 2).

    Args:
        touching: Pairs of areas, int64 (N, 2).
        homes: Area of each piece.
    """
    if not len(homes):
        return np.empty((0, 2), dtype=np.int64)
    number = int(max(homes.max(), touching.max(initial=0))) + 1
    graph = coo_array((np.ones(len(touching), dtype=np.int8), (touching[:, 0], touching[:, 1])), shape=(number, number))
    whole = connected_components(graph, directed=False)[1][homes]
    order = np.argsort(whole, kind="stable")
    same = whole[order[1:]] == whole[order[:-1]]
    return np.column_stack([order[:-1][same], order[1:][same]]).astype(np.int64)


def touching(above: Array, below: Array) -> Array:
    """Pairs of pieces that touch, also by corners, across the border of two strips: int64 (N, 2)."""
    pairs = []
    for shift in (-1, 0, 1):
        upper = above[max(-shift, 0) : len(above) - max(shift, 0)]
        lower = below[max(shift, 0) : len(below) - max(-shift, 0)]
        both = (upper >= 0) & (lower >= 0)
        pairs.append(np.column_stack([upper[both], lower[both]]))
    return np.unique(np.concatenate(pairs), axis=0).astype(np.int64)


def systems(readers: Sequence[SceneReader]) -> list[int]:
    """Number of the coordinate system of each scene; scenes of one system have one number."""
    known: list[Grid] = []
    numbers = []
    for reader in readers:
        match = next((number for number, grid in enumerate(known) if same_crs(grid.crs, reader.grid.crs)), len(known))
        if match == len(known):
            known.append(reader.grid)
        numbers.append(match)
    return numbers


def whole_landslides(surveys: Sequence[Survey], crs_numbers: Sequence[int]) -> Array:
    """Which pieces are one landslide.

    Pieces are one where their areas touch across a strip, where one polygon reaches both, and where the boxes of pieces of two scenes of one
    coordinate system touch: rather two landslides kept together than one cut.

    Returns:
        int64 (pieces of all scenes in order): number of the landslide, from 0.
    """
    starts = np.cumsum([0, *(len(one.boxes) for one in surveys)])
    joins = [one.joins + start for one, start in zip(surveys, starts, strict=False)]
    joins.append(_of_one_polygon(surveys, starts))
    boxes = np.concatenate([one.boxes for one in surveys])
    scene = np.repeat(np.arange(len(surveys)), [len(one.boxes) for one in surveys])
    for number in set(crs_numbers):
        members = np.flatnonzero(np.asarray(crs_numbers)[scene] == number) if len(scene) else np.empty(0, dtype=np.int64)
        shapes = shapely.box(*boxes[members].T)
        slack = max(max(one.reader.grid.pixel_size) for one in surveys) * 1e-3
        pairs = shapely.STRtree(shapes).query(shapes, predicate="dwithin", distance=slack) if len(members) else np.empty((2, 0), np.int64)
        one_way, other_way = members[pairs[0]], members[pairs[1]]
        apart = scene[one_way] != scene[other_way]
        joins.append(np.column_stack([one_way[apart], other_way[apart]]))
    edges = np.concatenate(joins).astype(np.int64)
    graph = coo_array((np.ones(len(edges), dtype=np.int8), (edges[:, 0], edges[:, 1])), shape=(len(boxes), len(boxes)))
    return np.asarray(connected_components(graph, directed=False)[1] if len(boxes) else np.empty(0), dtype=np.int64)


def _of_one_polygon(surveys: Sequence[Survey], starts: Array) -> Array:
    """Pairs of pieces that one polygon reaches, as where its neck is thinner than a pixel, or where it goes on in the next scene."""
    file_of: dict[tuple[Path, str], int] = {}
    found = [np.empty((0, 3), dtype=np.int64)]  # file, polygon, piece
    for one, start in zip(surveys, starts, strict=False):
        scene = one.reader.scene
        labels = one.reader.opened_labels() if len(one.boxes) and scene.label else None
        if labels is not None and isinstance(labels.source, LabelPolygons) and scene.label:
            factor = one.reader.grid.crs.linear_units_factor[1]
            boxes = shapely.STRtree(shapely.box(*(one.boxes / factor).T))
            polygon, piece = boxes.query(labels.source.shapes, predicate="intersects")
            file = file_of.setdefault((scene.label.resolve(), scene.labels.label_layer), len(file_of))
            found.append(np.column_stack([np.full(len(polygon), file), polygon, piece + start]))
        one.reader.close()
    reached = np.concatenate(found)
    reached = reached[np.lexsort(reached.T[::-1])]
    same = (reached[1:, :2] == reached[:-1, :2]).all(axis=1)
    return np.column_stack([reached[:-1, 2][same], reached[1:, 2][same]])
