"""Terrain layers against gdaldem, closed forms and their own symmetries."""

import importlib.util
import math
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from datamodules import terrain

spec = importlib.util.spec_from_file_location("make_terrain_goldens", Path(__file__).with_name("make_terrain_goldens.py"))
goldens = importlib.util.module_from_spec(spec)
spec.loader.exec_module(goldens)

EVERY = [
    "elevation",
    "slope",
    "aspect_sin",
    "aspect_cos",
    "hillshade",
    "multidirectional_hillshade",
    "profile_curvature",
    "tangential_curvature",
    "plan_curvature",
    "tpi",
    "tpi:25",
    "tri",
    "tri_wilson",
    "roughness",
    "openness_positive:40",
    "openness_negative:40",
    "openness_difference:40",
    "sky_view_factor:30",
    "local_relief:35",
]


@pytest.fixture(autouse=True)
def _threads():
    torch.set_num_threads(1)


def hills(*shape, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    return (torch.rand(shape, generator=generator, dtype=torch.float64) * 40 + 700).to(dtype)


def compare_with_gdaldem(dem, expected, pixel_m):
    """The tolerances are those of issue 4, for float32 elevations."""
    tensor = torch.from_numpy(dem)

    def close(name, values, tolerance, where=None):
        values = values.numpy()
        np.testing.assert_array_equal(np.isnan(values), np.isnan(expected[name]), err_msg=f"nodata of {name}")
        known = ~np.isnan(values) if where is None else ~np.isnan(values) & where
        assert known.any(), name
        error = np.abs(values - expected[name])[known]
        if name.startswith("aspect"):
            error = np.minimum(error, 360 - error)
        assert error.max() <= tolerance, f"{name}: {error.max()}"

    slope = terrain.slope(tensor, pixel_m)
    steep = slope.numpy() > 1
    close("slope", slope, 2e-3)
    close("slope_zt", terrain.slope(tensor, pixel_m, "zevenbergen_thorne"), 2e-3)
    close("aspect", terrain.aspect_deg(tensor, pixel_m), 0.05, steep)
    close("aspect_zt", terrain.aspect_deg(tensor, pixel_m, "zevenbergen_thorne"), 0.05, steep)
    # gdaldem rounds to whole levels, hence half a level and what float32 adds to it.
    close("hillshade", 1 + 254 * terrain.hillshade(tensor, pixel_m), 0.5 + 1e-3)
    close("hillshade_low_east", 1 + 254 * terrain.hillshade(tensor, pixel_m, 100.0, 20.0), 0.5 + 1e-3)
    close("multidirectional_hillshade", 1 + 254 * terrain.multidirectional_hillshade(tensor, pixel_m), 0.5 + 1e-2)
    close("tri_riley", terrain.tri(tensor, pixel_m), 1e-3)
    close("tri_wilson", terrain.tri(tensor, pixel_m, "wilson"), 1e-3)
    close("tpi", terrain.tpi(tensor, pixel_m), 1e-3)
    close("tpi", terrain.tpi(tensor, pixel_m, radius_m=pixel_m), 1e-3)
    close("roughness", terrain.roughness(tensor, pixel_m), 1e-3)


def test_gdaldem_goldens():
    with np.load(goldens.GOLDENS) as stored:
        expected = dict(stored)
    compare_with_gdaldem(expected.pop("dem"), expected, goldens.PIXEL_M)


@pytest.mark.realdata
@pytest.mark.parametrize("path", ["kashmir_inventory/dem.tif", "rmnp_rgb_dem/utm13_120m/dem.tif"])
def test_gdaldem_live(path):
    root = os.environ.get("LANDSLIDE_DATA")
    if root is None:
        pytest.skip("LANDSLIDE_DATA is not set")
    if shutil.which("gdaldem") is None:
        pytest.skip("gdaldem is not installed (Debian package gdal-bin)")
    with rasterio.open(Path(root) / path) as raster:
        dem = raster.read(1).astype(np.float32)
        dem[dem == raster.nodata] = np.nan
        pixel_m = raster.res[0]
    compare_with_gdaldem(dem, goldens.gdaldem(Path(root) / path), pixel_m)


def quadric(derivatives, x_m=2.0, y_m=2.0, size=7):
    """Elevation with the given z_x, z_y, z_xx, z_xy, z_yy at the centre pixel; x to the east, y to the north."""
    p, q, r, s, t = derivatives
    steps = torch.arange(size, dtype=torch.float64) - size // 2
    x, y = steps[None, :] * x_m, -steps[:, None] * y_m
    return 800 + p * x + q * y + 0.5 * r * x * x + s * x * y + 0.5 * t * y * y


def test_curvatures_of_the_published_quadric():
    dem = quadric((0.3, -0.2, 0.01, 0.004, -0.006))
    assert terrain.profile_curvature(dem, 2.0)[3, 3].item() == pytest.approx(-0.0011526873, abs=1e-10)
    assert terrain.plan_curvature(dem, 2.0)[3, 3].item() == pytest.approx(-0.0072537718, abs=1e-10)
    assert terrain.tangential_curvature(dem, 2.0)[3, 3].item() == pytest.approx(-0.0024603469, abs=1e-10)


steep = st.floats(-2, 2).filter(lambda value: abs(value) > 1e-2)
bent = st.floats(-0.05, 0.05)


@given(derivatives=st.tuples(steep, steep, bent, bent, bent), x_m=st.floats(0.5, 30), y_m=st.floats(0.5, 30))
@settings(max_examples=50, deadline=None)
def test_quadrics_are_exact(derivatives, x_m, y_m):
    dem = quadric(derivatives, x_m, y_m)
    p, q, r, s, t = derivatives
    g = p * p + q * q
    across = r * q * q - 2 * s * p * q + t * p * p
    expected = {
        "slope": math.degrees(math.atan(math.sqrt(g))),
        "aspect_sin": -p / math.sqrt(g),
        "aspect_cos": -q / math.sqrt(g),
        "profile_curvature": -(r * p * p + 2 * s * p * q + t * q * q) / (g * (1 + g) ** 1.5),
        "tangential_curvature": -across / (g * math.sqrt(1 + g)),
        "plan_curvature": -across / g**1.5,
    }
    stack = terrain.terrain_layers(dem[None, None], (x_m, y_m), list(expected))[0, :, 3, 3]
    np.testing.assert_allclose(stack, list(expected.values()), atol=1e-9)


def test_flat_ground():
    dem = torch.full((5, 5), 812.5)
    inner = (2, 2)
    assert terrain.slope(dem, 1.0)[inner] == 0
    assert [part[inner] for part in terrain.aspect(dem, 1.0)] == [0, 0]
    assert terrain.aspect_deg(dem, 1.0)[inner].isnan()
    for shade in (terrain.hillshade, terrain.multidirectional_hillshade):
        assert shade(dem, 1.0)[inner].item() == pytest.approx(math.sin(math.radians(45)), abs=1e-6)
    for curvature in (terrain.profile_curvature, terrain.tangential_curvature, terrain.plan_curvature):
        assert curvature(dem, 1.0)[inner] == 0
    wide = torch.full((25, 25), 812.5)
    assert terrain.openness(wide, 1.0)[12, 12] == 90
    assert terrain.openness(wide, 1.0, "difference")[12, 12] == 0
    assert terrain.sky_view_factor(wide, 1.0)[12, 12] == 1


def turned(stack, names, turn, sine_cosine):
    """The layers of the turned model from those of the model: scalars move, the aspect vector turns too."""
    stack = turn(stack)
    east, north = stack[:, names.index("aspect_sin")].clone(), stack[:, names.index("aspect_cos")].clone()
    stack[:, names.index("aspect_sin")], stack[:, names.index("aspect_cos")] = sine_cosine(east, north)
    return stack


def multidirectional(dem, pixel_size, suns):
    sine, cosine = terrain.aspect(dem, pixel_size)
    aspect = torch.atan2(sine, cosine)
    lit = [torch.cos(aspect - math.radians(sun)) ** 2 * terrain.hillshade(dem, pixel_size, sun) for sun in suns]
    return sum(lit) / 2


SYMMETRIES = {
    "horizontal flip": (lambda a: a.flip(-1), lambda e, n: (-e, n), lambda azimuth: -azimuth, False),
    "vertical flip": (lambda a: a.flip(-2), lambda e, n: (e, -n), lambda azimuth: 180 - azimuth, False),
    # rot90 turns counter-clockwise: what looked east looks north.
    "quarter turn": (lambda a: a.rot90(1, (-2, -1)), lambda e, n: (-n, e), lambda azimuth: azimuth - 90, True),
    "half turn": (lambda a: a.rot90(2, (-2, -1)), lambda e, n: (-e, -n), lambda azimuth: azimuth + 180, False),
}


@pytest.mark.parametrize("name", SYMMETRIES)
@pytest.mark.parametrize("pixel_size", [(5.0, 5.0), (5.0, 7.0)])
def test_layers_turn_with_the_model(name, pixel_size):
    turn, sine_cosine, azimuth, swaps = SYMMETRIES[name]
    # The suns of the shades stand still while the terrain turns, so these turn back by the opposite angle.
    names = [layer for layer in EVERY if "hillshade" not in layer]
    dem = hills(2, 1, 40, 44)
    dem[0, 0, 11, 13] = torch.nan
    turned_size = pixel_size[::-1] if swaps else pixel_size
    expected = turned(terrain.terrain_layers(dem, pixel_size, names), names, turn, sine_cosine)
    torch.testing.assert_close(terrain.terrain_layers(turn(dem), turned_size, names), expected, equal_nan=True, rtol=1e-9, atol=1e-9)
    shade = terrain.hillshade(turn(dem), turned_size, azimuth(315.0))
    torch.testing.assert_close(shade, turn(terrain.hillshade(dem, pixel_size)), equal_nan=True, rtol=1e-9, atol=1e-9)
    # The suns of the turned model, seen from the model as it was.
    suns = [back for back in range(0, 360, 45) if (azimuth(back) - 225) % 360 in {0, 45, 90, 135}]
    shade = terrain.multidirectional_hillshade(turn(dem), turned_size)
    torch.testing.assert_close(shade, turn(multidirectional(dem, pixel_size, suns)), equal_nan=True, rtol=1e-9, atol=1e-9)
