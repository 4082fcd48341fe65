"""Metres on the ground against other ways to them."""

import itertools

import numpy as np
import pyproj
import pytest
import shapely
from rasterio.crs import CRS
from rasterio.transform import from_origin

from datamodules.grid import nowhere
from zoo.inventory.ground import STEP_M, Ground

MARS = CRS.from_proj4("+proj=eqc +lat_ts=0 +lon_0=0 +a=3396190 +b=3396190 +units=m +no_defs")
SYSTEMS = {
    "UTM far from its meridian": (CRS.from_epsg(32648), 850_000, 4_000_000),
    "Web Mercator at 36 N": (CRS.from_epsg(3857), 11_700_000, 4_300_000),
    "Lambert, US feet": (CRS.from_epsg(2231), 3_000_000, 1_500_000),
    "degrees": (CRS.from_epsg(4326), 105, 36),
    "Mars at 14 S": (MARS, -4_800_000, -830_000),
    "polar": (CRS.from_epsg(3413), -200_000, -2_200_000),
}


def ring_with_hole(x, y, scale):
    shell = np.array([(0, 0), (3, -1), (5, 2), (4, 4), (1, 5), (-1, 2)]) * scale + (x, y)
    hole = np.array([(1.5, 1.5), (2.5, 1.5), (2, 3)]) * scale + (x, y)
    return shapely.MultiPolygon([shapely.Polygon(shell, [hole]), shapely.box(x + 6 * scale, y, x + 7 * scale, y + scale)])


def dense(ring, parts=400):
    """Points on each edge, straight in the map."""
    corners = np.array(ring.coords)
    share = np.linspace(0, 1, parts, endpoint=False)[:, None]
    return np.concatenate([a + (b - a) * share for a, b in itertools.pairwise(corners)])


@pytest.mark.parametrize("name", SYSTEMS)
@pytest.mark.parametrize("size_m", [30, 3_000, 30_000])
def test_areas_and_perimeters_are_geodesic(name, size_m):
    system, x, y = SYSTEMS[name]
    unit = 111_000 if system.is_geographic else system.linear_units_factor[1]
    shape = ring_with_hole(x, y, size_m / unit)
    crs = pyproj.CRS.from_wkt(system.to_wkt())
    to_degrees = pyproj.Transformer.from_crs(crs, crs.geodetic_crs, always_xy=True)
    geod = pyproj.Geod(a=crs.ellipsoid.semi_major_metre, b=crs.ellipsoid.semi_minor_metre)
    area = perimeter = 0.0
    for part in shape.geoms:
        for hole, ring in enumerate((part.exterior, *part.interiors)):
            ring_area, length = geod.polygon_area_perimeter(*to_degrees.transform(*dense(ring).T))
            area += -abs(ring_area) if hole else abs(ring_area)
            perimeter += length
    ground = Ground(system)
    step = STEP_M / unit
    found_area, found_perimeter = ground.areas_and_perimeters(np.array([shape, shape.geoms[1]]), step)
    assert found_area[0] == pytest.approx(area, rel=1e-5)
    assert found_perimeter[0] == pytest.approx(perimeter, rel=1e-5)
    assert found_area[1] < found_area[0]


def test_web_mercator_is_not_inflated():
    system, x, y = SYSTEMS["Web Mercator at 36 N"]
    shape = np.array([shapely.box(x, y, x + 500, y + 500)], dtype=object)
    cylinder = pyproj.Transformer.from_crs(3857, 6933, always_xy=True)  # equal areas
    true = shapely.Polygon(np.column_stack(cylinder.transform(*dense(shape[0].exterior).T))).area
    (area,), _ = Ground(system).areas_and_perimeters(shape, 1000)
    assert area == pytest.approx(true, rel=1e-3)
    assert shape[0].area / area > 1.5


# PROJ's factors of Web Mercator are those of a sphere; its closed form is in test_attributes.py.
@pytest.mark.parametrize("name", [name for name in SYSTEMS if "Mercator" not in name])
def test_pixel_sizes_are_those_that_pyproj_derives_from_scale_factors(name):
    system, x, y = SYSTEMS[name]
    side = 1e-4 if system.is_geographic else 10.0
    found = Ground(system).pixel_size(from_origin(x, y, side, side), 0, 0)
    crs = pyproj.CRS.from_wkt(system.to_wkt())
    if system.is_geographic:
        a, f, phi = crs.ellipsoid.semi_major_metre, 1 / crs.ellipsoid.inverse_flattening, np.radians(y)
        e2 = f * (2 - f)
        w = np.sqrt(1 - e2 * np.sin(phi) ** 2)
        expected = np.radians(side) * a * np.cos(phi) / w, np.radians(side) * a * (1 - e2) / w**3
    else:
        lonlat = pyproj.Transformer.from_crs(crs, crs.geodetic_crs, always_xy=True).transform(x, y)
        factors = pyproj.Proj(crs).get_factors(*lonlat)
        metres = side * system.linear_units_factor[1]
        expected = metres / factors.parallel_scale, metres / factors.meridional_scale
        assert factors.angular_distortion < 1e-6 or "Mars" in name
    assert found == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("epsg", [32648, 3857, 4326])
def test_length_and_width_are_of_the_smallest_rectangle_on_the_ground(epsg):
    turned = shapely.affinity.rotate(shapely.box(600_000, 4_000_000, 600_400, 4_000_100), 30)
    to = pyproj.Transformer.from_crs(32648, epsg, always_xy=True)
    shape = shapely.transform(turned, lambda points: np.column_stack(to.transform(points[:, 0], points[:, 1])))
    lengths, widths = Ground(CRS.from_epsg(epsg)).lengths_and_widths(np.array([shape, shape]))
    scale = 0.99972  # of UTM zone 48 at 600 km east
    assert lengths == pytest.approx([400 / scale] * 2, rel=2e-4)
    assert widths == pytest.approx([100 / scale] * 2, rel=2e-4)


def test_without_a_place_the_plane_is_the_ground():
    ground = Ground(nowhere())
    shape = np.array([ring_with_hole(1e8, 1e8, 10)], dtype=object)
    areas, perimeters = ground.areas_and_perimeters(shape, 1000)
    assert (areas[0], perimeters[0]) == (shape[0].area, shape[0].length)
    assert not ground.on_earth
    assert ground.pixel_size(from_origin(1e8, 1e8, 2, 3), 5, 5) == (2, 3)


def test_the_largest_pixel_is_not_passed_anywhere():
    transform = from_origin(11_000_000, 9_000_000, 20_000, 20_000)  # 63 to 21 N
    ground = Ground(CRS.from_epsg(3857))
    sizes = [np.prod(ground.pixel_size(transform, 5, row + 0.5)) for row in range(300)]
    assert max(sizes) <= ground.largest_pixel_m2(transform, 10, 300) < 1.2 * max(sizes)
