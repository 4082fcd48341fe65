"""Split map: where the labelled ground of each split lies, in map coordinates; scenes of unknown place stand in a grid, and the map says so."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from datamodules.grid import Grid, same_crs
from datamodules.preview.drawing import SPLIT_COLOURS, SPLIT_HATCHES, SPLIT_LETTERS, new_figure, png, scale_bar
from datamodules.reading import SceneReader
from datamodules.scene import SPLITS
from datamodules.windows import index_windows

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Array = npt.NDArray[Any]
_PANEL: Final = 7.0
_AROUND: Final = 0.9
_LEGEND: Final = 0.4
_CELLS: Final = 48
_MAX_LETTERS: Final = 150


def split_map(readers: Sequence[SceneReader], tile_size: int) -> tuple[bytes, list[str]]:
    """Draw labelled ground in the colour, hatch and letter of its split, and the outline of every scene.

    Args:
        readers: One a scene.
        tile_size: Scenes of at most so many pixels a side are drawn whole, larger ones in cells of 1/48 of their longer side.

    Returns:
        PNG with a panel for each coordinate system, and sentences about what it cannot show.
    """
    from matplotlib.patches import Patch  # noqa: PLC0415 - nobody who only trains needs it

    groups, notes = _groups(readers), list[str]()
    offsets_of = [_offsets([readers[member].grid for member in members], placed) for _, members, placed in groups]
    heights = [
        _height([readers[member].grid for member in members], offsets) for (_, members, _), offsets in zip(groups, offsets_of, strict=True)
    ]
    total = sum(height + _AROUND for height in heights) + _LEGEND
    figure, top = new_figure(_PANEL + 1.2, total), total
    for (title, members, placed), offsets, height in zip(groups, offsets_of, heights, strict=True):
        top -= height + _AROUND
        axes = figure.add_axes((0.9 / (_PANEL + 1.2), (top + 0.55) / total, _PANEL / (_PANEL + 1.2), height / total))
        if not placed:
            notes.append(f"{len(members)} scenes have no known place: they stand in a grid, and distances between them mean nothing")
        _draw(axes, readers, members, offsets, tile_size)
        axes.set_title(title, fontsize=9)
        axes.set_aspect("equal")
        axes.margins(0.03)
        axes.tick_params(labelsize=7)
        axes.ticklabel_format(style="plain", useOffset=False)
        if placed:
            unit = readers[members[0]].grid.crs.linear_units
            axes.set_xlabel(f"x, {unit}", fontsize=8)
            axes.set_ylabel(f"y, {unit}", fontsize=8)
        else:
            axes.set_xticks([])
            axes.set_yticks([])
        left, right = axes.get_xlim()
        scale_bar(axes, (right - left) * readers[members[0]].grid.crs.linear_units_factor[1])
    present = [split for split in SPLITS if any(reader.scene.split == split for reader in readers)]
    handles = [Patch(facecolor=SPLIT_COLOURS[split], hatch=SPLIT_HATCHES[split], edgecolor="white", label=_counted(split, readers)) for split in present]  # fmt: skip
    figure.legend(handles=handles, loc="lower center", ncols=len(handles), fontsize=8, frameon=False)
    return png(figure), notes


def _counted(split: str, readers: Sequence[SceneReader]) -> str:
    """Legend of a split."""
    number = sum(reader.scene.split == split for reader in readers)
    return f"{SPLIT_LETTERS[split]} = {split} ({number} scene{'s' if number != 1 else ''})"


def _groups(readers: Sequence[SceneReader]) -> list[tuple[str, list[int], bool]]:
    """Title, scenes and whether the place is known, of each coordinate system."""
    groups: list[tuple[str, list[int], bool]] = []
    for number, reader in enumerate(readers):
        for _, members, _ in groups:
            if same_crs(readers[members[0]].grid.crs, reader.grid.crs):
                members.append(number)
                break
        else:
            crs = reader.grid.crs
            placed = reader.grid.placed
            code = crs.to_epsg()
            name = f"EPSG:{code}" if code else crs.to_wkt().split('"')[1]
            groups.append((name if placed else "place unknown: scenes in a grid, not where they lie", [number], placed))
    return groups


def _height(grids: Sequence[Grid], offsets: Array) -> float:
    """Inches of a panel as high as its scenes are, within reason."""
    bounds = np.array([grid.bounds for grid in grids]) + np.tile(offsets, 2)
    width, height = bounds[:, 2].max() - bounds[:, 0].min(), bounds[:, 3].max() - bounds[:, 1].min()
    return float(np.clip(_PANEL * height / width, 1.2, 1.4 * _PANEL))


def _offsets(grids: Sequence[Grid], placed: bool) -> Array:
    """Shifts (x, y) of scenes on the map, float64 (N, 2): none, or side by side in rows of about the square root of their number."""
    if placed:
        return np.zeros((len(grids), 2))
    across = int(np.ceil(np.sqrt(len(grids))))
    bounds = np.array([grid.bounds for grid in grids])
    step = 1.15 * np.array([(bounds[:, 2] - bounds[:, 0]).max(), (bounds[:, 3] - bounds[:, 1]).max()])
    row, column = np.divmod(np.arange(len(grids)), across)
    return np.column_stack([column * step[0] - bounds[:, 0], -row * step[1] - bounds[:, 3]])


def _labelled_boxes(reader: SceneReader, tile_size: int) -> list[Array]:
    """Boxes (4, 2) of the ground that a scene labels: the scene, or cells of which more than half is labelled."""
    grid = reader.grid
    longest = max(grid.height, grid.width)
    small = longest <= tile_size
    size = longest if small else max(-(-longest // _CELLS), 8)
    index = index_windows([reader], size, size, once=False)
    boxes = []
    # More than half: where blocks of two splits meet in a cell, it belongs to one of them.
    for at in np.flatnonzero(index.valid > (0 if small else 0.5)).tolist():
        row, column = int(index.row[at]), int(index.column[at])
        corner, to = grid.transform_at(row, column), grid.transform_at(min(row + size, grid.height), min(column + size, grid.width))
        boxes.append(_box(corner.c, to.f, to.c, corner.f))
    return boxes


def _draw(axes: "Axes", readers: Sequence[SceneReader], members: list[int], offsets: Array, tile_size: int) -> None:
    """Labelled ground, or whole scenes to predict, as hatched boxes; outlines of all scenes; letters where there is room."""
    from matplotlib.collections import PolyCollection  # noqa: PLC0415 - as above

    boxes: dict[str, list[Array]] = {split: [] for split in SPLITS}
    outlines, letters = list[Array](), list[tuple[Array, str]]()
    for member, offset in zip(members, offsets, strict=True):
        reader, grid = readers[member], readers[member].grid
        split = reader.scene.split
        whole = _box(*grid.bounds) + offset
        outlines.append(whole)
        shown = [whole] if split == "predict" else [box + offset for box in _labelled_boxes(reader, tile_size)]
        boxes[split] += shown
        if shown:
            letters.append((shown[len(shown) // 2].mean(axis=0), SPLIT_LETTERS[split]))
    for split, shapes in boxes.items():
        if shapes:
            axes.add_collection(
                PolyCollection(
                    shapes, facecolors=SPLIT_COLOURS[split], edgecolors="white", hatch=SPLIT_HATCHES[split], linewidths=0.3, alpha=0.75
                )
            )
    axes.add_collection(PolyCollection(outlines, facecolors="none", edgecolors="black", linewidths=0.6))
    axes.autoscale_view()
    if len(letters) <= _MAX_LETTERS:
        for place, letter in letters:
            box = {"facecolor": "white", "alpha": 0.8, "pad": 1, "edgecolor": "none"}
            axes.text(float(place[0]), float(place[1]), letter, fontsize=8, ha="center", va="center", bbox=box)


def _box(left: float, bottom: float, right: float, top: float) -> Array:
    """Corners of a box, float64 (4, 2)."""
    return np.array([(left, bottom), (right, bottom), (right, top), (left, top)])
