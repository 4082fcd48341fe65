"""Blended tiles against the network's own answer to the whole scene in one tile; nodata, symmetries, ensembles."""

import numpy as np
import pytest
import rasterio
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from rasterio.transform import from_origin

from zoo.mapping import Ensemble, predict_scene
from zoo.mapping.ensemble import D4, _turn, _turn_back

ONE_TILE = 100_000


def joined(bands):
    """Bands as (probability, valid, uncertainty), checked for gaps."""
    bands, row = list(bands), 0
    for band in bands:
        assert band.row == row
        row += len(band.valid)
    uncertainty = None if bands[0].uncertainty is None else np.concatenate([band.uncertainty for band in bands])
    return np.concatenate([band.probability for band in bands]), np.concatenate([band.valid for band in bands]), uncertainty


def hills(height, width, seed=0):
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:height, :width]
    return (500 + 20 * np.sin(rows / 7) + 15 * np.cos(columns / 5) + rng.random((height, width))).astype(np.float32)


MANY = settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@MANY
@given(
    tile=st.integers(1, 48),
    height=st.floats(0, 3),
    width=st.floats(0, 3),
    overlap=st.one_of(st.just(0.0), st.just(0.25), st.just(0.5), st.floats(0, 0.5)),
    batch_size=st.integers(1, 5),
    context=st.one_of(st.just(0), st.integers(1, 12)),
)
@example(tile=20, height=3, width=2.5, overlap=0.0, batch_size=2, context=5)  # stride = tile, and a network that reaches 5 pixels
def test_tiles_of_an_equivariant_network_blend_to_its_answer_in_one_pass(
    open_scene, build, tile, height, width, overlap, batch_size, context
):
    height, width = max(1, round(height * tile)), max(1, round(width * tile))
    reach = min(round(overlap * tile), tile - 1) // 4 + context  # the margin that is left out, and what is seen beyond the tile
    image = np.random.default_rng(tile).integers(0, 255, (3, height, width)).astype(np.uint8)
    ensemble, reader = Ensemble([build(reach=reach)]), open_scene(image)
    whole, _, _ = joined(predict_scene(ensemble, reader, tile=ONE_TILE))
    module = ensemble.modules[0]
    with torch.no_grad():
        expected = torch.sigmoid(module.network(torch.from_numpy(image)[None].float(), None, None))[0, 0].numpy()
    blended, valid, _ = joined(predict_scene(ensemble, reader, tile=tile, overlap=overlap, batch_size=batch_size, context=context))
    np.testing.assert_allclose(whole, expected, atol=1e-6)
    np.testing.assert_allclose(blended, expected, atol=1e-5)
    assert valid.all()


def test_a_network_that_reaches_further_than_it_is_shown_leaves_seams(open_scene, build):
    image = np.random.default_rng(0).integers(0, 255, (3, 60, 60)).astype(np.uint8)
    ensemble, reader = Ensemble([build(reach=5)]), open_scene(image)
    whole = joined(predict_scene(ensemble, reader, tile=ONE_TILE))[0]
    apart = {c: np.abs(joined(predict_scene(ensemble, reader, tile=20, overlap=0.0, context=c))[0] - whole).max() for c in (0, 4, 5)}
    assert apart[0] > apart[4] > 1e-3
    assert apart[5] < 1e-5


@pytest.mark.parametrize(("tile", "context"), [(16, 0), (37, 0), (16, 7)])
def test_terrain_has_no_rim_at_tiles(open_scene, build, networks, tile, context):
    dem = hills(90, 70)
    ensemble = Ensemble([build(networks["terrain"], inputs="dem", terrain=("slope", "tpi:10"))])
    reader = open_scene(np.full((3, 90, 70), 9, dtype=np.uint8), dem, margin=ensemble.halo((2.0, 2.0)))
    whole, _, _ = joined(predict_scene(ensemble, reader, tile=ONE_TILE))
    blended, valid, _ = joined(predict_scene(ensemble, reader, tile=tile, context=context))
    # Beyond the scene there is no elevation, and what the network puts in place of a layer there is not a function of the place alone.
    inner = np.s_[ensemble.halo((2.0, 2.0)) : -ensemble.halo((2.0, 2.0)),] * 2
    np.testing.assert_allclose(blended[inner], whole[inner], atol=1e-5)
    assert valid.all()


def test_a_scene_can_be_entered_at_any_row(open_scene, build):
    image = np.random.default_rng(0).integers(0, 255, (3, 75, 40)).astype(np.uint8)
    ensemble, reader = Ensemble([build(reach=1)]), open_scene(image)
    whole, _, _ = joined(predict_scene(ensemble, reader, tile=20))
    for first in range(0, 75, 7):
        bands = list(predict_scene(ensemble, reader, tile=20, first_row=first))
        assert bands[0].row == first
        assert (np.concatenate([band.probability for band in bands]) == whole[first:]).all()
    assert not list(predict_scene(ensemble, reader, tile=20, first_row=75))


def test_a_pixel_without_image_or_needed_elevation_is_not_valid_and_changes_nothing_else(open_scene, build, networks):
    rng = np.random.default_rng(0)
    image, dem = rng.integers(1, 255, (3, 64, 64)).astype(np.uint8), hills(64, 64)
    image[:, 20:40, 8:30], image[:, :, 60:] = 0, 0
    holes = dem.copy()
    holes[50:55, 3:20] = -9999
    missing = (image == 0).all(0)
    for inputs, context in (("image", 0), ("both", 0), ("both", 3)):
        ensemble = Ensemble([build(inputs=inputs)])
        reader = open_scene(image, holes, margin=1, nodata=0)
        probability, valid, _ = joined(predict_scene(ensemble, reader, tile=16, context=context))
        assert (valid == ~(missing | ((holes == -9999) if inputs == "both" else False))).all()
        assert np.isfinite(probability).all()
    single = Ensemble([build()])
    without, _, _ = joined(predict_scene(single, open_scene(image, nodata=0), tile=16))
    within, _, _ = joined(predict_scene(single, open_scene(image), tile=16))
    np.testing.assert_allclose(without[~missing], within[~missing], atol=1e-6)


def test_no_network_sees_a_tile_without_data(open_scene, build):
    image = np.zeros((3, 64, 64), dtype=np.uint8)
    image[:, :16, :16] = 7
    ensemble, seen = Ensemble([build()]), []
    ensemble.modules[0].network.register_forward_hook(lambda module, inputs, output: seen.append(len(output)))
    _, valid, _ = joined(predict_scene(ensemble, open_scene(image, nodata=0), tile=16, overlap=0))
    assert sum(seen) == 1
    assert valid.sum() == 256


def test_terrain_is_derived_after_the_turn(open_scene, build, networks):
    """A slope that faces west faces east in a mirrored tile and north or south in one that is turned; turned layers would all say west."""
    dem = 100 + 2 * np.mgrid[:30, :30][1]
    ensemble = Ensemble([build(networks["terrain"], inputs="dem", terrain=("aspect_sin",))], "d4")
    reader = open_scene(np.full((3, 30, 30), 9, dtype=np.uint8), dem, margin=1)
    mean, _, spread = joined(predict_scene(ensemble, reader, tile=30))
    # The sine of the aspect is -1 twice, 1 twice and 0 four times, and the network gives its sigmoid.
    members = 1 / (1 + np.exp(-np.array([-1, -1, 1, 1, 0, 0, 0, 0])))
    np.testing.assert_allclose(mean[5:-5, 5:-5], members.mean(), atol=1e-5)
    np.testing.assert_allclose(spread[5:-5, 5:-5], members.std(), atol=1e-5)


def test_d4_takes_each_symmetry_once_and_turns_back():
    values = torch.arange(12.0).view(1, 1, 3, 4)
    turned = {tuple(_turn(values, *symmetry).flatten().tolist()) for symmetry in D4}
    assert len(turned) == 8
    for symmetry in D4:
        assert torch.equal(_turn_back(_turn(values, *symmetry), *symmetry), values)


def test_slopes_of_oblong_pixels_are_the_same_in_every_turn(open_scene, build, networks):
    module = build(networks["terrain"], inputs="dem", terrain=("slope",))
    dem = hills(40, 30)
    place = from_origin(500_000, 4_000_000, 2, 5)
    reader = open_scene(np.full((3, 40, 30), 9, dtype=np.uint8), dem, margin=1, transform=place)
    with rasterio.open(reader.scene.dem, "r+") as file:
        file.transform = place
    reader.close()
    plain, _, none = joined(predict_scene(Ensemble([module]), reader, tile=17))
    mean, _, spread = joined(predict_scene(Ensemble([module], "d4"), reader, tile=17))
    assert none is None
    np.testing.assert_allclose(mean, plain, atol=1e-5)
    assert spread.max() < 1e-5


def test_mean_and_spread_of_an_ensemble_are_numpys(open_scene, build):
    image = np.random.default_rng(0).integers(0, 255, (3, 40, 30)).astype(np.uint8)
    modules = [build(reach=reach) for reach in (0, 1, 2)]
    reader = open_scene(image)
    single = [joined(predict_scene(Ensemble([module]), reader, tile=20, overlap=0.5))[0] for module in modules]
    mean, _, spread = joined(predict_scene(Ensemble(modules), reader, tile=20, overlap=0.5))
    np.testing.assert_allclose(mean, np.mean(single, axis=0), atol=1e-5)
    np.testing.assert_allclose(spread, np.std(single, axis=0), atol=1e-5)
    equal = joined(predict_scene(Ensemble([modules[0]] * 3), reader, tile=20))[2]
    assert not equal.any()
