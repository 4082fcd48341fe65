"""True metres: areas, lengths and pixel sizes on the ellipsoid of a coordinate system, be it of the Earth or not.

A map projection may stretch: Web Mercator makes an area at 36 degrees of latitude 1.53 times as large. Everything here is measured by geodesics
on the system's own ellipsoid. A system without a place on a globe (images without georeference) has none; there the plane is the ground.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyproj
import shapely
from affine import Affine
from pyproj.exceptions import ProjError
from rasterio.crs import CRS

from datamodules.grid import PLACE_UNKNOWN, on_earth

Array = npt.NDArray[Any]
STEP_M: Final = 1000.0
"""Edges are straight in the map; every so many metres a vertex is set on them before they are drawn as geodesics, or as lines in degrees."""

_SAMPLES: Final = 9


@dataclass(frozen=True)
class Ground:
    """The globe under a coordinate system.

    Args:
        system: The coordinate system of a map.
    """

    system: CRS

    @cached_property
    def crs(self) -> pyproj.CRS:
        """The same system for pyproj."""
        return pyproj.CRS.from_wkt(self.system.to_wkt())

    @cached_property
    def geod(self) -> pyproj.Geod | None:
        """Geodesics on its ellipsoid; None where the place is unknown."""
        return None if PLACE_UNKNOWN in self.system.to_wkt() or self.crs.geodetic_crs is None else self.crs.get_geod()

    @cached_property
    def on_earth(self) -> bool:
        """Whether it has a place on the Earth."""
        return self.geod is not None and on_earth(self.crs)

    @cached_property
    def _to_degrees(self) -> pyproj.Transformer:
        """To longitude and latitude on the system's own datum."""
        return pyproj.Transformer.from_crs(self.crs, self.crs.geodetic_crs, always_xy=True)

    @property
    def metres_per_unit(self) -> float:
        """Of the plane of the map, by its unit alone."""
        return float(self.system.linear_units_factor[1]) if self.system.is_projected else 1.0

    def degrees(self, points: Array) -> Array:
        """Longitude and latitude of map coordinates (N, 2).

        Raises:
            ProjError: Points that have no place on the globe.
        """
        lonlat = np.column_stack(self._to_degrees.transform(points[:, 0], points[:, 1]))
        if not np.isfinite(lonlat).all():
            raise ProjError("map coordinates beyond the globe")
        return lonlat

    def areas_and_perimeters(self, polygons: Array, step: float) -> tuple[Array, Array]:
        """Square metres, and metres of all rings, those of holes included.

        Args:
            polygons: Valid polygons or multipolygons (N) in map coordinates.
            step: Most map units between two vertices.
        """
        if self.geod is None:
            return shapely.area(polygons) * self.metres_per_unit**2, shapely.length(polygons) * self.metres_per_unit
        parts, whole = shapely.get_parts(shapely.orient_polygons(polygons), return_index=True)
        rings, part = shapely.get_rings(parts, return_index=True)
        owner = whole[part]
        areas, perimeters = np.zeros(len(polygons)), np.zeros(len(polygons))
        for ring, index in zip(shapely.transform(shapely.segmentize(rings, step), self.degrees), owner, strict=True):
            area, perimeter = self.geod.polygon_area_perimeter(*ring.xy)
            areas[index] += area
            perimeters[index] += perimeter
        # Shells run one way and holes the other, so that holes subtract; which way is positive depends on the axes of the system.
        return np.abs(areas), perimeters

    def lengths_and_widths(self, polygons: Array) -> tuple[Array, Array]:
        """Longer and shorter side of the smallest rectangle, turned as it may be, around each polygon (N): metres."""
        hulls = shapely.convex_hull(polygons)
        sides = np.zeros((len(polygons), 2))
        for number, hull in enumerate(hulls):
            corners = shapely.get_coordinates(hull)
            plane = corners * self.metres_per_unit if self.geod is None else self._around(corners, shapely.get_coordinates(hull.centroid))
            box = shapely.get_coordinates(shapely.oriented_envelope(shapely.multipoints(plane)))
            sides[number] = np.sort(np.hypot(*np.diff(box[:3], axis=0).T))[::-1]
        return sides[:, 0], sides[:, 1]

    def _around(self, points: Array, middle: Array) -> Array:
        """Points on a plane that touches the ground at `middle` and keeps distances and directions from there: metres (N, 2)."""
        assert self.geod is not None
        lonlat, centre = self.degrees(points), np.broadcast_to(self.degrees(middle), points.shape)
        azimuth, _, distance = self.geod.inv(centre[:, 0], centre[:, 1], lonlat[:, 0], lonlat[:, 1])
        turned = np.radians(azimuth)
        return np.column_stack([distance * np.sin(turned), distance * np.cos(turned)])

    def pixel_size(self, transform: Affine, column: float, row: float) -> tuple[float, float]:
        """Sides (x, y) of the pixel around a place of a north-up grid, metres."""
        if self.geod is None:
            return transform.a * self.metres_per_unit, -transform.e * self.metres_per_unit
        ends = np.array([(column - 0.5, row), (column + 0.5, row), (column, row - 0.5), (column, row + 0.5)])
        points = self.degrees(np.column_stack([transform.c + transform.a * ends[:, 0], transform.f + transform.e * ends[:, 1]]))
        _, _, sides = self.geod.inv(points[::2, 0], points[::2, 1], points[1::2, 0], points[1::2, 1])
        return float(sides[0]), float(sides[1])

    def largest_pixel_m2(self, transform: Affine, width: int, height: int) -> float:
        """No pixel of a grid is larger than this: the largest of some, and a margin."""
        rows, columns = (np.linspace(0.5, length - 0.5, _SAMPLES) for length in (height, width))
        return 1.05 * max(float(np.prod(self.pixel_size(transform, column, row))) for row in rows for column in columns)
