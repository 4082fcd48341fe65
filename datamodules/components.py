"""Landslides of scenes as whole objects: 8-connected pieces found strip by strip, joined across strips, scenes and polygons.

Memory does not grow with the height of a scene, since labels are read by strips; what stays are counts and boxes of pieces.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import shapely
from scipy.ndimage import find_objects
from scipy.ndimage import label as label_components
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from datamodules.batch import IGNORE, LANDSLIDE
from datamodules.grid import Grid, same_crs
from datamodules.polygons import VECTOR_SUFFIXES, LabelPolygons
from datamodules.reading import SceneReader

Array = npt.NDArray[Any]
STRIP_ROWS: Final = 256
_EIGHT: Final = np.ones((3, 3), dtype=np.uint8)


@dataclass(frozen=True)
class Strip:
    """A strip of labels.

    Args:
        row: First row.
        mask: uint8 (H, W): 0, 1, 255; 255 also where the image has no data.
        pieces: int32 (H, W): number of the landslide piece in the scene, from 0; -1 = no landslide.
    """

    row: int
    mask: Array
    pieces: Array


def labelled(reader: SceneReader, row: int, column: int, height: int, width: int) -> Array:
    """Labels of a window, uint8 (height, width), 255 where there is no label or no image."""
    mask = reader.label(row, column, height, width)
    missing = reader.image(row, column, height, width)[1]
    if missing is not None:
        mask[missing] = IGNORE
    return mask


def strips(reader: SceneReader) -> Iterator[Strip]:
    """The labels of a scene from top to bottom; pieces are numbered alike in each pass, and end at the strip."""
    done = 0
    for row in range(0, reader.grid.height, STRIP_ROWS):
        mask = labelled(reader, row, 0, min(STRIP_ROWS, reader.grid.height - row), reader.grid.width)
        pieces, number = label_components(mask == LANDSLIDE, structure=_EIGHT)
        pieces = pieces.astype(np.int32) - 1
        pieces[pieces >= 0] += done
        done += number
        yield Strip(row, mask, pieces)


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
    above: Array | None = None
    for strip in strips(reader):
        block = rows[strip.row : strip.row + len(strip.mask), None] * across + columns[None]
        counts += np.bincount(block[strip.mask != IGNORE], minlength=len(counts))
        found = strip.pieces >= 0
        if found.any():
            pairs, pixels = np.unique(np.stack([strip.pieces[found], block[found]]), axis=1, return_counts=True)
            by_block.append(np.column_stack([pairs[0], pairs[1] // across + first_row, pairs[1] % across + first_column, pixels]))
            for place in find_objects(np.where(found, strip.pieces - len(boxes) + 1, 0)):
                top, left = place[0].start + strip.row, place[1].start
                bottom, right = place[0].stop + strip.row - 1, place[1].stop - 1
                boxes.append((x[left] - half_x, y[bottom] - half_y, x[right] + half_x, y[top] + half_y))
        if above is not None:
            joins.append(_touching(above, strip.pieces[0]))
        above = strip.pieces[-1]
    labelled_pixels = {(int(at) // across + first_row, int(at) % across + first_column): int(counts[at]) for at in np.flatnonzero(counts)}
    reader.close()
    return Survey(
        reader,
        block_columns,
        block_rows,
        labelled_pixels,
        np.concatenate(by_block) if by_block else np.empty((0, 4), dtype=np.int64),
        np.array(boxes, dtype=np.float64).reshape(-1, 4),
        np.concatenate([np.empty((0, 2), dtype=np.int64), *joins]),
    )


def _touching(above: Array, below: Array) -> Array:
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

    Pieces are one where they touch across a strip, where one polygon reaches both, and where the boxes of pieces of two scenes of one
    coordinate system touch: rather two landslides kept together than one cut.

    Returns:
        int64 (pieces of all scenes in order): number of the landslide, from 0.
    """
    starts = np.cumsum([0, *(len(one.boxes) for one in surveys)])
    joins = [one.joins + start for one, start in zip(surveys, starts, strict=False)]
    for one, start in zip(surveys, starts, strict=False):
        label = one.reader.scene.label
        if label is not None and label.suffix.lower() in VECTOR_SUFFIXES and len(one.boxes):
            joins.append(_of_one_polygon(LabelPolygons(label, one.reader.grid), one) + start)
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


def _of_one_polygon(polygons: LabelPolygons, one: Survey) -> Array:
    """Pairs of pieces that one polygon reaches, as where its neck is thinner than a pixel."""
    factor = one.reader.grid.crs.linear_units_factor[1]
    polygon, piece = shapely.STRtree(shapely.box(*(one.boxes / factor).T)).query(polygons.shapes, predicate="intersects")
    order = np.lexsort((piece, polygon))
    polygon, piece = polygon[order], piece[order]
    same = polygon[1:] == polygon[:-1]
    return np.column_stack([piece[:-1][same], piece[1:][same]]).astype(np.int64)
