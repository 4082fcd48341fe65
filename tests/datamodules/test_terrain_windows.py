"""Terrain layers with a radius, by name, in windows, in strips, with gradients and exported."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from datamodules import terrain
from datamodules.errors import UserError
from datamodules.terrain import stencil

EVERY = [*terrain.LAYERS, "tpi:25", "openness_positive:40", "openness_negative:40", "sky_view_factor:30", "local_relief:35"]


@pytest.fixture(autouse=True)
def _threads():
    torch.set_num_threads(1)


def hills(*shape, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    return (torch.rand(shape, generator=generator, dtype=torch.float64) * 40 + 700).to(dtype)


def march(dem, x_m, y_m, radius_m, directions):
    """Openness and sky view by walking every ray in steps of a pixel over the nearest pixels; NaN where it leaves the model."""
    height, width = dem.shape
    step = min(x_m, y_m)
    positive, negative, sky = (np.full(dem.shape, np.nan) for _ in range(3))
    for row, column in np.ndindex(height, width):
        highest, lowest = [], []
        for azimuth in np.arange(directions) * 2 * np.pi / directions:
            angles = []
            for number in range(1, int(2 * radius_m / step)):
                down = int(np.rint(-number * step * np.cos(azimuth) / y_m))
                right = int(np.rint(number * step * np.sin(azimuth) / x_m))
                away = math.hypot(down * y_m, right * x_m)
                if 0 < away <= radius_m:
                    inside = 0 <= row + down < height and 0 <= column + right < width
                    rise = dem[row + down, column + right] - dem[row, column] if inside else np.nan
                    angles.append(math.degrees(math.atan2(rise, away)))
            highest.append(np.max(angles))
            lowest.append(np.min(angles))
        positive[row, column] = np.mean(90 - np.array(highest))
        negative[row, column] = np.mean(90 + np.array(lowest))
        sky[row, column] = np.mean(1 - np.sin(np.radians(np.maximum(highest, 0))))
    return positive, negative, sky


@pytest.mark.parametrize(("x_m", "y_m", "radius_m", "directions"), [(2.0, 2.0, 11.0, 16), (3.0, 2.0, 9.0, 8)])
def test_openness_and_sky_view_by_ray_march(x_m, y_m, radius_m, directions):
    dem = hills(18, 20)
    dem[9, 15] = torch.nan
    positive, negative, sky = march(dem.numpy(), x_m, y_m, radius_m, directions)
    assert np.isfinite(positive).any()
    size = (x_m, y_m)
    np.testing.assert_allclose(terrain.openness(dem, size, "positive", radius_m, directions), positive, atol=1e-9)
    np.testing.assert_allclose(terrain.openness(dem, size, "negative", radius_m, directions), negative, atol=1e-9)
    np.testing.assert_allclose(terrain.openness(dem, size, "difference", radius_m, directions), (positive - negative) / 2, atol=1e-9)
    np.testing.assert_allclose(terrain.sky_view_factor(dem, size, radius_m, directions), sky, atol=1e-9)


@pytest.mark.parametrize("slope_deg", [10.0, 45.0, 70.0])
def test_openness_of_a_crater(slope_deg):
    steps = torch.arange(-12, 13, dtype=torch.float64) * 5.0
    crater = torch.hypot(steps[:, None], steps[None, :]) * math.tan(math.radians(slope_deg))
    at = (12, 12)
    assert terrain.openness(crater, 5.0, "positive", 60.0)[at].item() == pytest.approx(90 - slope_deg)
    assert terrain.openness(crater, 5.0, "negative", 60.0)[at].item() == pytest.approx(90 + slope_deg)
    assert terrain.sky_view_factor(crater, 5.0, 60.0)[at].item() == pytest.approx(1 - math.sin(math.radians(slope_deg)))


@given(radius=st.floats(1.0, 6.0), x_m=st.sampled_from([1.0, 1.5, 4.0]), y_m=st.sampled_from([1.0, 4.0]), hole=st.booleans())
@settings(max_examples=30, deadline=None)
def test_discs_by_brute_force(radius, x_m, y_m, hole):
    dem = hills(15, 17)
    if hole:
        dem[7, 8] = torch.nan
    radius_m = radius * max(x_m, y_m)
    z = dem.numpy()
    position, relief = np.full(z.shape, np.nan), np.full(z.shape, np.nan)
    reach = radius_m + (x_m + y_m) / 4
    offsets = [
        (down, right)
        for down in range(-40, 41)
        for right in range(-40, 41)
        # A last pixel exactly on the circle belongs to the disc; the sine of no angle decides it.
        if (down * y_m) ** 2 + (right * x_m) ** 2 <= reach**2 * (1 + 1e-9)
    ]
    for row, column in np.ndindex(*z.shape):
        if all(0 <= row + down < 15 and 0 <= column + right < 17 for down, right in offsets):
            disc = [z[row + down, column + right] for down, right in offsets]
            relief[row, column] = z[row, column] - np.mean(disc)
            position[row, column] = z[row, column] - (np.sum(disc) - z[row, column]) / (len(disc) - 1)
    np.testing.assert_allclose(terrain.local_relief(dem, (x_m, y_m), radius_m), relief, atol=1e-9)
    np.testing.assert_allclose(terrain.tpi(dem, (x_m, y_m), radius_m), position, atol=1e-9)


@pytest.mark.parametrize("name", EVERY)
def test_window_with_halo_equals_the_whole(name):
    dem = hills(1, 1, 72, 76, dtype=torch.float32)
    size = (5.0, 6.0)
    halo = terrain.halo_of([name], size)
    dem[..., 39, 39 + max(halo - 1, 0)] = torch.nan  # as far from the last pixel of the window as its halo still sees
    whole = terrain.terrain_layers(dem, size, [name])
    top, left, height, width = 26, 28, 14, 12
    window = dem[..., top - halo : top + height + halo, left - halo : left + width + halo]
    inner = terrain.terrain_layers(window, size, [name])[..., halo : halo + height, halo : halo + width]
    torch.testing.assert_close(inner, whole[..., top : top + height, left : left + width], equal_nan=True, rtol=1e-5, atol=1e-5)
    assert inner[..., 0, 0].isfinite()
    assert inner[..., -1, -1].isnan()
    if halo:
        # One pixel less would leave a rim.
        less = terrain.terrain_layers(window[..., 1:-1, 1:-1], size, [name])[
            ..., halo - 1 : -(halo - 1) or None, halo - 1 : -(halo - 1) or None
        ]
        assert less.isnan().any()


def test_strips_change_nothing(monkeypatch):
    dem = hills(2, 1, 90, 64)
    dem[0, 0, 33, 20] = torch.nan
    size = torch.tensor([[5.0, 5.0], [5.0, 6.0]])
    whole = terrain.terrain_layers(dem, size, EVERY)
    monkeypatch.setattr(stencil, "_STRIP", 256)
    assert stencil.in_strips(dem)
    torch.testing.assert_close(terrain.terrain_layers(dem, size, EVERY), whole, equal_nan=True)
    torch.testing.assert_close(terrain.slope(dem, size), whole[:, EVERY.index("slope")][:, None], equal_nan=True)
    with torch.inference_mode():
        torch.testing.assert_close(terrain.terrain_layers(dem, size, EVERY), whole, equal_nan=True)


def test_each_item_has_its_own_pixel_size():
    dem = hills(3, 1, 60, 60)
    sizes = torch.tensor([[5.0, 5.0], [2.0, 3.0], [4.0, 4.0]], dtype=torch.float64)
    names = ["slope", "aspect_sin", "hillshade", "plan_curvature", "tpi:12", "openness_positive:20", "local_relief:10", "tri"]
    together = terrain.terrain_layers(dem, sizes, names)
    for item, size in enumerate(sizes):
        one = terrain.terrain_layers(dem[item : item + 1], size, names)
        torch.testing.assert_close(together[item : item + 1], one, equal_nan=True)
        torch.testing.assert_close(one, terrain.terrain_layers(dem[item : item + 1], tuple(size.tolist()), names), equal_nan=True)
    assert terrain.halo_of(names, sizes) == max(terrain.halo_of(names, size) for size in sizes) == 10


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", EVERY)
def test_the_stack_holds_the_single_layers(name, dtype):
    dem = hills(2, 1, 48, 50, dtype=dtype)
    layer = terrain.LAYERS[name]
    single = layer(dem, 5.0)
    assert single.dtype == dtype
    assert single.shape == dem.shape
    stack = terrain.terrain_layers(dem, 5.0, ["slope", name])
    torch.testing.assert_close(stack[:, 1:], single, equal_nan=True)
    # Rough as this ground is, angles and shades stay in their physical range.
    if layer.unit in {"degrees", ""}:
        known = single[~single.isnan()]
        assert layer.low <= known.min()
        assert known.max() <= layer.high


@pytest.mark.parametrize("name", EVERY)
def test_gradients_are_finite_everywhere(name):
    dem = hills(1, 1, 60, 60, dtype=torch.float32)
    dem[..., 30:, :] = 750.0  # flat
    dem[..., 20, 20] = torch.nan
    dem.requires_grad_()
    values = terrain.terrain_layers(dem, 5.0, [name])
    with torch.no_grad():
        torch.testing.assert_close(values, terrain.terrain_layers(dem, 5.0, [name]), equal_nan=True)
    values.nansum().backward()
    assert dem.grad.isfinite().all()
    assert dem.grad.abs().sum() > 0


def test_gradients_are_right():
    dem = (hills(1, 1, 6, 6) / 10).requires_grad_()
    names = ["slope", "aspect_sin", "aspect_cos", "hillshade", "profile_curvature", "plan_curvature", "tri", "tpi:5", "roughness"]
    assert torch.autograd.gradcheck(lambda z: terrain.terrain_layers(z, 3.0, names)[..., 2:-2, 2:-2].nan_to_num(), dem)


def test_flat_float32_gradients_do_not_overflow():
    dem = (torch.rand(1, 1, 12, 12) * 1e-12).requires_grad_()
    terrain.terrain_layers(dem, 1.0, ["slope", "aspect_sin", "plan_curvature", "tri"]).nansum().backward()
    assert dem.grad.isfinite().all()


@given(height=st.integers(1, 9), width=st.integers(1, 9), name=st.sampled_from(EVERY))
@settings(max_examples=40, deadline=None)
def test_any_size(height, width, name):
    dem = hills(1, 1, height, width)
    stack = terrain.terrain_layers(dem, 5.0, [name])
    assert stack.shape == dem.shape
    halo = terrain.halo_of([name], 5.0)
    expected = torch.full_like(dem, True, dtype=torch.bool)
    if height > 2 * halo and width > 2 * halo:
        expected[..., halo : height - halo, halo : width - halo] = False
    assert torch.equal(stack.isnan(), expected)


@pytest.mark.parametrize("position", [(row, column) for row in range(3) for column in range(3)])
def test_every_missing_neighbour_counts(position):
    names = [name for name in terrain.LAYERS if terrain.halo_of([name], 5.0) == 1]
    dem = hills(1, 1, 3, 3)
    assert terrain.terrain_layers(dem, 5.0, names)[..., 1, 1].isfinite().all()
    dem[0, 0][position] = torch.nan
    assert terrain.terrain_layers(dem, 5.0, names)[..., 1, 1].isnan().all()
    assert terrain.slope(dem, 5.0, "zevenbergen_thorne")[..., 1, 1].isnan()
    assert all(part[..., 1, 1].isnan() for part in terrain.aspect(dem, 5.0, "zevenbergen_thorne"))


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("slop", "slope"),
        ("openess_positive:30", "openness_positive"),
        ("tpi:", "positive metres"),
        ("tpi:-3", "positive metres"),
        ("tpi:wide", "positive metres"),
        ("slope:30", "takes no radius"),
        ("zzz", "use one of"),
        ("tpi:1", "at least one neighbour"),
        ("openness_positive:3", "no pixel lies"),
    ],
)
def test_wrong_names(name, words):
    for ask in (lambda: terrain.terrain_layers(hills(1, 1, 9, 9), 5.0, [name]), lambda: terrain.halo_of([name], 5.0)):
        with pytest.raises(UserError, match=words):
            ask()


def test_wrong_arguments():
    dem = hills(1, 1, 9, 9)
    for call in (
        lambda: terrain.slope(dem, 0.0),
        lambda: terrain.slope(dem, (5.0, -5.0)),
        lambda: terrain.slope(dem, 5.0, "sobel"),
        lambda: terrain.tri(dem, 5.0, "jenness"),
        lambda: terrain.openness(dem, 5.0, "upwards"),
        lambda: terrain.openness(dem, 5.0, directions=2),
    ):
        with pytest.raises(UserError):
            call()
    with pytest.raises(TypeError, match="float32 or float64"):
        terrain.slope(dem.bfloat16(), 5.0)
    with pytest.raises(ValueError, match="pixel_size"):
        terrain.slope(dem, torch.ones(3, 2))
    with pytest.raises(ValueError, match="B, 1, H, W"):
        terrain.terrain_layers(dem[0], 5.0, ["slope"])
    assert terrain.terrain_layers(dem, 5.0, []).shape == (1, 0, 9, 9)


def test_exports_as_one_graph_with_free_sizes():
    names = ["elevation", "slope", "aspect_sin", "aspect_cos", "hillshade", "profile_curvature", "tri"]

    class Stack(torch.nn.Module):
        def forward(self, dem, pixel_size):
            return terrain.terrain_layers(dem, pixel_size, names)

    free = {
        "dem": {0: torch.export.Dim("items"), 2: torch.export.Dim("height", min=8), 3: torch.export.Dim("width", min=8)},
        "pixel_size": {0: torch.export.Dim("items")},
    }
    program = torch.export.export(Stack(), (hills(2, 1, 20, 24), torch.full((2, 2), 5.0)), dynamic_shapes=free)
    dem, size = hills(3, 1, 200, 180), torch.tensor([[5.0, 5.0], [2.0, 3.0], [1.0, 1.0]])
    torch.testing.assert_close(program.module()(dem, size), terrain.terrain_layers(dem, size, names), equal_nan=True)


def test_compiles_as_one_graph():
    names = [*(name for name in terrain.LAYERS if not terrain.LAYERS[name].reach), "tpi:10", "local_relief:10", "openness_difference:10"]
    compiled = torch.compile(lambda dem: terrain.terrain_layers(dem, 5.0, names), fullgraph=True, backend="eager")
    dem = hills(1, 1, 30, 32)
    torch.testing.assert_close(compiled(dem), terrain.terrain_layers(dem, 5.0, names), equal_nan=True)
