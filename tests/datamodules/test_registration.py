"""Residual shift of an elevation model: planted shifts on synthetic relief and on real data, and no shift where nothing tells."""

import os
from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine
from scipy.ndimage import gaussian_filter

from datamodules.audit import audit
from datamodules.overrides import Overrides
from datamodules.reading import SceneReader
from datamodules.registration import residual_shift, window_shift
from datamodules.scene import Scene

DATA = Path(os.environ.get("LANDSLIDE_DATA", ""))
PIXEL = 10.0


def relief(seed, size=200):
    noise = np.random.default_rng(seed).normal(size=(size, size))
    return 400 * gaussian_filter(noise, 2.5) + 1000


def shaded(dem, azimuth_deg):
    z_y, z_x = np.gradient(dem, PIXEL)
    azimuth = np.radians(azimuth_deg)
    light = 1 - z_x * np.sin(azimuth) + z_y * np.cos(azimuth)  # rows run south
    return light / np.sqrt(1 + z_x**2 + z_y**2)


def write(path, array, east=0.0, north=0.0):
    transform = Affine(PIXEL, 0, 500000 + east, 0, -PIXEL, 4000000 + north)
    profile = {"driver": "GTiff", "count": 1, "height": array.shape[0], "width": array.shape[1], "dtype": "float32", "crs": "EPSG:32648"}
    with rasterio.open(path, "w", **profile, transform=transform) as file:
        file.write(array.astype(np.float32), 1)
    return path


@pytest.mark.parametrize("azimuth_deg", [0, 135, 315])
def test_a_window_finds_its_shift_whatever_the_sun(azimuth_deg):
    dem = relief(0, 90)
    image = shaded(dem, azimuth_deg) + np.random.default_rng(1).normal(0, 0.05, dem.shape)
    for columns, rows in ((0, 0), (5, -3), (-11, 8)):
        found = window_shift(image[12:76, 12:76], dem[12 + rows : 76 + rows, 12 + columns : 76 + columns], (PIXEL, PIXEL))
        assert found is not None
        assert found[2] > 10
        assert np.abs(np.array(found[:2]) - (columns, rows)).max() < 0.35


def test_a_planted_shift_of_the_georeference_is_reported_in_metres_and_warned_of(tmp_path):
    dem = relief(2)
    image = write(tmp_path / "i.tif", 100 * shaded(dem, 300))
    model = write(tmp_path / "d.tif", dem, east=37.0, north=-64.0)
    scene = Scene("s", image, model, None, "predict")
    shift = residual_shift(SceneReader(scene, None, 0, "cubic"))
    assert shift is not None
    assert shift.told
    assert shift.confidence > 0.8
    assert shift.x_m == pytest.approx(37, abs=2.5)
    assert shift.y_m == pytest.approx(-64, abs=2.5)
    report = audit([scene])
    assert [finding.kind for finding in report.findings] == ["alignment"]
    assert report.findings[0].level == "warning"
    assert report.passed
    assert report.alignment["s"]["x_m"] == pytest.approx(37, abs=2.5)
    straight = audit([Scene("s", image, write(tmp_path / "e.tif", dem), None, "predict")])
    assert not straight.findings
    assert abs(straight.alignment["s"]["x_m"]) < 1


def test_unrelated_images_cannot_tell(tmp_path):
    for seed in range(3):
        image = write(tmp_path / "i.tif", shaded(relief(10 + seed), 315))
        shift = residual_shift(
            SceneReader(Scene("s", image, write(tmp_path / "d.tif", relief(20 + seed)), None, "predict"), None, 0, "cubic")
        )
        assert shift is not None
        assert not shift.told
    flat = residual_shift(
        SceneReader(Scene("s", image, write(tmp_path / "f.tif", np.zeros((200, 200))), None, "predict"), None, 0, "cubic")
    )
    assert flat is not None
    assert not flat.told
    assert flat.windows == 0


@pytest.mark.realdata
@pytest.mark.skipif(not (DATA / "rmnp_rgb_dem").is_dir(), reason="set LANDSLIDE_DATA to the folder that holds rmnp_rgb_dem")
def test_two_real_grids_in_degrees_agree_and_a_planted_shift_is_found(tmp_path):
    """Rocky Mountain image and model of different grids, EPSG:4326: aligned as they are; moved by three of the model's pixels, found."""
    folder = DATA / "rmnp_rgb_dem/original"
    with rasterio.open(folder / "rmnp-dem.tif") as file:
        values, profile = file.read(), file.profile
    east = 3 * profile["transform"].a  # degrees; 233.5 m each at this latitude
    profile["transform"] = Affine.translation(east, 0) @ profile["transform"]
    with rasterio.open(tmp_path / "moved.tif", "w", **profile) as file:
        file.write(values)
    found = []
    for dem in (folder / "rmnp-dem.tif", tmp_path / "moved.tif"):
        scene = Scene("s", folder / "rmnp-rgb.tif", dem, None, "predict", overrides=Overrides(regrid="reproject"))
        found.append(residual_shift(SceneReader(scene, None, 0, "cubic")))
    assert all(shift is not None and shift.told and shift.confidence > 0.5 for shift in found)
    assert found[0].length_m < 0.3 * found[0].dem_pixel_m
    assert found[1].x_m - found[0].x_m == pytest.approx(3 * 233.5, abs=60)
    assert found[1].y_m - found[0].y_m == pytest.approx(0, abs=60)
