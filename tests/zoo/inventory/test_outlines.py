"""Outlines against the pixels that they come from."""

import numpy as np
import rasterio.features
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from rasterio.transform import from_origin
from scipy import ndimage

from tests.zoo.inventory.building import EIGHT, outlined
from zoo.inventory.outlines import simplified

rasters = arrays.arrays(bool, st.tuples(st.integers(1, 14), st.integers(1, 14)), elements=st.booleans())


def same_partition(one, other):
    """Whether two labellings, 0 = none, part the pixels alike."""
    pairs = np.unique(np.stack([one.ravel(), other.ravel()]), axis=1)
    return len(np.unique(pairs[0])) == len(np.unique(pairs[1])) == pairs.shape[1]


def drawn(polygons, shape):
    """Polygon (from 1) that holds the centre of each pixel, by GEOS and not by GDAL, which traced them."""
    rows, columns = np.mgrid[: shape[0], : shape[1]] + 0.5
    numbers = np.zeros(shape, int)
    for number, polygon in enumerate(polygons, 1):
        inside = shapely.contains_xy(polygon, columns, rows)
        assert not (numbers[inside]).any()  # no pixel is in two
        numbers[inside] = number
    return numbers


@settings(max_examples=60, deadline=None)
@given(rasters, st.integers(1, 15))
def test_components_of_bands_are_those_of_the_whole(landslide, band_rows):
    numbers, _ = outlined(landslide, band_rows)
    assert same_partition(numbers, ndimage.label(landslide, EIGHT)[0])


@settings(max_examples=60, deadline=None)
@given(rasters, st.integers(1, 15))
def test_polygons_are_valid_and_drawn_again_give_the_pixels(landslide, band_rows):
    numbers, polygons = outlined(landslide, band_rows)
    assert shapely.is_valid(polygons).all()
    assert (drawn(polygons, landslide.shape) == numbers).all()
    if len(polygons):
        again = rasterio.features.rasterize([(polygon, number) for number, polygon in enumerate(polygons, 1)], landslide.shape)
        assert (again == numbers).all()
    np.testing.assert_array_equal(shapely.area(polygons), np.bincount(numbers.ravel(), minlength=len(polygons) + 1)[1:])


@settings(max_examples=60, deadline=None)
@given(rasters, st.integers(1, 13))
def test_the_bands_leave_no_trace_in_the_polygons(landslide, band_rows):
    pieces = {polygon.normalize().wkt for polygon in outlined(landslide, band_rows)[1]}
    assert pieces == {polygon.normalize().wkt for polygon in outlined(landslide, len(landslide))[1]}


@settings(max_examples=60, deadline=None)
@given(rasters, st.sampled_from([0.7, 1.2, 2.5, 6.0]))
def test_simplified_polygons_stay_valid_apart_and_whole(landslide, tolerance):
    polygons = outlined(landslide, 5)[1]
    simple = simplified(polygons, tolerance)
    assert shapely.is_valid(simple).all()
    assert (shapely.get_num_coordinates(simple) <= shapely.get_num_coordinates(polygons)).all()
    for before, after in zip(polygons, simple, strict=True):
        assert len(before.geoms) == len(after.geoms)
        assert sorted(len(part.interiors) for part in before.geoms) == sorted(len(part.interiors) for part in after.geoms)
    tree = shapely.STRtree(simple)
    first, second = tree.query(simple, predicate="intersects")
    apart = first < second
    assert not shapely.area(shapely.intersection(simple[first[apart]], simple[second[apart]])).any()


def test_corners_that_touch_make_parts_of_one_landslide_and_holes_stay():
    landslide = np.array([[1, 1, 1, 0, 0], [1, 0, 1, 0, 0], [1, 1, 1, 0, 0], [0, 0, 0, 1, 0]], dtype=bool)
    _, polygons = outlined(landslide, 2, from_origin(100, 50, 2, 2))
    (polygon,) = polygons
    assert polygon.is_valid
    ring, pixel = sorted(polygon.geoms, key=lambda part: -part.area)
    assert (ring.area, pixel.area) == (8 * 4, 4)
    assert len(ring.interiors) == 1
    assert ring.bounds == (100, 44, 106, 50)
    assert pixel.bounds == (106, 42, 108, 44)
