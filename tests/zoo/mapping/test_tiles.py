"""Tiles and weights along one axis, and their sums over a scene."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from datamodules.errors import UserError
from zoo.mapping.tiles import Axis, RowBlend

TILES = st.integers(1, 40)
OVERLAPS = st.one_of(st.just(0.0), st.just(0.5), st.floats(0, 0.5))


@given(TILES, st.floats(0, 3), OVERLAPS)
def test_weights_of_a_pixel_sum_to_one_and_tiles_stay_inside(tile, tiles, overlap):
    length = max(1, round(tiles * tile))
    axis = Axis.of(length, tile, overlap)
    total = np.zeros(length)
    for start, weights in zip(axis.starts, axis.weights, strict=True):
        assert 0 <= start <= length - axis.size
        assert (weights >= 0).all()
        total[start : start + axis.size] += weights
    assert np.abs(total - 1).max() < 1e-6
    assert axis.starts == sorted(set(axis.starts))
    assert axis.final(len(axis.starts) - 1) == length


@given(TILES, st.floats(0, 3), OVERLAPS)
def test_what_is_final_is_touched_by_no_later_tile(tile, tiles, overlap):
    axis = Axis.of(max(1, round(tiles * tile)), tile, overlap)
    for number in range(len(axis.starts)):
        assert all(start >= axis.final(number) for start in axis.starts[number + 1 :])
        assert axis.final(number) - axis.starts[number] <= axis.size


@given(TILES, st.floats(0, 3), OVERLAPS, st.integers(0, 50))
def test_what_is_shown_reaches_beyond_a_tile_or_to_the_edge_of_the_scene(tile, tiles, overlap, context):
    axis = Axis.of(max(1, round(tiles * tile)), tile, overlap, context)
    for number, (start, read) in enumerate(zip(axis.starts, axis.reads, strict=True)):
        assert 0 <= read <= max(start - context, 0)
        assert min(start + axis.size + context, axis.length) <= read + axis.seen <= axis.length
        assert np.arange(read, read + axis.seen)[axis.part(number)].tolist() == list(range(start, start + axis.size))
    if not context:
        assert axis.reads == axis.starts


def test_formula_of_the_weights():
    axis = Axis.of(28, 16, 0.25)  # V = 4, m = 1: two tiles of 16 that share 4 pixels
    assert axis.starts == [0, 12]
    ramp = [0, np.sin(np.pi / 2 * 0.25) ** 2, np.sin(np.pi / 2 * 0.75) ** 2, 1]
    np.testing.assert_allclose(axis.weights[1], [*ramp, *[1] * 12], atol=1e-7)
    np.testing.assert_allclose(axis.weights[0], [*[1] * 12, *ramp[::-1]], atol=1e-7)


@given(st.integers(8, 40), st.floats(1, 3), OVERLAPS)
def test_neighbours_are_left_out_of_the_outermost_pixels(tile, tiles, overlap):
    axis = Axis.of(round(tiles * tile), tile, overlap)
    margin = min(round(overlap * tile), tile - 1) // 4
    if margin:
        assert not axis.weights[1:, :margin].any()
        assert not axis.weights[:-1, -margin:].any()


@given(st.integers(1, 12), st.integers(1, 40), st.integers(1, 40), OVERLAPS)
def test_a_blend_of_the_scene_itself_is_the_scene(tile, height, width, overlap):
    values = np.random.default_rng(0).random((2, height, width), dtype=np.float32)
    known = values[0] > 0.3
    rows, columns = Axis.of(height, tile, overlap), Axis.of(width, tile, overlap)
    blend, found, valid, expected = RowBlend(rows, columns, 2), [], [], 0
    for number, row in enumerate(rows.starts):
        for position, column in enumerate(columns.starts):
            window = np.s_[row : row + rows.size, column : column + columns.size]
            blend.add(number, position, values[:, *window], known[window])
        first, part, mask = blend.finish(number)
        assert first == expected
        expected += mask.shape[0]
        found.append(part)
        valid.append(mask)
    np.testing.assert_allclose(np.concatenate(found, axis=1), values, atol=1e-6)
    assert (np.concatenate(valid) == known).all()


def test_a_context_below_0_is_refused():
    with pytest.raises(UserError, match="context"):
        Axis.of(100, 16, 0.25, -1)


@pytest.mark.parametrize(
    ("tile", "overlap", "field"), [(0, 0.25, "tile"), (16, 0.6, "overlap"), (16, -0.1, "overlap"), (16, np.nan, "overlap")]
)
def test_options_out_of_range_are_refused(tile, overlap, field):
    with pytest.raises(UserError, match=field):
        Axis.of(100, tile, overlap)
