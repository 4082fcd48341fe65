"""Matched, missed and false against counting on the whole scene."""

import numpy as np
import pytest
import rasterio.features
import shapely
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rasterio.crs import CRS
from scipy import ndimage
from scipy.optimize import linear_sum_assignment

from datamodules.errors import UserError
from datamodules.grid import Grid
from tests.zoo.inventory.building import EIGHT, PLACE, write_polygons
from zoo.inventory.reference import MatchRule, Reference

SHAPE = (24, 30)
GRID = Grid(CRS.from_epsg(32648), PLACE, SHAPE[1], SHAPE[0], (2.0, 2.0))


def pixel_box(row, column, height, width):
    return shapely.box(PLACE.c + 2 * column, PLACE.f - 2 * (row + height), PLACE.c + 2 * (column + width), PLACE.f - 2 * row)


def compare(path, landslide, known, rule="iou0.5", band=7, countable=None):
    labels, num = ndimage.label(landslide, EIGHT)
    reference = Reference(path, "", GRID, num)
    for row in range(0, SHAPE[0], band):
        reference.add(row, labels[row : row + band].astype(np.int32), known[row : row + band])
    pixels = np.bincount(labels.ravel(), minlength=num + 1)[1:]
    countable = np.ones(len(reference.shapes), dtype=bool) if countable is None else countable
    return reference, labels, reference.compare(MatchRule.of(rule), pixels, np.arange(num), countable)


boxes = st.lists(st.tuples(st.integers(-3, 22), st.integers(-3, 28), st.integers(1, 9), st.integers(1, 9)), min_size=1, max_size=6)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40, deadline=None)
@given(boxes, st.integers(0, 5), st.sampled_from([0.1, 0.3, 0.5]), st.integers(3, 24))
def test_matches_are_those_of_an_assignment_on_the_whole_scene(tmp_path, places, seed, least, band):
    rng = np.random.default_rng(seed)
    landslide = ndimage.zoom(rng.random((6, 10)) > 0.6, (4, 3), order=0)
    known = np.ones(SHAPE, dtype=bool)
    known[:, 25:] = False
    landslide &= known
    inside = [place for place in places if pixel_box(*place).intersects(shapely.box(*GRID.bounds))]
    if not inside:
        return
    path = write_polygons(tmp_path / "known.gpkg", [pixel_box(*place) for place in inside])
    reference, labels, found = compare(path, landslide, known, f"iou{least}", band)
    masks = [rasterio.features.rasterize([shape], SHAPE, transform=PLACE).astype(bool) & known for shape in reference.shapes]
    numbers = range(1, labels.max() + 1)
    iou = np.array([[(mask & (labels == one)).sum() / max((mask | (labels == one)).sum(), 1) for one in numbers] for mask in masks])
    iou = iou.reshape(len(masks), labels.max())
    gain = np.where(iou >= least, 1000 + iou, 0)
    rows, columns = linear_sum_assignment(-gain)
    pairs = [(row, column) for row, column in zip(rows, columns, strict=True) if gain[row, column] > 0]
    assert found.matched.sum() == len(pairs)
    assert found.iou[found.matched].sum() == pytest.approx(sum(iou[pair] for pair in pairs))
    seen = np.array([mask.any() for mask in masks])
    np.testing.assert_array_equal(found.seen, seen)
    assert found.missed.sum() == seen.sum() - len(pairs)
    union = np.any(masks, axis=0)
    np.testing.assert_allclose(found.covered, [union[labels == one].mean() for one in numbers])
    np.testing.assert_allclose(found.known_covered, [(labels[mask] > 0).mean() if mask.any() else 0 for mask in masks])


def test_coverage_takes_many_for_one_and_overlapping_ones_once(tmp_path):
    landslide = np.zeros(SHAPE, dtype=bool)
    landslide[2:6, 2:12] = True  # 40 pixels
    landslide[10:14, 2:6] = landslide[10:14, 8:12] = True  # two halves of one known landslide
    landslide[18:22, 2:12] = True
    twice = pixel_box(2, 2, 4, 4)  # 40 % of the first, known twice: still 40 %
    path = write_polygons(tmp_path / "known.gpkg", [twice, twice, pixel_box(10, 2, 4, 10), pixel_box(18, 2, 4, 6)])
    _, _, found = compare(path, landslide, np.ones(SHAPE, dtype=bool), "coverage0.5")
    np.testing.assert_allclose(found.covered, [0.4, 1, 1, 0.6])
    np.testing.assert_array_equal(found.matched, [False, True, True, True])
    assert not found.missed.any()
    _, _, strict = compare(path, landslide, np.ones(SHAPE, dtype=bool), "coverage0.7")
    np.testing.assert_array_equal(strict.matched, [False, True, True, False])


def test_a_known_landslide_counts_by_what_the_map_shows_of_it(tmp_path):
    landslide = np.zeros(SHAPE, dtype=bool)
    landslide[:4, :4] = True
    known = np.ones(SHAPE, dtype=bool)
    known[:, 20:] = False
    path = write_polygons(tmp_path / "known.gpkg", [pixel_box(-20, -20, 24, 24), pixel_box(10, 22, 4, 4), pixel_box(10, 10, 3, 3)])
    _, _, found = compare(path, landslide, known)
    assert (found.matched.tolist(), found.iou.tolist()) == ([True], [1])
    assert found.seen.tolist() == [True, False, True]
    assert found.missed.tolist() == [False, False, True]
    small = compare(path, landslide, known, countable=np.array([True, True, False]))[2]
    assert not small.missed.any()


def test_an_inventory_in_degrees_is_brought_to_the_map(tmp_path):
    import pyproj

    landslide = np.zeros(SHAPE, dtype=bool)
    landslide[5:15, 5:15] = True
    to = pyproj.Transformer.from_crs(32648, 4326, always_xy=True)
    degrees = shapely.transform(pixel_box(5, 5, 10, 10), lambda points: np.column_stack(to.transform(*points.T)))
    path = write_polygons(tmp_path / "known.geojson", [degrees], crs="EPSG:4326", driver="GeoJSON")
    assert compare(path, landslide, np.ones(SHAPE, dtype=bool))[2].matched.all()


@pytest.mark.parametrize("text", ["iou", "iou0", "iou1.5", "coverage-0.5", "dice0.5", ""])
def test_other_rules_are_refused(text):
    with pytest.raises(UserError, match="iou0.5, coverage0.5"):
        MatchRule.of(text)
