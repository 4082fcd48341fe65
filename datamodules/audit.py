"""Audit of a data set: do its splits leak, and can all of its files be read?

Leaks, which fail the audit: ground that is labelled in two splits; a landslide in two splits (landslide pixels of both overlap or
touch, by at most one pixel); windows of two splits with equal pixels; and pictures in two splits that are copies of each other, also
shifted, turned or mirrored (see `datamodules.duplicates`). Windows of 128 pixels that lie in a grid from the upper left corner and hold a
label are compared. Windows on the same ground are compared by their labels alone.
"""

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

import numpy as np
import numpy.typing as npt
import shapely
from pyproj.exceptions import ProjError
from rasterio.crs import CRS
from scipy.ndimage import binary_dilation
from scipy.spatial import cKDTree

from datamodules.classes import IGNORE, LANDSLIDE
from datamodules.components import labelled
from datamodules.duplicates import MARGIN, Anchors, find_anchors, find_copies
from datamodules.errors import UserError
from datamodules.findings import REMEDIES, AuditReport, Finding
from datamodules.grid import Grid, same_crs, transform_points
from datamodules.label_raster import LabelRaster
from datamodules.label_rules import DEFAULT_RULES, LabelRules
from datamodules.overrides import REFUSE
from datamodules.polygons import LabelPolygons
from datamodules.reading import SceneReader
from datamodules.registration import ResidualShift, residual_shift
from datamodules.scene import Scene

Array = npt.NDArray[Any]
Value = TypeVar("Value", int, str)
WINDOW: Final = 128
CELL: Final = 32
_MAX_PAIRS: Final = 2000
_WHOLE: Final = 0.99


@dataclass
class _Inventory:
    """Labelled cells and windows of one scene: places (row, column), boxes of labels in metres, contents, anchors."""

    reader: SceneReader
    cells: list[tuple[int, int]] = field(default_factory=list)
    boxes: list[tuple[float, float, float, float]] = field(default_factory=list)
    windows: list[tuple[int, int]] = field(default_factory=list)
    contents: list[bytes] = field(default_factory=list)
    anchors: list[Anchors] = field(default_factory=list)
    labels: int = 0
    landslide: int = 0
    pixels: int = 0
    without_dem: int = 0
    shift: ResidualShift | None = None


def _take_stock(scene: Scene, first: SceneReader | None, rules: LabelRules) -> _Inventory:
    """Read a scene once, window by window; boxes are in the coordinate system of the first scene."""
    reader = SceneReader(scene, None, 0, "bilinear", rules)
    made, grid = _Inventory(reader), reader.grid
    # A scene of unknown place lies far from all others: its coordinates are compared as they are.
    target = first.grid.crs if first and grid.placed else grid.crs
    for row in range(0, grid.height, WINDOW):
        for column in range(0, grid.width, WINDOW):
            size = min(WINDOW, grid.height - row), min(WINDOW, grid.width - column)
            mask = labelled(reader, row, column, *size)
            dem, absent = reader.dem(row, column, *size), reader.image(row, column, *size)[1]
            present = np.ones(size, dtype=bool) if absent is None else ~absent
            made.pixels += int(present.sum())
            made.without_dem += int((present & np.isnan(dem)).sum())
            if (mask == IGNORE).all():
                continue
            made.labels += int((mask != IGNORE).sum())
            made.landslide += int((mask == LANDSLIDE).sum())
            wide, missing = reader.image(row - MARGIN, column - MARGIN, size[0] + 2 * MARGIN, size[1] + 2 * MARGIN)
            image = np.ascontiguousarray(wide[MARGIN:-MARGIN, MARGIN:-MARGIN])
            if (image != image[:1, :1]).any():  # windows of one value, such as water, are alike without being copies
                made.windows.append((row, column))
                made.contents.append(hashlib.sha256(f"{image.shape}{image.dtype}".encode() + image.tobytes()).digest())
                made.anchors.append(find_anchors(wide, missing, row, column))
            for top in range(0, size[0], CELL):
                for left in range(0, size[1], CELL):
                    rows, columns = np.nonzero(mask[top : top + CELL, left : left + CELL] != IGNORE)
                    if not len(rows):
                        continue
                    corner, other = (
                        (row + top + rows.min(), column + left + columns.min()),
                        (row + top + rows.max(), column + left + columns.max()),
                    )
                    at, to = grid.transform_at(*corner), grid.transform_at(other[0] + 1, other[1] + 1)
                    bounds = at.c, to.f, to.c, at.f
                    if not same_crs(grid.crs, target):
                        bounds = _bounds_in(grid, target, bounds)
                    made.cells.append((row + top, column + left))
                    made.boxes.append(tuple(np.array(bounds) * target.linear_units_factor[1]))
    made.shift = residual_shift(reader)
    reader.close()
    return made


def _bounds_in(grid: Grid, target: CRS, bounds: Sequence[float]) -> tuple[float, float, float, float]:
    """A small box of a scene in another coordinate system: that of its corners.

    Raises:
        UserError: The systems have no place in common.
    """
    left, bottom, right, top = bounds
    try:
        x, y = transform_points(grid.crs, target, [left, right, left, right], [bottom, bottom, top, top])
    except ProjError:
        x = y = np.array([np.inf])
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        raise UserError(
            "cannot be brought into the coordinate system of the scenes before it, so that distances cannot be told",
            "check the system, or keep scenes of different planets in manifests of their own",
            field="crs",
            value=str(grid.crs)[:60],
        )
    return float(x.min()), float(y.min()), float(x.max()), float(y.max())


def audit(scenes: Sequence[Scene], *, near_m: float = 500.0, rules: LabelRules = DEFAULT_RULES) -> AuditReport:
    """Audit a data set; files are read window by window.

    Args:
        scenes: All scenes; those of split "predict" are only read.
        near_m: Pairs of scenes of different splits nearer than this, in metres, are a warning.
        rules: How labels are read.

    Returns:
        The report; nothing is raised for what is wrong with the data.
    """
    report, stock = AuditReport(), list[_Inventory]()
    bands: dict[str, int] = {}
    types: dict[str, str] = {}
    for scene in scenes:
        try:
            made = _take_stock(scene, next((one.reader for one in stock if one.reader.grid.placed), None), rules)
            _label(report, made)
        except UserError as error:
            report.findings.append(Finding("error", "unreadable", (scene.name,), error.problem, error.remedy or REMEDIES["unreadable"]))
            continue
        if not made.pixels:
            report.add("error", "image", (scene.name,), f"{scene.image}: has no data anywhere")
        _alignment(report, made)
        bands[scene.name], types[scene.name] = made.reader.num_bands, made.reader.image_dtype
        if scene.split != "predict":
            stock.append(made)
    report.findings += mixed_bands(bands)
    report.findings += _mixed_types(types)
    _prevalence(report, stock)
    _ground(report, stock, near_m)
    _duplicates(report, stock)
    return report


def mixed_bands(bands: Mapping[str, int]) -> list[Finding]:
    """Images with another number of bands than most, which no training takes.

    Args:
        bands: Number by scene.
    """
    usual, others = _unlike_most(bands)
    return [
        Finding("error", "bands", names, f"images have {number} bands, most have {usual}", REMEDIES["bands"]) for number, names in others
    ]


def _mixed_types(types: Mapping[str, str]) -> list[Finding]:
    """Images with another type of values than most: digital numbers of 8 and of 16 bits have no common scale."""
    usual, others = _unlike_most(types)
    return [Finding("warning", "types", names, f"images hold {own} values, most hold {usual}", REMEDIES["types"]) for own, names in others]


def _unlike_most(values: Mapping[str, Value]) -> tuple[Value | None, list[tuple[Value, tuple[str, ...]]]]:
    """The most frequent value, and the scenes of each other one."""
    usual = Counter(values.values()).most_common(1)[0][0] if values else None
    others = sorted(set(values.values()) - {usual})
    return usual, [(other, tuple(name for name, own in values.items() if own == other)) for other in others]


def _alignment(report: AuditReport, made: _Inventory) -> None:
    """Shift of the elevation model and its gaps; a shift beyond one of its pixels is a warning."""
    shift, name = made.shift, made.reader.scene.name
    if shift is None:
        return
    x_m, y_m = (shift.x_m, shift.y_m) if shift.told else (None, None)
    no_dem = made.without_dem / made.pixels if made.pixels else 0.0
    entry = {"x_m": x_m, "y_m": y_m, "confidence": shift.confidence, "dem_pixel_m": shift.dem_pixel_m, "no_dem": no_dem}
    report.alignment[name] = entry
    if shift.told and shift.length_m > shift.dem_pixel_m:
        detail = f"the elevation model seems to lie {shift.x_m:.3g} m east and {shift.y_m:.3g} m north of where the image shows it"
        more = f"more than its pixel of {shift.dem_pixel_m:.4g} m ({100 * shift.confidence:.0f} % of {shift.windows} windows agree)"
        report.add("warning", "alignment", (name,), f"{detail}, {more}")


def _label(report: AuditReport, one: _Inventory) -> None:
    """A label that lies beside its image, or without any landslide, that may be a mistake."""
    labels, scene = one.reader.opened_labels(), one.reader.scene
    name = scene.name
    own_grid = scene.overrides.regrid in (None, REFUSE)  # a virtual grid has corners beyond the image
    if labels is not None and own_grid and isinstance(labels.source, LabelRaster) and labels.source.coverage < _WHOLE:
        detail = f"the label covers {100 * labels.source.coverage:.0f} % of the image; the rest is ignored"
        report.add("warning", "cover", (name,), detail)
    if labels is not None and isinstance(labels.source, LabelPolygons):
        number = len(labels.source.shapes) + labels.source.left_out
        if labels.source.repaired:
            detail = (
                f"{scene.label}: {labels.source.repaired} of {number} polygons are invalid, such as self-intersecting, and were repaired"
            )
            report.add("warning", "repaired", (name,), detail)
        if labels.source.left_out:
            detail = f"{scene.label}: {labels.source.left_out} of {number} features are no polygons, and were left out"
            report.add("warning", "left out", (name,), detail)
    if labels is not None and not one.landslide:
        if isinstance(labels.source, LabelPolygons):
            inside = labels.source.grade_of[labels.source.inside()] - LANDSLIDE
            counted = int((np.array(labels.weights)[inside] > 0).sum()) if len(inside) else 0
            if not len(labels.source.shapes):
                report.add("warning", "empty", (name,), "the label layer holds no polygon")
            elif counted:
                report.add("warning", "thin", (name,), f"{counted} polygons reach into the image, and none holds the centre of a pixel")
        elif labels.source.unstated_ignore():
            report.add("warning", "codes", (name,), "the label holds 255, which counts as ignore, and no landslide")
    one.reader.close()


def _prevalence(report: AuditReport, stock: Sequence[_Inventory]) -> None:
    """Counts of each split."""
    for split in dict.fromkeys(one.reader.scene.split for one in stock):
        own = [one for one in stock if one.reader.scene.split == split]
        labels, landslide = sum(one.labels for one in own), sum(one.landslide for one in own)
        share = landslide / labels if labels else None
        report.splits[split] = {"scenes": len(own), "labelled": labels, "landslide": landslide, "prevalence": share}
        if not landslide:
            report.add("warning", "prevalence", (), f"split {split} holds no landslide")
        elif landslide == labels:
            report.add("warning", "prevalence", (), f"split {split} holds nothing but landslide")


def _ground(report: AuditReport, stock: Sequence[_Inventory], near_m: float) -> None:
    """Distances, ground that two splits label, and landslides that two splits share."""
    boxes = np.array([box for one in stock for box in one.boxes]).reshape(-1, 4)
    owner = np.repeat(np.arange(len(stock)), [len(one.cells) for one in stock])
    start = np.cumsum([0, *(len(one.cells) for one in stock)])
    splits = np.array([one.reader.scene.split for one in stock])
    names = sorted(set(splits.tolist()))
    for place, one in enumerate(names):
        for other in names[place + 1 :]:
            mine, theirs = (np.flatnonzero(splits[owner] == split) for split in (one, other))
            if not len(mine) or not len(theirs):
                continue
            tree, shapes = shapely.STRtree(shapely.box(*boxes[theirs].T)), shapely.box(*boxes[mine].T)
            _, distance = tree.query_nearest(shapes, return_distance=True, all_matches=False)
            name, least = f"{other}-{one}" if other == "train" else f"{one}-{other}", near_m
            pixel = max(max(item.reader.grid.pixel_size) for item in stock)
            pairs = tree.query(shapes, predicate="dwithin", distance=max(near_m, 1.01 * pixel))
            cells, near = mine[pairs[0]], theirs[pairs[1]]
            gaps = shapely.distance(shapes[pairs[0]], shapely.box(*boxes[near].T))
            order = np.lexsort((gaps, owner[near], owner[cells]))
            groups: dict[tuple[int, int], list[int]] = {}
            for at in order.tolist():
                groups.setdefault((int(owner[cells[at]]), int(owner[near[at]])), []).append(at)
            for (first, second), members in groups.items():
                touching = dict.fromkeys(int(cells[at] - start[first]) for at in members if gaps[at] <= 1.01 * pixel)
                counts = [_shared(stock[first], stock[second], stock[first].cells[cell]) for cell in touching]
                overlap, shared = (sum(count[part] for count in counts) for part in (0, 1))
                both = stock[first].reader.scene.name, stock[second].reader.scene.name
                if overlap:
                    report.add("leak", "overlap", both, f"{overlap:,} pixels are labelled in {one} and in {other}")
                if shared:
                    report.add("leak", "landslide", both, f"{shared:,} landslide pixels of {one} lie on or touch one of {other}")
                nearest = _gap(
                    stock[first], stock[second], [(cells[at] - start[first], near[at] - start[second], gaps[at]) for at in members]
                )
                least = min(least, nearest)
                if nearest < near_m:
                    report.add("warning", "near", both, f"{one} and {other} are {nearest:.0f} m apart, below {near_m:g} m")
            if all(item.reader.grid.placed for item in stock):
                report.distance_m[name] = max(float(distance.min()), least)


def _gap(one: _Inventory, other: _Inventory, pairs: Sequence[tuple[int, int, float]]) -> float:
    """Smallest distance in metres between labelled pixels of two scenes, to within a pixel and never too long.

    Args:
        one: A scene.
        other: A scene of another split.
        pairs: Cells of both and the distance of their boxes, from the nearest on. Beyond `_MAX_PAIRS` of them, and between coordinate
            systems, the distance of boxes stands.
    """
    if not same_crs(one.reader.grid.crs, other.reader.grid.crs):
        return float(pairs[0][2])
    best = np.inf
    slack = max(float(np.hypot(*item.reader.grid.pixel_size)) for item in (one, other))
    for done, (mine, theirs, boxes) in enumerate(pairs):
        if boxes >= best or done == _MAX_PAIRS:
            return float(min(best, boxes) if done == _MAX_PAIRS else best)
        tree = cKDTree(_points(one, one.cells[mine]))
        best = min(best, max(float(tree.query(_points(other, other.cells[theirs]))[0].min()) - slack, boxes))
    return float(best)


def _points(one: _Inventory, cell: tuple[int, int]) -> Array:
    """Centres of the labelled pixels of a cell in metres, float64 (N, 2)."""
    grid = one.reader.grid
    mask = labelled(one.reader, cell[0], cell[1], min(CELL, grid.height - cell[0]), min(CELL, grid.width - cell[1]))
    rows, columns = np.nonzero(mask != IGNORE)
    at = grid.transform_at(*cell)
    points = np.column_stack([at.c + (columns + 0.5) * at.a, at.f + (rows + 0.5) * at.e])
    return np.asarray(points * grid.crs.linear_units_factor[1])


def _shared(one: _Inventory, other: _Inventory, cell: tuple[int, int]) -> tuple[int, int]:
    """Pixels of a cell that the other scene labels too, and landslide pixels on or beside its landslide pixels."""
    grid, theirs = one.reader.grid, other.reader.grid
    row, column, size = cell[0] - 1, cell[1] - 1, CELL + 2
    ours = labelled(one.reader, cell[0], cell[1], min(CELL, grid.height - cell[0]), min(CELL, grid.width - cell[1]))
    at = grid.transform_at(row, column)
    x, y = np.meshgrid(at.c + (np.arange(size) + 0.5) * at.a, at.f + (np.arange(size) + 0.5) * at.e)
    if not same_crs(grid.crs, theirs.crs):
        x, y = (np.reshape(part, x.shape) for part in transform_points(grid.crs, theirs.crs, x.ravel(), y.ravel()))
    columns = np.floor((x - theirs.transform.c) / theirs.transform.a + 1e-6).astype(np.int64)
    rows = np.floor((y - theirs.transform.f) / theirs.transform.e + 1e-6).astype(np.int64)
    inside = (columns >= 0) & (columns < theirs.width) & (rows >= 0) & (rows < theirs.height)
    mask = np.full(x.shape, IGNORE, dtype=np.uint8)
    if inside.any():
        top, left = int(rows[inside].min()), int(columns[inside].min())
        window = labelled(other.reader, top, left, int(rows[inside].max()) - top + 1, int(columns[inside].max()) - left + 1)
        mask[inside] = window[rows[inside] - top, columns[inside] - left]
    beside = binary_dilation(mask == LANDSLIDE, np.ones((3, 3)))[1:-1, 1:-1]
    height, width = ours.shape
    overlap = ((mask[1:-1, 1:-1] != IGNORE)[:height, :width] & (ours != IGNORE)).sum()
    return int(overlap), int((beside[:height, :width] & (ours == LANDSLIDE)).sum())


def _duplicates(report: AuditReport, stock: Sequence[_Inventory]) -> None:
    """Windows of different splits with equal pixels, and copies that are shifted, turned or compressed, on different ground."""
    splits = [one.reader.scene.split for one in stock]
    seen: dict[bytes, list[tuple[int, int, int]]] = {}
    equal: dict[tuple[int, int], list[tuple[tuple[int, int, int], tuple[int, int, int]]]] = {}
    for number, one in enumerate(stock):
        for (row, column), content in zip(one.windows, one.contents, strict=True):
            for place in seen.setdefault(content, []):
                if splits[place[0]] != splits[number] and not _same_ground(stock, place, (number, row, column)):
                    equal.setdefault((place[0], number), []).append((place, (number, row, column)))
            seen[content].append((number, row, column))
    for (first, second), pairs in equal.items():
        both = stock[first].reader.scene.name, stock[second].reader.scene.name
        at = f"first at (row, column) {pairs[0][0][1:]} and {pairs[0][1][1:]}"
        report.add("leak", "duplicate", both, f"{len(pairs)} pairs of windows have equal pixels, {at}")
    anchors = [Anchors.joined(one.anchors) for one in stock]
    for copy in find_copies([one.reader for one in stock], splits, anchors, lambda one, other: _same_ground(stock, one, other)):
        first, second = sorted(copy.scenes)
        if (first, second) not in equal:
            both = stock[copy.scenes[0]].reader.scene.name, stock[copy.scenes[1]].reader.scene.name
            detail = f"(row, column) {copy.places[0]} and {copy.places[1]} show the same image, {copy.turn}"
            report.add("leak", "near-duplicate", both, f"{detail}, correlation {copy.correlation:.2f}")


def _same_ground(stock: Sequence[_Inventory], one: tuple[int, int, int], other: tuple[int, int, int]) -> bool:
    """Whether the windows of two places (scene, row, column) overlap on the ground; never between coordinate systems."""
    first, second = stock[one[0]].reader.grid, stock[other[0]].reader.grid
    (row, column), (next_row, next_column) = ((part // WINDOW * WINDOW for part in place[1:]) for place in (one, other))
    at, to = first.transform_at(row, column), second.transform_at(next_row, next_column)
    over = at.c < to.c + WINDOW * to.a and to.c < at.c + WINDOW * at.a and at.f > to.f + WINDOW * to.e and to.f > at.f + WINDOW * at.e
    return bool(over and same_crs(first.crs, second.crs))
