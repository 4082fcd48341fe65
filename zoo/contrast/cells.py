"""Boundary cells: which cells of a feature map take part in contrast, in shapes that never depend on the data.

A *cell* of a feature map of stride s stands for s x s pixels of the mask. Everything here works on whole batches with tensors of
fixed size: no host-device synchronisation, equal shapes on all ranks, compiles into one graph.
"""

import math
from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from datamodules.batch import Batch
from datamodules.classes import BACKGROUND, IGNORE, LANDSLIDE

BoundaryParts = Literal["all", "back_side"]


class CellShares(NamedTuple):
    """What the mask says about each cell, float32 (B, h, w), both in [0, 1]."""

    landslide_share: Tensor
    """Landslide pixels among the *valid* pixels of the cell; 0 where no pixel is valid."""
    valid_share: Tensor
    """Valid pixels among *all* stride x stride pixels of the cell; pixels beyond the mask count as invalid."""


class BoundaryCells(NamedTuple):
    """Cells on either side of landslide boundaries, bool (B, h, w); no cell is in both."""

    inner: Tensor
    """Landslide side: mostly landslide, touches the band."""
    outer: Tensor
    """Near background: no landslide at all, touches the band."""


@torch.no_grad()
def certain_mask(batch: Batch) -> Tensor:
    """The mask, uint8 (B, H, W), with 255 where a label weighs less than 1: what contrast and labels of objects are drawn from.

    A key that stays in a queue, or a prototype, has no weight of its own; hence pixels that count fully take part and no others.
    """
    weight = batch.get("weight")
    return batch["mask"] if weight is None else batch["mask"].masked_fill(weight < 1, IGNORE)


def grid_size(height: int, width: int, stride: int) -> tuple[int, int]:
    """Rows and columns of cells that cover a mask: the quotients rounded up."""
    return -(-height // stride), -(-width // stride)


def _to_cells(pixels: Tensor, stride: int, size: tuple[int, int] | None, fill: float) -> Tensor:
    """View (B, H, W) as (B, h, stride, w, stride), filled up at the lower and right end.

    Raises:
        ValueError: The grid is smaller than the mask.
    """
    height, width = pixels.shape[-2:]
    rows, columns = size or grid_size(height, width, stride)
    if rows * stride < height or columns * stride < width:
        raise ValueError(f"a grid of {rows} x {columns} cells with stride {stride} does not cover a mask of {height} x {width} pixels")
    padded = functional.pad(pixels, (0, columns * stride - width, 0, rows * stride - height), value=fill)
    return padded.view(-1, rows, stride, columns, stride)


@torch.no_grad()
def cell_shares(mask: Tensor, stride: int, size: tuple[int, int] | None = None) -> CellShares:
    """Share of landslide and of valid pixels in each cell.

    Args:
        mask: uint8 (B, H, W): 0 background, 1 landslide, 255 ignore.
        stride: Pixels a cell, each way.
        size: (h, w) of the feature map where it is larger than `grid_size`, as that of a network that pads its input.
            Pixels beyond the mask count as invalid.

    Raises:
        ValueError: `size` does not cover the mask.
    """
    cells = _to_cells(mask, stride, size, IGNORE)
    valid = (cells != IGNORE).sum((2, 4), dtype=torch.float32)
    landslide = (cells == LANDSLIDE).sum((2, 4), dtype=torch.float32)
    return CellShares(landslide / valid.clamp(min=1), valid / stride**2)


@torch.no_grad()
def background_cells(shares: CellShares, min_valid_share: float = 1.0) -> Tensor:
    """Cells without any landslide pixel, wherever they lie, bool (B, h, w): the alternative to the near background."""
    return (shares.landslide_share == 0) & (shares.valid_share >= min_valid_share)


@torch.no_grad()
def landslide_cells(shares: CellShares, positive_share: float = 0.5, min_valid_share: float = 1.0) -> Tensor:
    """Cells that count as landslide, wherever they lie, bool (B, h, w)."""
    return (shares.landslide_share >= positive_share) & (shares.valid_share >= min_valid_share)


def _dilate(region: Tensor, radius: int) -> Tensor:
    """Dilate bool (B, H, W) by a square of (2 radius + 1) pixels; beyond the rim there is nothing.

    A square is one line after another, and a line of n the maximum of two lines of about n / 2: a dozen passes for 16 pixels,
    where one pooling window would visit (2 radius + 1)^2 pixels.
    """
    pixels = region
    for axis in (-2, -1):
        length = pixels.shape[axis]
        padding = [radius, radius, 0, 0] if axis == -1 else [0, 0, radius, radius]
        line, covered, wanted = functional.pad(pixels, padding), 1, 2 * radius + 1
        while covered < wanted:
            step = min(covered, wanted - covered)
            line = line.narrow(axis, 0, line.shape[axis] - step) | line.narrow(axis, step, line.shape[axis] - step)
            covered += step
        pixels = line.narrow(axis, 0, length)
    return pixels


@torch.no_grad()
def boundary_cells(
    mask: Tensor,
    stride: int,
    *,
    size: tuple[int, int] | None = None,
    radius: int | None = None,
    positive_share: float = 0.5,
    min_valid_share: float = 1.0,
    parts: BoundaryParts = "all",
    dem: Tensor | None = None,
    toe_quantile: float = 0.25,
) -> BoundaryCells:
    """Cells of the band along landslide boundaries.

    The band is made on the pixel grid: landslide pixels within `radius` (a square window) of a background pixel, and background
    pixels within `radius` of a landslide pixel. This is dilation minus erosion, but for ignored pixels, which make no boundary
    and belong to no band; the rim of the mask makes none either. A cell touches the band when one of its pixels does.

    With `parts="back_side"` the toe is dropped, so that back wall and side walls remain. Per connected landslide (8-connected on the
    cell grid) the toe is those boundary cells that do not lie above the `toe_quantile` of elevation along its boundary. The inner and
    the outer side have a quantile each, since the outer side of a slope's foot lies lower as a whole. An outer cell goes with the
    nearest landslide; of equally near ones, that which reaches furthest down the grid. A level boundary has no toe. Cells without
    elevation, and outer cells of a landslide too small to fill a cell, are dropped: nothing shows that they are back or side.

    Args:
        mask: uint8 (B, H, W): 0 background, 1 landslide, 255 ignore.
        stride: Pixels a cell, each way.
        size: (h, w) of the feature map, see `cell_shares`.
        radius: Half width of the band in pixels; default one cell.
        positive_share: Least landslide share of an inner cell, in (0, 1].
        min_valid_share: Least valid share of either kind of cell; 1 leaves out cells with any ignored pixel.
        parts: `all` or `back_side`.
        dem: float32 (B, 1, H + 2k, W + 2k), elevation in metres with a halo of k >= 0, NaN = no data; needed for `back_side`.
        toe_quantile: Share of a landslide's boundary that counts as its toe, in [0, 1).

    Raises:
        ValueError: `back_side` without `dem`, or a `dem` or `size` that does not fit the mask.
    """
    # Not stated in the paper: stride, band width, class thresholds and how back and side walls are told from the toe.
    radius = stride if radius is None else radius
    shares = cell_shares(mask, stride, size)
    landslide, background = mask == LANDSLIDE, mask == BACKGROUND
    band = (landslide & _dilate(background, radius)) | (background & _dilate(landslide, radius))
    touched = _to_cells(band, stride, size, 0).any(4).any(2)
    inner = touched & landslide_cells(shares, positive_share, min_valid_share)
    outer = touched & background_cells(shares, min_valid_share)
    if parts == "all":
        return BoundaryCells(inner, outer)
    if dem is None:
        raise ValueError("parts='back_side' needs the elevation model: pass dem")
    elevation = cell_elevation(dem, mask.shape[-2:], stride, size)
    labels = component_labels(shares.landslide_share >= positive_share)
    nearest = labels
    # One ring of cells for the width of the band, one more since the boundary may run through a cell that is mostly background.
    for _ in range(-(-radius // stride) + 1):
        nearest = torch.where(nearest > 0, nearest, _neighbour_maximum(nearest))
    return BoundaryCells(
        inner & _above_toe(inner, labels, elevation, toe_quantile), outer & _above_toe(outer, nearest, elevation, toe_quantile)
    )


@torch.no_grad()
def cell_elevation(dem: Tensor, pixels: tuple[int, int] | torch.Size, stride: int, size: tuple[int, int] | None = None) -> Tensor:
    """Mean elevation of each cell.

    Args:
        dem: float32 (B, 1, H + 2k, W + 2k), metres, NaN = no data; the halo of k >= 0 is cut off.
        pixels: (H, W) of the mask.
        stride: Pixels a cell, each way.
        size: (h, w) of the feature map, see `cell_shares`.

    Returns:
        float32 (B, h, w), metres; NaN where no pixel has data.

    Raises:
        ValueError: `dem` is not the mask's size plus an even halo.
    """
    halo, remainder = divmod(dem.shape[-2] - pixels[0], 2)
    if remainder or halo < 0 or dem.shape[-1] - pixels[1] != 2 * halo:
        raise ValueError(f"dem {tuple(dem.shape)} must be the mask's {tuple(pixels)} plus one halo on all sides")
    centre = dem[:, 0, halo : halo + pixels[0], halo : halo + pixels[1]]
    cells = _to_cells(centre, stride, size, math.nan)
    known = ~cells.isnan()
    # 0 / 0 = NaN is what a cell without data must be.
    return cells.nan_to_num(0.0).sum((2, 4)) / known.sum((2, 4))


def _neighbour_maximum(labels: Tensor) -> Tensor:
    """Largest label in the 3 x 3 neighbourhood, int64 (B, h, w); pooled as float32, exact up to 2^24 cells."""
    return functional.max_pool2d(labels.float()[:, None], 3, stride=1, padding=1)[:, 0].long()


@torch.no_grad()
def component_labels(foreground: Tensor) -> Tensor:
    """Label 8-connected components in a fixed number of rounds.

    Each round every cell takes the largest label around it, hands it to the cell that its own label names, and then takes over that
    cell's label (hooking and pointer jumping), so labels travel in leaps and not cell by cell. The number of rounds is 2
    ceil(log2(h w)), known before the data is. That is a bound set by trial (spirals, meanders, percolation clusters needed at most
    half of it); a component that needed more would end as several, each with its own toe.

    Args:
        foreground: bool (B, h, w).

    Returns:
        int64 (B, h, w): 0 background; else 1 + the largest row-major index within the component.
    """
    batch, height, width = foreground.shape
    num = height * width
    own = torch.arange(1, num + 1, device=foreground.device).expand(batch, num)
    inside = foreground.flatten(1)
    # Node 0 is the background and points to itself.
    parent = functional.pad(own * inside, (1, 0))
    for _ in range(2 * math.ceil(math.log2(max(num, 2)))):
        current = parent[:, 1:]
        around = _neighbour_maximum(current.view(batch, height, width)).flatten(1) * inside
        hooked = parent.scatter_reduce(1, current, around, "amax")
        parent = torch.maximum(hooked, functional.pad(around, (1, 0)))
        parent = parent.gather(1, parent)
    return parent[:, 1:].view(batch, height, width)


def _above_toe(cells: Tensor, labels: Tensor, elevation: Tensor, quantile: float) -> Tensor:
    """Cells that lie above the quantile of elevation (linear interpolation) among `cells` of the same label.

    Sorted by label, then by elevation, each landslide is one run of known start and length: a quantile of fixed shape.
    """
    member = cells & ~elevation.isnan() & (labels > 0)
    group = torch.where(member, labels, 0).flatten(1)
    height = torch.where(member, elevation, 0.0).flatten(1)
    order = height.argsort(dim=1, stable=True)
    order = order.gather(1, group.gather(1, order).argsort(dim=1, stable=True))
    group, height = group.gather(1, order), height.gather(1, order)
    start = torch.searchsorted(group, group)
    count = torch.searchsorted(group, group, right=True) - start
    position = quantile * (count - 1)
    below = position.floor().long()
    lower = height.gather(1, start + below)
    upper = height.gather(1, start + torch.minimum(below + 1, count - 1))
    threshold = lower + (position - below) * (upper - lower)
    # The highest cell is never toe: a level boundary, or one of a single cell, has none.
    above = ((height > threshold) | (height == height.gather(1, start + count - 1))) & (group > 0)
    return torch.zeros_like(above).scatter(1, order, above).view_as(cells)


@torch.no_grad()
def sample_cells(candidates: Tensor, num: int, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
    """Draw cells without replacement, each candidate with the same chance, into a fixed number of slots.

    Args:
        candidates: bool (B, h, w).
        num: Slots a sample; may exceed the number of candidates or of cells.
        generator: Source of randomness, on the device of `candidates`.

    Returns:
        index: int64 (B, num), row-major; 0 in slots beyond the number of cells.
        valid: bool (B, num); the first min(num, candidates) slots are, the rest hold no candidate.
    """
    flat = candidates.flatten(1)
    score = torch.rand(flat.shape, device=flat.device, generator=generator)
    drawn = min(num, flat.shape[1])
    top, index = torch.where(flat, score, -1.0).topk(drawn, dim=1)
    return functional.pad(index, (0, num - drawn)), functional.pad(top >= 0, (0, num - drawn))


def gather_cells(features: Tensor, index: Tensor) -> Tensor:
    """Feature vectors of drawn cells; differentiable.

    Args:
        features: (B, D, h, w).
        index: int64 (B, num), row-major, as `sample_cells` gives it.

    Returns:
        (B, num, D).
    """
    flat = features.flatten(2)
    return flat.gather(2, index[:, None].expand(-1, flat.shape[1], -1)).transpose(1, 2)
