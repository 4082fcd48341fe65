"""MRIFE's blocks and masking against numpy and loops."""

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from zoo.mrife.blocks import BlockRatios, block_classes, blocks_to_cells, blocks_to_pixels, choose_blocks


def numpy_classes(mask, block, mixed, min_valid):
    """One image, block by block."""
    height, width = mask.shape
    classes = np.full((-(-height // block), -(-width // block)), -1)
    for row in range(classes.shape[0]):
        for column in range(classes.shape[1]):
            part = mask[row * block : (row + 1) * block, column * block : (column + 1) * block]
            labelled = part[part != 255]
            if labelled.size == 0 or labelled.size < min_valid * block * block:
                continue
            share = float((labelled == 1).mean())
            classes[row, column] = 0 if share <= mixed else 2 if share >= 1 - mixed else 1
    return classes


@settings(max_examples=40, deadline=None)
@given(
    st.integers(0, 10**6),
    st.integers(1, 50),
    st.integers(1, 50),
    st.integers(1, 20),
    st.sampled_from([0.0, 0.25]),
    st.sampled_from([0.0, 0.5, 1.0]),
)
def test_block_classes_are_those_of_a_loop(seed, height, width, block, mixed, min_valid):
    rng = np.random.default_rng(seed)
    coarse = rng.choice([0, 1, 255], size=(2, -(-height // 8), -(-width // 8)), p=[0.5, 0.4, 0.1]).astype(np.uint8)
    mask = coarse.repeat(8, 1).repeat(8, 2)[:, :height, :width]
    expected = np.stack([numpy_classes(image, block, mixed, min_valid) for image in mask])
    assert np.array_equal(block_classes(torch.from_numpy(mask), block, mixed, min_valid).numpy(), expected)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 9), st.integers(1, 9), st.tuples(*[st.sampled_from([0.0, 0.3, 0.5, 0.6, 1.0])] * 4))
def test_masking_hits_the_stated_share_of_each_class_and_nothing_else(seed, rows, columns, ratios):
    torch.manual_seed(seed)
    classes = torch.randint(-1, 3, (3, rows, columns))
    classes[2] = classes[2].clamp(max=0)  # an image without edge
    background, edge, interior, without_edge = ratios
    chosen = choose_blocks(classes, BlockRatios(*ratios))
    for image, hit in zip(classes, chosen, strict=True):
        has_edge = bool((image == 1).any())
        for number, ratio in enumerate((background, edge, interior)):
            num = int((image == number).sum())
            share = np.float32(ratio if has_edge else without_edge)
            assert int(hit[image == number].sum()) == round(float(share * np.float32(num))), (number, num)
        assert not hit[image == -1].any()


def test_the_default_masks_edge_blocks_alone_and_every_one_of_them_as_often():
    classes = torch.tensor([[0, 1, 1, 2, 1, 1, 1, -1]]).view(1, 2, 4).expand(4000, 2, 4)
    torch.manual_seed(0)
    chosen = choose_blocks(classes, BlockRatios(0.0, 0.6, 0.0, 0.3)).float()
    assert torch.equal(chosen.flatten(1).sum(1), torch.full((4000,), 3.0))  # .6 of 5
    frequency = chosen.mean(0).flatten()
    assert torch.equal(frequency == 0, classes[0].flatten() != 1)
    assert torch.allclose(frequency[frequency > 0], torch.tensor(0.6), atol=0.04)  # 5 standard errors


def test_random_masking_draws_as_many_blocks_from_all_classes():
    classes = torch.tensor([[0, 1, 1, 2, 1, 1, 1, -1]]).view(1, 2, 4).expand(4000, 2, 4)
    torch.manual_seed(0)
    chosen = choose_blocks(classes, BlockRatios(0.0, 0.6, 0.0, 0.3), by_class=False).float()
    assert torch.equal(chosen.flatten(1).sum(1), torch.full((4000,), 3.0))
    frequency = chosen.mean(0).flatten()
    assert frequency[-1] == 0
    assert torch.allclose(frequency[:-1], torch.tensor(3 / 7), atol=0.04)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 70), st.integers(1, 70), st.integers(1, 40), st.sampled_from([4, 16, 32]))
def test_shares_of_cells_are_those_of_their_pixels(seed, height, width, block, stride):
    torch.manual_seed(seed)
    blocks = torch.rand(2, -(-height // block), -(-width // block)) < 0.5
    grid = (-(-height // stride) + 1, -(-width // stride))  # one row of cells beyond the image
    pixels = np.zeros((2, grid[0] * stride, grid[1] * stride))
    pixels[:, :height, :width] = np.kron(blocks.numpy(), np.ones((block, block)))[:, :height, :width]
    expected = pixels.reshape(2, grid[0], stride, grid[1], stride).mean((2, 4))
    shares = blocks_to_cells(blocks[:, None], block, stride, (height, width), grid)[:, 0]
    assert np.allclose(shares.numpy(), expected, atol=1e-6)
    assert np.array_equal(blocks_to_pixels(blocks, block, height, width).numpy(), pixels[:, :height, :width] > 0)
