"""The inventory against a known one: landslides that match it, that it does not hold, and that were missed.

Both are compared on the pixels of the map that have data, the inventory before simplification, so that a known landslide counts by the part
that the map shows. One without any such pixel (beyond the map, on no data, or too small to hold the centre of a pixel) is left out, and
one smaller than the least area may be matched but not missed. Two rules, named as in `zoo.metrics.objects`:

- `iou0.5`: a pair matches if its IoU is at least 0.5, one to one: the most pairs, and among such matchings the largest sum of IoU.
- `coverage0.5`: a landslide is right if known ones together cover at least half of it; a known one is missed unless landslides cover at
  least half of it. Many to one is allowed.
"""

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt
import rasterio.features
import shapely

from datamodules.errors import UserError
from datamodules.grid import Grid
from datamodules.label_rules import NO_COLUMNS
from datamodules.polygons import LabelPolygons
from zoo.metrics.objects import match_one_to_one

Array = npt.NDArray[Any]
_RULE: Final = re.compile(r"(iou|coverage)(0?\.\d+|1(?:\.0*)?)")


@dataclass(frozen=True)
class MatchRule:
    """When landslides match.

    Args:
        kind: Of the rule.
        least: Least IoU or covered share, in (0, 1].
    """

    kind: Literal["iou", "coverage"]
    least: float

    @classmethod
    def of(cls, text: str) -> "MatchRule":
        """Read `iou0.5` or `coverage0.5`.

        Raises:
            UserError: Another text.
        """
        found = _RULE.fullmatch(text)
        if found is None or not float(found[2]) > 0:
            raise UserError("is no rule", "write iou0.5, coverage0.5 or another share up to 1", field="match", value=text, exit_code=2)
        return cls("iou" if found[1] == "iou" else "coverage", float(found[2]))

    def __str__(self) -> str:
        """In words."""
        return f"IoU of at least {self.least:g}, one to one" if self.kind == "iou" else f"covered by at least {self.least:g}"


@dataclass(frozen=True)
class Comparison:
    """An inventory of N landslides against M known ones.

    Args:
        matched: bool (N).
        partner: int64 (N): known landslide with which each shares the best IoU, in a matching its own; -1 = none.
        iou: float64 (N): with the partner, 0 = none.
        covered: float64 (N): share of each that known ones cover.
        seen: bool (M): known ones that have a pixel with data.
        missed: bool (M).
        known_covered: float64 (M): share of what is seen of each that landslides cover.
    """

    matched: Array
    partner: Array
    iou: Array
    covered: Array
    seen: Array
    missed: Array
    known_covered: Array


class Reference:
    """Known landslides, counted against a map band by band.

    Args:
        path: Vector file with polygons, in any coordinate system.
        layer: Of the file, "" if it has one.
        grid: Of the map.
        num: Landslides of the map.

    Attributes:
        shapes: Polygons that reach into the map, in its coordinate system, (M).
        fids: int64 (M): their feature ids.

    Raises:
        UserError: A file that cannot be read, or that lies elsewhere.
    """

    def __init__(self, path: Path, layer: str, grid: Grid, num: int) -> None:
        polygons = LabelPolygons(path, grid, replace(NO_COLUMNS, label_layer=layer))
        inside = polygons.inside()
        self.shapes, self.fids = polygons.shapes[inside], polygons.fids[inside]
        self._grid, self._tree = grid, shapely.STRtree(self.shapes)
        self._num = num
        self._seen = np.zeros(len(self.shapes), np.int64)
        self._covered = np.zeros(num, np.int64)
        self._pairs: dict[tuple[int, int], int] = {}

    def add(self, first_row: int, components: Array, known: Array) -> None:
        """Count a band.

        Args:
            first_row: Of the band.
            components: int32 (rows, W): landslide of each pixel from 1, 0 = none.
            known: bool (rows, W): pixels with data.
        """
        at, (rows, width) = self._grid.transform, components.shape
        top = at.f + first_row * at.e
        band = shapely.box(at.c, top + rows * at.e, at.c + width * at.a, top)
        any_known = np.zeros(components.shape, dtype=bool)
        for number in np.sort(self._tree.query(band, predicate="intersects")).tolist():
            left, bottom, right, upper = shapely.bounds(self.shapes[number])
            first, last = max(int((upper - at.f) / at.e) - first_row - 1, 0), min(int((bottom - at.f) / at.e) - first_row + 2, rows)
            start, stop = max(int((left - at.c) / at.a) - 1, 0), min(int((right - at.c) / at.a) + 2, width)
            if first >= last or start >= stop:
                continue
            window = np.s_[first:last, start:stop]
            inside = rasterio.features.rasterize(
                [self.shapes[number]],
                out_shape=(last - first, stop - start),
                transform=self._grid.transform_at(first_row + first, start),
                dtype="uint8",
            ).astype(bool)
            inside &= known[window]
            any_known[window] |= inside
            self._seen[number] += int(inside.sum())
            for found, pixels in zip(*np.unique(components[window][inside], return_counts=True), strict=True):
                if found:
                    pair = number, int(found) - 1
                    self._pairs[pair] = self._pairs.get(pair, 0) + int(pixels)
        # Known landslides may overlap; what two of them cover is covered once.
        held = components[any_known]
        np.add.at(self._covered, held[held > 0] - 1, 1)

    def compare(self, rule: MatchRule, pixels: Array, kept: Array, countable: Array) -> Comparison:
        """Judge.

        Args:
            rule: When landslides match.
            pixels: int64 (num): pixels of each landslide of the map.
            kept: int64 (N): those that the inventory holds, in its order.
            countable: bool (M): known ones that are large enough to be missed.
        """
        place = np.full(self._num, -1, np.int64)
        place[kept] = np.arange(len(kept))
        pairs = np.array([(known, place[own], shared) for (known, own), shared in self._pairs.items()], np.int64).reshape(-1, 3)
        known, own, shared = pairs[pairs[:, 1] >= 0].T
        iou = shared / (self._seen[known] + pixels[kept][own] - shared)
        partner, best = np.full(len(kept), -1, np.int64), np.zeros(len(kept))
        order = np.lexsort((-known, iou))  # the best comes last and stays
        partner[own[order]], best[own[order]] = known[order], iou[order]
        known_covered = np.zeros(len(self._seen))
        np.add.at(known_covered, known, shared)
        seen = self._seen > 0
        known_covered[seen] /= self._seen[seen]
        covered = self._covered[kept] / np.maximum(pixels[kept], 1)
        if rule.kind == "coverage":
            found, matched = known_covered >= rule.least, covered >= rule.least
        else:
            close = np.flatnonzero(iou >= rule.least)
            chosen = close[match_one_to_one(known[close], own[close], iou[close])]
            found, matched = np.zeros(len(seen), dtype=bool), np.zeros(len(kept), dtype=bool)
            found[known[chosen]], matched[own[chosen]] = True, True
            partner[own[chosen]], best[own[chosen]] = known[chosen], iou[chosen]
        return Comparison(matched, partner, best, covered, seen, seen & ~found & countable, known_covered)
