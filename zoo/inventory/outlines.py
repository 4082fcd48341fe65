"""Landslides as polygons: components of a whole scene, outlined band by band of rows.

Pixels are traced as 4-connected pieces, which are always valid polygons; the pieces of one landslide that touch at corners alone are the
parts of one multipolygon. Where a landslide crosses from one band into the next its pieces are united, on whole pixel coordinates and
hence exactly. Drawn on the grid again, the polygons give the same pixels.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import rasterio.features
import shapely
from affine import Affine
from scipy import ndimage

from zoo.metrics.components import EIGHT_CONNECTED, StripComponents

Array = npt.NDArray[Any]


class Components:
    """8-connected components of a scene, the same whatever bands it is read by.

    Args:
        landslide: Gives rows of the scene, bool (rows, W).
        bands: Rows of each band, from top to bottom.

    Attributes:
        pixels: int64 (N): pixels of each component.
    """

    def __init__(self, landslide: Callable[[slice], Array], bands: list[slice]) -> None:
        strips, counts = StripComponents(), [np.zeros(0, np.int64)]
        self._before: dict[int, int] = {}
        for rows in bands:
            self._before[rows.start] = strips.num
            labels, num = ndimage.label(landslide(rows), EIGHT_CONNECTED)
            strips.enter(labels, num)
            counts.append(np.bincount(labels.ravel(), minlength=num + 1)[1:])
        num, self._component = strips.merged()
        self.pixels = np.zeros(num, np.int64)
        np.add.at(self.pixels, self._component, np.concatenate(counts))

    def keep(self, kept: Array) -> None:
        """Forget the components that are not kept, bool (N), and number the others anew."""
        numbers = np.where(kept, np.cumsum(kept) - 1, -1)
        self._component = numbers[self._component]
        self.pixels = self.pixels[kept]

    def read(self, rows: slice, landslide: Array) -> Array:
        """Component of each pixel of a band, from 1; 0 = none.

        Args:
            rows: The band.
            landslide: Its landslides, as in the first pass.

        Returns:
            int32 (rows, W).
        """
        labels, num = ndimage.label(landslide, EIGHT_CONNECTED)
        before = self._before[rows.start]
        own = np.concatenate([[0], self._component[before : before + num] + 1])
        return np.asarray(own[labels], dtype=np.int32)


class Outlines:
    """Collects the outlines of components.

    Args:
        num: Components.
    """

    def __init__(self, num: int) -> None:
        self._pieces: list[list[Any]] = [[] for _ in range(num)]
        self._bands = np.zeros(num, np.int64)

    def add(self, first_row: int, components: Array) -> None:
        """Trace a band of components, int32 (rows, W), 0 = none."""
        if not components.any():
            return
        found = set()
        place = Affine.translation(0, first_row)
        for traced, number in rasterio.features.shapes(components, mask=components > 0, connectivity=4, transform=place):
            shell, *holes = traced["coordinates"]
            self._pieces[int(number) - 1].append(shapely.Polygon(shell, holes))
            found.add(int(number) - 1)
        self._bands[sorted(found)] += 1

    def polygons(self, transform: Affine) -> Array:
        """A multipolygon for each component, in map coordinates (N)."""
        whole = np.empty(len(self._pieces), dtype=object)
        for number, pieces in enumerate(self._pieces):
            if self._bands[number] > 1:
                # Where a straight edge crossed from band to band, the union leaves a vertex that no outline needs.
                pieces = shapely.get_parts(shapely.simplify(shapely.union_all(pieces), 0))  # noqa: PLW2901
            whole[number] = shapely.multipolygons(pieces)
        at = transform
        return np.asarray(shapely.transform(whole, lambda corners: corners * (at.a, at.e) + (at.c, at.f)))


def simplified(polygons: Array, tolerance: float) -> Array:
    """Polygons with fewer vertices that stay valid, keep their holes and parts, and do not reach into each other.

    All outlines are simplified together (Visvalingam and Whyatt's algorithm for coverages, in GEOS): where leaving out a vertex changes
    the area by less than the square of the tolerance it goes, unless lines would meet.

    Args:
        polygons: Multipolygons (N).
        tolerance: In map units, above 0.
    """
    return np.asarray(shapely.coverage_simplify(polygons, tolerance)) if len(polygons) else polygons
