"""What an inventory tells of each landslide.

| attribute | rule |
|---|---|
| `id` | 1, 2, ... in the order of the first pixel, from the top row down and from left to right |
| `area_m2`, `perimeter_m` | geodesic, of the polygon as written, on the ellipsoid of its coordinate system; the rings of holes count as perimeter |
| `probability_mean`, `probability_max` | over its pixels, as the map stores them |
| `uncertainty_mean` | over its pixels; null if the map has no uncertainty |
| `slope_deg` | mean over its pixels |
| `aspect_deg` | direction of the mean vector of the downslope azimuths, clockwise from grid north, 0 to 360; null where they cancel out or all is flat |
| `elevation_min_m`, `elevation_max_m`, `elevation_range_m` | over its pixels |
| `length_m`, `width_m` | longer and shorter side of the smallest rectangle around it, turned as it may be |
| `crown_x`, `crown_y`, `toe_x`, `toe_y` | centre of its highest and of its lowest pixel, map coordinates; of several the first |
| `model` | SHA-256 of the checkpoints; null if the map does not say |
| `threshold` | probability from which a pixel is landslide |

Slope to toe need an elevation model; without one, or where it has no data, they are null. All of these are of pixels, before simplification.
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from zoo.inventory.source import Rows, Terrain

Array = npt.NDArray[Any]


@dataclass
class Extreme:
    """The highest value of each landslide and where it is.

    Args:
        num: Landslides.
    """

    num: int
    value: Array = field(init=False)
    place: Array = field(init=False)

    def __post_init__(self) -> None:
        self.value, self.place = np.full(self.num, -np.inf), np.full(self.num, -1, np.int64)

    def add(self, of: Array, values: Array, places: Array) -> None:
        """Pixels of landslides `of`, at growing places; the first of equal values stays."""
        order = np.lexsort((places, -values, of))
        first = order[np.unique(of[order], return_index=True)[1]]
        higher = first[values[first] > self.value[of[first]]]
        self.value[of[higher]], self.place[of[higher]] = values[higher], places[higher]


class PixelSums:
    """Sums over the pixels of each landslide, band by band; the same to the bit whatever the bands are.

    Args:
        num: Landslides.
        width: Pixels a row of the scene.

    Attributes:
        first: int64 (N): place of the first pixel of each, row * width + column.
    """

    def __init__(self, num: int, width: int) -> None:
        self.first = np.full(num, np.iinfo(np.int64).max)
        self._width, self._num = width, num
        self._sums: dict[str, Array] = {}
        self._counts: dict[str, Array] = {}
        self._probability, self._crown, self._toe = Extreme(num), Extreme(num), Extreme(num)

    def add(self, components: Array, rows: Rows, terrain: Terrain | None) -> None:
        """Add a band.

        Args:
            components: int32 (rows, W): landslide of each pixel from 1, 0 = none.
            rows: Its probabilities.
            terrain: Its ground, if there is an elevation model.
        """
        at = np.flatnonzero(components)
        of, places = components.ravel()[at].astype(np.int64) - 1, at + rows.first * self._width
        np.minimum.at(self.first, of, places)
        probability = rows.probability.ravel()[at]
        self._sum("probability", of, probability)
        self._probability.add(of, probability.astype(np.float64), places)
        if rows.uncertainty is not None:
            self._sum("uncertainty", of, rows.uncertainty.ravel()[at])
        if terrain is None:
            return
        for name in ("slope_deg", "aspect_sin", "aspect_cos"):
            self._sum(name, of, getattr(terrain, name).ravel()[at])
        elevation = terrain.elevation.ravel()[at].astype(np.float64)
        known = ~np.isnan(elevation)
        self._crown.add(of[known], elevation[known], places[known])
        self._toe.add(of[known], -elevation[known], places[known])

    def _sum(self, name: str, of: Array, values: Array) -> None:
        """Add what is known."""
        known = ~np.isnan(values)
        for table, amounts in ((self._sums, values[known].astype(np.float64)), (self._counts, 1)):
            np.add.at(table.setdefault(name, np.zeros(self._num)), of[known], amounts)

    def mean(self, name: str) -> Array:
        """Mean of each landslide, NaN where nothing is known."""
        sums, counts = (table.get(name, np.zeros(self._num)) for table in (self._sums, self._counts))
        return np.asarray(np.divide(sums, counts, out=np.full(self._num, np.nan), where=counts > 0))

    @property
    def probability_max(self) -> Array:
        """Highest probability of each."""
        return self._probability.value

    @property
    def crowns(self) -> tuple[Array, Array]:
        """Elevation of the highest pixel in metres, NaN where none is known, and its place, -1 there."""
        return np.where(self._crown.place < 0, np.nan, self._crown.value), self._crown.place

    @property
    def toes(self) -> tuple[Array, Array]:
        """The same of the lowest pixel."""
        return np.where(self._toe.place < 0, np.nan, -self._toe.value), self._toe.place

    def aspect_deg(self) -> Array:
        """Direction of the mean vector, [0, 360); NaN where there is none."""
        sine, cosine = self.mean("aspect_sin"), self.mean("aspect_cos")
        azimuth = np.degrees(np.arctan2(sine, cosine)) % 360
        return np.where(np.hypot(sine, cosine) > 1e-6, np.where(azimuth == 360, 0.0, azimuth), np.nan)
