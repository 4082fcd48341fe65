"""Attributes of landslides against scipy.ndimage on the whole scene, and against a plane whose slope is known."""

import numpy as np
import pytest
import shapely
from rasterio.transform import from_origin
from scipy import ndimage

from datamodules.overrides import Overrides
from tests.zoo.inventory.building import EIGHT, PLACE, blobs, write_map, write_raster
from zoo.inventory.attributes import PixelSums
from zoo.inventory.layers import landslide_layers
from zoo.inventory.source import MapReader, Rows, Terrain, TerrainReader
from zoo.inventory.survey import survey

DEGREES = 12.0


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scene")
    probability = blobs(sigma=2.5)
    probability[:30, :40] = np.nan
    uncertainty = np.where(np.isnan(probability), np.nan, blobs(seed=2) / 2)
    dem = 1000 + 60 * blobs(seed=3, sigma=9)
    dem[50:60, 20:90] = -9999
    return (
        write_map(folder, probability, uncertainty=uncertainty),
        write_raster(folder / "dem.tif", dem.astype(np.float32), nodata=-9999),
        probability.astype(np.float32),
        uncertainty.astype(np.float32),
        np.where(dem == -9999, np.nan, dem).astype(np.float32),
    )


def layers(path, dem=None, **options):
    with MapReader(path, None) as source:
        terrain = TerrainReader(dem, source.grid, source.ground, Overrides()) if dem else None
        return landslide_layers(source, survey(source, terrain, **options))


def test_attributes_are_those_of_the_whole_scene(scene):
    path, dem, probability, uncertainty, elevation = scene
    slides, crowns, toes = layers(path, dem, strip_pixels=7 * 160)
    labels, num = ndimage.label(np.nan_to_num(probability) >= 0.5, EIGHT)
    numbers = np.arange(1, num + 1)
    fields = slides.fields
    assert num > 20
    assert (fields["id"] == numbers).all()  # scipy numbers from the top row down too
    for name, function, values in (
        ("probability_mean", ndimage.mean, probability),
        ("probability_max", ndimage.maximum, probability),
        ("uncertainty_mean", ndimage.mean, uncertainty),
    ):
        np.testing.assert_allclose(fields[name], function(values.astype(float), labels, numbers), rtol=1e-9)
    known = ~np.isnan(elevation)
    has = ndimage.maximum(known, labels, numbers)
    for name, function, fill in (("elevation_max_m", ndimage.maximum, -1e9), ("elevation_min_m", ndimage.minimum, 1e9)):
        expected = function(np.where(known, elevation, fill), labels, numbers)
        np.testing.assert_allclose(fields[name], np.where(has, expected, np.nan))
    assert np.isnan(fields["slope_deg"]).sum() < num / 2
    for layer, name, height in ((crowns, "crown", "elevation_max_m"), (toes, "toe", "elevation_min_m")):
        chosen = layer.fields["id"] - 1
        assert (chosen == np.flatnonzero(has)).all()
        x, y = shapely.get_x(layer.geometries), shapely.get_y(layer.geometries)
        column, row = ((x - PLACE.c) / 2).astype(int), ((PLACE.f - y) / 2).astype(int)
        assert (labels[row, column] == layer.fields["id"]).all()
        np.testing.assert_array_equal(elevation[row, column], layer.fields["elevation_m"])
        np.testing.assert_array_equal(layer.fields["elevation_m"], fields[height][chosen])
        np.testing.assert_array_equal((x, y), (fields[f"{name}_x"][chosen], fields[f"{name}_y"][chosen]))


def test_bands_change_nothing(scene):
    path, dem = scene[:2]
    # Terrain is computed by bands, whose pixel size is that of their middle: equal to a part in a million, not to the bit.
    whole = layers(path, dem)[0]
    for strip_pixels in (160, 11 * 160):
        parts = layers(path, dem, strip_pixels=strip_pixels)[0]
        assert (shapely.normalize(parts.geometries) == shapely.normalize(whole.geometries)).all()
        for name, values in whole.fields.items():
            if values.dtype == object:
                assert (parts.fields[name] == values).all()
            elif name in ("slope_deg", "aspect_deg"):
                np.testing.assert_allclose(parts.fields[name], values, rtol=1e-5)
            elif name in ("perimeter_m", "area_m2"):  # rings may start elsewhere
                np.testing.assert_allclose(parts.fields[name], values, rtol=1e-9)
            else:
                np.testing.assert_array_equal(parts.fields[name], values)


def web_mercator_scales(y):
    """Metres on the ground of a metre on the map, along x and y: closed form on the ellipsoid of WGS 84."""
    a, e2 = 6378137.0, 0.00669437999014
    latitude = 2 * np.arctan(np.exp(y / a)) - np.pi / 2
    w = np.sqrt(1 - e2 * np.sin(latitude) ** 2)
    return np.cos(latitude) / w, np.cos(latitude) * (1 - e2) / w**3


@pytest.mark.parametrize("azimuth", [0, 47, 200, 359])
@pytest.mark.parametrize("crs", ["EPSG:32648", "EPSG:3857"])
def test_slope_and_aspect_of_a_plane(tmp_path, azimuth, crs):
    if crs == "EPSG:3857":
        place = from_origin(11_700_000, 4_300_000, 2, 2)
        wide, high = web_mercator_scales(4_300_000 - 60)
        assert 0.8 < wide < 0.82
    else:
        place, wide, high = PLACE, 1 / 0.9996, 1 / 0.9996  # on the central meridian
    probability = np.zeros((60, 80))
    probability[10:50, 15:60] = 0.75
    rows, columns = np.mgrid[:60, :80]
    downhill_m = np.sin(np.radians(azimuth)) * columns * 2 * wide - np.cos(np.radians(azimuth)) * rows * 2 * high
    dem = 500 - np.tan(np.radians(DEGREES)) * downhill_m
    path = write_map(tmp_path, probability, crs=crs, transform=place)
    dem = write_raster(tmp_path / "dem.tif", dem.astype(np.float32), crs=crs, transform=place)
    fields = layers(path, dem)[0].fields
    assert fields["slope_deg"] == pytest.approx([DEGREES], abs=0.01)
    assert abs((fields["aspect_deg"][0] - azimuth + 180) % 360 - 180) < 0.02
    assert fields["length_m"] == pytest.approx([45 * 2 * wide], rel=1e-3)
    assert fields["width_m"] == pytest.approx([40 * 2 * high], rel=1e-3)
    assert fields["area_m2"] == pytest.approx([45 * 40 * 4 * wide * high], rel=1e-4)


def test_the_mean_of_350_and_10_degrees_is_north_and_opposites_have_none():
    sums = PixelSums(3, 2)
    azimuth = np.radians([[350, 10], [90, 270], [0, 0]])
    sine, cosine = np.sin(azimuth), np.cos(azimuth)
    sine[2], cosine[2] = 0, 0  # flat
    flat = np.zeros((3, 2), np.float32)
    sums.add(np.array([[1, 1], [2, 2], [3, 3]], np.int32), Rows(0, flat, flat > 0, None), Terrain(flat, flat, sine, cosine))
    north, opposite, level = sums.aspect_deg()
    assert min(north, 360 - north) < 1e-6
    assert np.isnan(opposite)
    assert np.isnan(level)


def test_small_landslides_are_left_out_by_their_ground_area(tmp_path):
    probability = np.zeros((40, 40))
    probability[5:15, 5:15] = 1  # 400 m2 on the map, 270 m2 on the ground
    probability[20:40, 20:40] = 1
    path = write_map(tmp_path, probability, crs="EPSG:3857", transform=from_origin(11_700_000, 4_300_000, 2, 2))
    for least, expected in ((0, 2), (250, 2), (300, 1), (2000, 0)):
        assert len(layers(path, min_area_m2=least)[0].geometries) == expected


def test_without_elevation_the_fields_are_null_and_points_are_none(scene):
    slides, crowns, toes = layers(scene[0])
    for name in ("slope_deg", "aspect_deg", "elevation_min_m", "elevation_max_m", "elevation_range_m", "crown_x", "toe_y"):
        assert np.isnan(slides.fields[name]).all()
    assert not len(crowns.geometries)
    assert not len(toes.geometries)
