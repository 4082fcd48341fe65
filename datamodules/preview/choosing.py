"""Which windows the contact sheet shows: half with landslides, half without, from all splits in turn, by seed."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from datamodules.reading import SceneReader
from datamodules.windows import WindowIndex

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class View:
    """One window of the sheet: scene (position in the list), upper left pixel, size in pixels, within the scene."""

    scene: int
    row: int
    column: int
    height: int
    width: int


def choose(
    readers: Sequence[SceneReader], index: WindowIndex, *, tile_size: int, number: int, splits: Sequence[str], seed: int
) -> list[View]:
    """Choose windows.

    Args:
        readers: One a scene.
        index: Windows, counting all their pixels.
        tile_size: Pixels of a window.
        number: How many; fewer where there are fewer.
        splits: Allowed splits; () = all.
        seed: The same seed gives the same windows.

    Returns:
        Windows with landslides, then windows without, then unlabelled ones where nothing else is left. Of those that hold a label,
        windows with more than half their pixels labelled go first.
    """
    split = np.array([reader.scene.split for reader in readers])[index.scene]
    allowed = np.isin(split, splits) if splits else np.ones(len(index), dtype=bool)
    order = np.random.default_rng(seed).permutation(len(index))
    order = order[allowed[order]]

    def in_turn(group: Array) -> list[int]:
        """One window of each split after another; fuller ones first."""
        turn = np.zeros(len(group), dtype=np.int64)
        full = index.valid[group] <= min(0.5, float(index.valid[group].max(initial=0)) / 2)
        group = group[np.argsort(full, kind="stable")]
        for name in dict.fromkeys(split[group].tolist()):
            members = np.flatnonzero(split[group] == name)
            turn[members] = np.arange(len(members))
        return [int(at) for at in group[np.argsort(turn, kind="stable")]]

    labelled = index.valid[order] > 0
    some = in_turn(order[labelled & (index.landslide[order] > 0)])
    none = in_turn(order[labelled & (index.landslide[order] == 0)])
    rest = in_turn(order[~labelled])
    with_landslide = some[: max(number - len(none), (number + 1) // 2)]
    without = none[: number - len(with_landslide)]
    chosen = [*with_landslide, *without, *rest[: number - len(with_landslide) - len(without)]]
    views = []
    for at in chosen:
        grid, row, column = readers[int(index.scene[at])].grid, int(index.row[at]), int(index.column[at])
        views.append(View(int(index.scene[at]), row, column, min(tile_size, grid.height - row), min(tile_size, grid.width - column)))
    return views
