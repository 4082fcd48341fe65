"""Blocks of the image: background, edge or interior by the labels in them; drawing some to mask; and where they lie on a feature map."""

from typing import Final, NamedTuple

import torch
from torch import Tensor

from zoo.contrast import cell_shares

UNCLASSED: Final = -1
BACKGROUND_BLOCK: Final = 0
EDGE_BLOCK: Final = 1
INTERIOR_BLOCK: Final = 2
NUM_CLASSES: Final = 3


class BlockRatios(NamedTuple):
    """Share of an image's blocks to mask, each in [0, 1]."""

    background: float
    edge: float
    interior: float
    without_edge: float
    """Of all classed blocks of an image that has no edge block."""


@torch.no_grad()
def block_classes(mask: Tensor, block_size: int, mixed_share: float = 0.0, min_valid_share: float = 0.5) -> Tensor:
    """Class of each block by the share of landslide among its labelled pixels.

    Args:
        mask: uint8 (B, H, W): 0 background, 1 landslide, 255 ignore.
        block_size: Pixels, each way; blocks at the lower and right end may reach beyond the mask.
        mixed_share: Up to this share of the other class a block still counts as pure.
        min_valid_share: Least share of labelled pixels of the whole block.

    Returns:
        int64 (B, n, m): -1 unclassed, 0 background, 1 edge, 2 interior.
    """
    shares = cell_shares(mask, block_size)
    # Not stated in the paper: the limits; "by pixel composition" makes any mixture an edge.
    background = shares.landslide_share <= mixed_share
    interior = shares.landslide_share >= 1 - mixed_share
    classes = EDGE_BLOCK - background.long() + interior.long()
    return torch.where((shares.valid_share >= min_valid_share) & (shares.valid_share > 0), classes, UNCLASSED)


@torch.no_grad()
def choose_blocks(classes: Tensor, ratios: BlockRatios, *, by_class: bool = True) -> Tensor:
    """Draw the blocks to mask: of each class and image exactly its ratio, rounded to the nearest whole number (halves to the even one).

    A random score orders the blocks of a class, and the first ones are taken: no shape depends on the data.

    Args:
        classes: int64 (B, n, m), from `block_classes`; unclassed blocks are never drawn.
        ratios: Shares.
        by_class: Draw within each class; otherwise draw as many blocks in all, from any class.

    Returns:
        bool (B, n, m).
    """
    flat = classes.flatten(1)
    member = torch.stack([flat == number for number in range(NUM_CLASSES)], dim=1)  # (B, 3, N)
    num = member.sum(2).float()
    has_edge = num[:, EDGE_BLOCK] > 0
    # Not stated in the paper: what an image without an edge takes part in.
    wanted = torch.stack(
        [
            (torch.where(has_edge, share, ratios.without_edge) * num[:, number]).round()
            for number, share in ((BACKGROUND_BLOCK, ratios.background), (EDGE_BLOCK, ratios.edge), (INTERIOR_BLOCK, ratios.interior))
        ],
        dim=1,
    )
    if not by_class:
        member, wanted = member.any(1, keepdim=True), wanted.sum(1, keepdim=True)
    # One draw for all classes; blocks of other classes come last, since scores are below 1.
    score = torch.rand(flat.shape, device=flat.device)[:, None].masked_fill(~member, 2.0)
    rank = score.argsort(2).argsort(2)
    chosen = (rank < wanted[:, :, None]) & member
    return chosen.any(1).view_as(classes)


@torch.no_grad()
def blocks_to_pixels(blocks: Tensor, block_size: int, height: int, width: int) -> Tensor:
    """(B, n, m) -> (B, H, W): the value of each pixel's block."""
    return blocks.repeat_interleave(block_size, 1)[:, :height].repeat_interleave(block_size, 2)[..., :width]


@torch.no_grad()
def blocks_to_cells(blocks: Tensor, block_size: int, stride: int, image_size: tuple[int, int], grid: tuple[int, int]) -> Tensor:
    """Share of each cell of a feature map that lies in the given blocks.

    Args:
        blocks: bool or float (B, K, n, m): K sets of blocks.
        block_size: Pixels of a block, each way.
        stride: Pixels of a cell, each way.
        image_size: (H, W) of the image; what blocks and cells have beyond it counts for nothing.
        grid: (h, w) of the feature map.

    Returns:
        float32 (B, K, h, w) in [0, 1].
    """
    rows, columns = (
        _overlap(num_cells, stride, num_blocks, block_size, length, blocks.device)
        for num_cells, num_blocks, length in zip(grid, blocks.shape[-2:], image_size, strict=True)
    )
    with torch.autocast(device_type=blocks.device.type, enabled=False):
        return rows @ blocks.float() @ columns.T


def _overlap(num_cells: int, stride: int, num_blocks: int, block_size: int, length: int, device: torch.device) -> Tensor:
    """Share of each cell in each block along one axis, float32 (num_cells, num_blocks)."""
    cell = torch.arange(num_cells, device=device)[:, None] * stride
    block = torch.arange(num_blocks, device=device)[None] * block_size
    end = torch.minimum(cell + stride, block + block_size).clamp(max=length)
    return (end - torch.maximum(cell, block)).clamp(min=0) / stride
