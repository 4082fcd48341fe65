"""Cells against scipy.ndimage and numpy on the pixel grid."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from zoo.contrast import boundary_cells, cell_shares, gather_cells, sample_cells
from zoo.contrast.cells import cell_elevation, component_labels

EIGHT = np.ones((3, 3), dtype=bool)


def blobs(rng, shape, ignored=0.1):
    """Smooth random mask with ignored patches and a few ignored single pixels."""
    noise = ndimage.gaussian_filter(rng.normal(size=shape), 4)
    mask = (noise > np.quantile(noise, 0.7)).astype(np.uint8)
    patches = ndimage.gaussian_filter(rng.normal(size=shape), 3)
    mask[patches > np.quantile(patches, 1 - ignored)] = 255
    mask[rng.random(shape) < 0.001] = 255
    return mask


def reference_shares(mask, stride, size):
    landslide, valid = np.zeros(size, np.float64), np.zeros(size, np.float64)
    for row in range(size[0]):
        for column in range(size[1]):
            cell = mask[row * stride : (row + 1) * stride, column * stride : (column + 1) * stride]
            num_valid = (cell != 255).sum()
            valid[row, column] = num_valid / stride**2
            landslide[row, column] = (cell == 1).sum() / num_valid if num_valid else 0
    return landslide, valid


def reference_touched(mask, stride, size, radius):
    square = np.ones((2 * radius + 1, 2 * radius + 1), dtype=bool)
    landslide, background = mask == 1, mask == 0
    band = (landslide & ndimage.binary_dilation(background, square)) | (background & ndimage.binary_dilation(landslide, square))
    touched = np.zeros(size, dtype=bool)
    for row, column in zip(*np.nonzero(band), strict=True):
        touched[row // stride, column // stride] = True
    return touched


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    shape=st.tuples(st.integers(9, 70), st.integers(9, 70)),
    grid=st.tuples(st.sampled_from([2, 4, 8, 16]), st.integers(0, 2)),
    radius=st.integers(0, 20),
    min_valid=st.sampled_from([0.3, 1.0]),
)
def test_shares_and_boundary_are_those_of_scipy(seed, shape, grid, radius, min_valid):
    (height, width), (stride, extra) = shape, grid
    rng = np.random.default_rng(seed)
    masks = np.stack([blobs(rng, (height, width)) for _ in range(2)])
    size = (math.ceil(height / stride) + extra, math.ceil(width / stride) + extra)
    given_size = size if extra else None
    shares = cell_shares(torch.from_numpy(masks), stride, given_size)
    cells = boundary_cells(torch.from_numpy(masks), stride, size=given_size, radius=radius, min_valid_share=min_valid)
    for k, mask in enumerate(masks):
        landslide, valid = reference_shares(mask, stride, size)
        np.testing.assert_allclose(shares.landslide_share[k], landslide, atol=1e-6)
        np.testing.assert_allclose(shares.valid_share[k], valid, atol=1e-6)
        touched = reference_touched(mask, stride, size, radius)
        np.testing.assert_array_equal(cells.inner[k], touched & (landslide >= 0.5) & (valid >= min_valid))
        np.testing.assert_array_equal(cells.outer[k], touched & (landslide == 0) & (valid >= min_valid))


def test_default_radius_is_one_cell():
    mask = torch.zeros(1, 64, 64, dtype=torch.uint8)
    mask[:, :, 32:] = 1
    cells = boundary_cells(mask, 8)
    assert cells.inner[0].nonzero()[:, 1].unique().tolist() == [4]
    assert cells.outer[0].nonzero()[:, 1].unique().tolist() == [3]


def test_ignored_pixels_make_no_boundary():
    mask = torch.ones(1, 32, 32, dtype=torch.uint8)
    mask[:, :, :16] = 255
    cells = boundary_cells(mask, 8, min_valid_share=0.0)
    assert not cells.inner.any()
    assert not cells.outer.any()
    everywhere = boundary_cells(torch.full((1, 32, 32), 255, dtype=torch.uint8), 8, min_valid_share=0.0)
    assert not everywhere.inner.any()


def test_a_grid_that_does_not_cover_the_mask_is_refused():
    with pytest.raises(ValueError, match="does not cover"):
        cell_shares(torch.zeros(1, 33, 32, dtype=torch.uint8), 16, (2, 2))


def spiral(size):
    """The longest way round that a square holds."""
    grid = np.zeros((size, size), dtype=bool)
    low, high, column = 0, size - 1, 0
    while low <= high:
        grid[low, column : high + 1] = grid[low : high + 1, high] = grid[high, low : high + 1] = True
        grid[low + 2 : high + 1, low] = True
        column, low, high = low + 1, low + 2, high - 2
    return grid


def meander(size):
    grid = np.zeros((size, size), dtype=bool)
    grid[::2] = True
    for turn, row in enumerate(range(1, size - 1, 2)):
        grid[row, -1 if turn % 2 == 0 else 0] = True
    return grid


def assert_same_partition(foreground, labels):
    reference, num = ndimage.label(foreground, EIGHT)
    assert len(np.unique(labels[foreground])) == num
    assert len(set(zip(reference[foreground], labels[foreground], strict=True))) == num
    assert not labels[~foreground].any()


@pytest.mark.parametrize("size", [2, 7, 16, 33, 64])
def test_components_are_those_of_scipy(size):
    rng = np.random.default_rng(size)
    shapes = [np.rot90(shape, turn).copy() for shape in (spiral(size), meander(size)) for turn in range(4)]
    shapes += [rng.random((size, size)) < share for share in (0.2, 0.36, 0.4, 0.41, 0.45, 0.6, 1.0) for _ in range(8)]
    assert ndimage.label(spiral(size), EIGHT)[1] == 1
    labels = component_labels(torch.from_numpy(np.stack(shapes)))
    for shape, label in zip(shapes, labels.numpy(), strict=True):
        assert_same_partition(shape, label)
        for value in np.unique(label[shape]):
            assert value == 1 + np.flatnonzero(label.ravel() == value).max()


def reference_back_side(mask, dem, stride, radius, quantile):
    """Per landslide: a loop over scipy's components, numpy's quantile."""
    size = (mask.shape[0] // stride, mask.shape[1] // stride)
    share, valid = reference_shares(mask, stride, size)
    touched = reference_touched(mask, stride, size, radius)
    inner, outer = touched & (share >= 0.5) & (valid == 1), touched & (share == 0) & (valid == 1)
    blocks = dem.reshape(size[0], stride, size[1], stride).transpose(0, 2, 1, 3).reshape(*size, -1).astype(np.float64)
    known = ~np.isnan(blocks)
    elevation = np.where(known.any(-1), np.where(known, blocks, 0).sum(-1) / np.maximum(known.sum(-1), 1), np.nan)
    components, num = ndimage.label(share >= 0.5, EIGHT)
    order = {k: 1 + np.flatnonzero((components == k).ravel()).max() for k in range(1, num + 1)}
    labels = np.vectorize(lambda k: order.get(k, 0), otypes=[np.int64])(components)
    # Nearest landslide by chessboard distance; of equals the largest label.
    nearest = np.zeros(size, np.int64)
    for row in range(size[0]):
        for column in range(size[1]):
            for reach in range(math.ceil(radius / stride) + 2):
                window = labels[max(row - reach, 0) : row + reach + 1, max(column - reach, 0) : column + reach + 1]
                if window.any():
                    nearest[row, column] = window.max()
                    break
    kept = []
    for cells, owner in ((inner, labels), (outer, nearest)):
        result = np.zeros(size, dtype=bool)
        for label in order.values():
            members = cells & (owner == label) & ~np.isnan(elevation)
            if members.any():
                above = elevation > np.quantile(elevation[members], quantile) + 1e-9
                result |= members & (above | (elevation == elevation[members].max()))
        kept.append(result)
    return kept, (inner, outer)


@pytest.mark.parametrize("seed", range(12))
def test_toe_is_dropped_as_by_scipy_and_numpy(seed):
    rng = np.random.default_rng(seed)
    masks = np.stack([blobs(rng, (96, 128), ignored=0.03) for _ in range(2)])
    # Elevations in quarter metres, so that float32 means and float64 means are equal and ties are ties.
    dems = np.round(1000 + 300 * ndimage.gaussian_filter(rng.normal(size=masks.shape), (0, 5, 5)) / 0.05) / 4
    dems[:, 40:52, 40:60] = np.nan
    halo = np.full((2, 1, 96 + 6, 128 + 6), 9999.0, dtype=np.float32)
    halo[:, 0, 3:-3, 3:-3] = dems
    cells = boundary_cells(torch.from_numpy(masks), 4, radius=6, parts="back_side", dem=torch.from_numpy(halo), toe_quantile=0.25)
    dropped = 0
    for k in range(2):
        (inner, outer), (all_inner, all_outer) = reference_back_side(masks[k], dems[k], 4, 6, 0.25)
        np.testing.assert_array_equal(cells.inner[k], inner)
        np.testing.assert_array_equal(cells.outer[k], outer)
        dropped += (all_inner & ~inner).sum() + (all_outer & ~outer).sum()
    assert dropped > 20


def test_back_side_of_a_slope_and_of_level_ground():
    mask = torch.zeros(1, 96, 96, dtype=torch.uint8)
    mask[:, 24:72, 24:72] = 1
    down = torch.linspace(200, 100, 96).view(1, 1, 96, 1).expand(1, 1, 96, 96)
    every = boundary_cells(mask, 8)
    kept = boundary_cells(mask, 8, parts="back_side", dem=down)
    assert not kept.inner[0, 8].any(), "the foot of the slope is the toe"
    assert torch.equal(kept.inner[0, 3:7], every.inner[0, 3:7])
    level = boundary_cells(mask, 8, parts="back_side", dem=torch.full((1, 1, 96, 96), 50.0))
    assert torch.equal(level.inner, every.inner)
    unknown = boundary_cells(mask, 8, parts="back_side", dem=torch.full((1, 1, 96, 96), math.nan))
    assert not unknown.inner.any()
    with pytest.raises(ValueError, match="pass dem"):
        boundary_cells(mask, 8, parts="back_side")
    with pytest.raises(ValueError, match="halo"):
        cell_elevation(torch.zeros(1, 1, 97, 96), (96, 96), 8)


def test_sampling_takes_what_there_is():
    candidates = torch.zeros(4, 5, 7, dtype=torch.bool)
    candidates[1, 2, 3] = True
    candidates[2, :2] = True
    candidates[3] = True
    for num in (1, 6, 35, 50):
        index, valid = sample_cells(candidates, num)
        assert index.shape == valid.shape == (4, num)
        assert valid.sum(1).tolist() == [min(num, count) for count in (0, 1, 14, 35)]
        for sample in range(4):
            chosen = index[sample][valid[sample]]
            assert len(chosen.unique()) == len(chosen)
            assert candidates[sample].flatten()[chosen].all()
        assert ((index >= 0) & (index < 35)).all()


def test_sampling_is_uniform_and_repeatable():
    candidates = torch.zeros(1, 4, 5, dtype=torch.bool)
    candidates[0, 1:3, 1:] = True
    index, valid = sample_cells(candidates.expand(20_000, 4, 5), 3, torch.Generator().manual_seed(0))
    again, _ = sample_cells(candidates.expand(20_000, 4, 5), 3, torch.Generator().manual_seed(0))
    assert torch.equal(index, again)
    assert valid.all()
    counts = torch.bincount(index.flatten(), minlength=20)[candidates.flatten()].double()
    # 8 candidates, 3 drawn: 7,500 each, standard deviation 68.
    assert (counts - 7500).abs().max() < 5 * 68


def test_gather_picks_the_cells_and_passes_gradient():
    features = torch.randn(2, 3, 4, 5, requires_grad=True)
    index = torch.tensor([[0, 7, 19], [3, 3, 11]])
    gathered = gather_cells(features, index)
    for sample in range(2):
        for slot in range(3):
            row, column = divmod(int(index[sample, slot]), 5)
            assert torch.equal(gathered[sample, slot], features[sample, :, row, column])
    gathered.sum().backward()
    assert features.grad[1, :, 0, 3].tolist() == [2, 2, 2]
    assert features.grad.sum() == 18


def test_shapes_do_not_depend_on_data():
    """A full graph exists only where nothing reads a value back: no `.item()`, no data-dependent shape."""

    @torch.compile(fullgraph=True, backend="eager")
    def step(mask, dem, features):
        inner, outer = boundary_cells(mask, 8, parts="back_side", dem=dem)
        index, valid = sample_cells(inner | outer, 6)
        return gather_cells(features, index), valid, component_labels(inner)

    mask = torch.from_numpy(blobs(np.random.default_rng(0), (32, 40)))[None]
    gathered, valid, _ = step(mask, torch.rand(1, 1, 32, 40), torch.randn(1, 3, 4, 5))
    assert gathered.shape == (1, 6, 3)
    assert valid.shape == (1, 6)
