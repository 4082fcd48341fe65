"""Score histograms of tiles -> confusion counts of the units that the bootstrap draws.

Neighbouring windows of a scene show the same slope, often the same landslide; drawn one by one they would pass for more evidence than
they are. A unit is therefore a block of windows, and never spans scenes unless their names say where in a grid they lie.
"""

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from benchmarks.blocks import Blocks
from datamodules.errors import UserError

Counts = np.ndarray[Any, np.dtype[np.int64]]


@dataclass(frozen=True)
class UnitCounts:
    """Confusion counts of one run."""

    units: tuple[str, ...]
    """Sorted names."""
    counts: Counts
    """(units, 3) true positives, false positives, false negatives."""
    tiles: tuple[str, ...]
    """Sorted; what was tested."""


def unit_counts(histograms: Mapping[str, Counts], threshold: float, blocks: Blocks) -> UnitCounts:
    """Add the tiles of each unit up.

    Args:
        histograms: Tile `scene:row:column` -> (2, 256), see `zoo.metrics.pixels`.
        threshold: Decision threshold k / 256 on the probability.
        blocks: What a unit is.
    """
    tiles = sorted(histograms)
    names = unit_names(tiles, blocks)
    units = sorted(set(names))
    place = {name: index for index, name in enumerate(units)}
    counts = np.zeros((len(units), 3), np.int64)
    for tile, name in zip(tiles, names, strict=True):
        background, landslide = histograms[tile]
        edge = math.ceil(threshold * len(landslide) - 1e-9)  # as in zoo.metrics.pixels.confusion
        counts[place[name]] += landslide[edge:].sum(), background[edge:].sum(), landslide[:edge].sum()
    return UnitCounts(tuple(units), counts, tuple(tiles))


def unit_names(tiles: Sequence[str], blocks: Blocks) -> list[str]:
    """The unit of each tile.

    Args:
        tiles: `scene:row:column` with pixel offsets.
        blocks: What a unit is.

    Raises:
        UserError: `blocks.scenes` does not fit the name of a scene.
    """
    places = []
    for tile in tiles:
        scene, row, column = tile.rsplit(":", 2)
        places.append((scene, int(row), int(column)))
    if blocks.scenes is not None:
        return [_grid_block(scene, blocks.scenes, blocks.side) for scene, _, _ in places]
    row_step = _step((scene, row) for scene, row, _ in places) * blocks.side
    column_step = _step((scene, column) for scene, _, column in places) * blocks.side
    return [f"{scene}:{row // row_step}:{column // column_step}" for scene, row, column in places]


def _grid_block(scene: str, pattern: str, side: int) -> str:
    found = re.search(pattern, scene)
    if found is None:
        remedy = "correct blocks.scenes of the suite, or remove it: then each tile is a unit"
        raise UserError(f"does not fit the scene {scene!r}", remedy, field="blocks.scenes", value=pattern)
    # What stands around the place (a region, a site) keeps equal places in other grids apart.
    around = scene[: found.start()] + scene[found.end() :]
    return f"{around}:{int(found['row']) // side}:{int(found['column']) // side}"


def _step(offsets: Iterable[tuple[str, int]]) -> int:
    """Pixels from window to window: the commonest distance, since the last window of a scene may be shifted to end with it."""
    lines: dict[str, set[int]] = {}
    for scene, offset in offsets:
        lines.setdefault(scene, set()).add(offset)
    gaps = Counter(b - a for values in lines.values() for a, b in pairwise(sorted(values)))
    return min(gaps, key=lambda gap: (-gaps[gap], gap)) if gaps else 1
