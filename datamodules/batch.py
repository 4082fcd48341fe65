"""The contract between the floors: names, shapes, dtypes and units of one batch."""

from typing import NotRequired, TypedDict

import torch
from torch import Tensor

from datamodules.classes import BACKGROUND, IGNORE, LANDSLIDE


class Batch(TypedDict):
    """Windows of image, elevation model and label, stacked.

    Shapes: B windows, C image bands, H x W pixels, a halo of h pixels.
    """

    image: Tensor
    """float32 (B, C, H, W): values as in the file (digital numbers or reflectance), not normalised. NaN = no data."""
    dem: Tensor
    """float32 (B, 1, H + 2h, W + 2h): elevation in metres, with a halo of h >= 0 pixels so that terrain has no rim. NaN = no data.

    Data without an elevation model say so by NaN everywhere.
    """
    mask: Tensor
    """uint8 (B, H, W): 0 background, 1 landslide, 255 ignore."""
    pixel_size: Tensor
    """float32 (B, 2): metres (x, y) a pixel."""
    tile: list[str]
    """Unique name of each window, `scene:row:col` with the upper left pixel."""
    weight: NotRequired[Tensor]
    """float32 (B, H, W) in [0, 1]: weight of each pixel in the segmentation loss, by the certainty of its label; 0 where the mask is 255.

    Only in training batches of data in which some label weighs less than others; absent = 1 everywhere. Evaluation counts all pixels alike.
    """


def validate_batch(batch: Batch) -> None:
    """Check that a batch keeps the contract.

    Raises:
        TypeError, ValueError: Names the key, what it is and what it must be.
    """
    expected = {"image": (torch.float32, 4), "dem": (torch.float32, 4), "mask": (torch.uint8, 3), "pixel_size": (torch.float32, 2)}
    for key, (dtype, dimensions) in expected.items():
        tensor = batch.get(key)
        if not isinstance(tensor, Tensor):
            raise TypeError(f"batch[{key!r}] must be a tensor, not {type(tensor).__name__}")
        if tensor.dtype != dtype or tensor.ndim != dimensions:
            raise ValueError(f"batch[{key!r}] must be {dtype} with {dimensions} dimensions, not {tensor.dtype} {tuple(tensor.shape)}")
    size, (height, width) = batch["image"].shape[0], batch["image"].shape[-2:]
    halo_y, halo_x = batch["dem"].shape[-2] - height, batch["dem"].shape[-1] - width
    if batch["dem"].shape[:2] != (size, 1) or halo_y != halo_x or halo_y < 0 or halo_y % 2:
        raise ValueError(
            f"batch['dem'] must be ({size}, 1, {height} + 2h, {width} + 2h) with one halo h >= 0, not {tuple(batch['dem'].shape)}"
        )
    if batch["mask"].shape != (size, height, width):
        raise ValueError(f"batch['mask'] must be {(size, height, width)}, not {tuple(batch['mask'].shape)}")
    stray = set(torch.unique(batch["mask"]).tolist()) - {BACKGROUND, LANDSLIDE, IGNORE}
    if stray:
        raise ValueError(f"batch['mask'] holds {sorted(stray)}; only 0 (background), 1 (landslide) and 255 (ignore) are allowed")
    if batch["pixel_size"].shape != (size, 2) or not bool((batch["pixel_size"] > 0).all()):
        raise ValueError(f"batch['pixel_size'] must be ({size}, 2) and positive metres, not {batch['pixel_size'].tolist()}")
    _validate_weight(batch)
    # A sampler may draw one window twice, so equal names are allowed; a missing one is not.
    if len(batch["tile"]) != size:
        raise ValueError(f"batch['tile'] must name {size} windows, not {len(batch['tile'])}")


def _validate_weight(batch: Batch) -> None:
    """The part of `validate_batch` that concerns the optional weight."""
    weight, shape = batch.get("weight"), batch["mask"].shape
    if weight is not None:
        if weight.dtype != torch.float32 or weight.shape != shape:
            raise ValueError(f"batch['weight'] must be float32 {tuple(shape)}, not {weight.dtype} {tuple(weight.shape)}")
        if not bool(((weight >= 0) & (weight <= 1)).all()):  # written so that NaN is refused too
            raise ValueError(f"batch['weight'] must lie in [0, 1], not in [{float(weight.min())}, {float(weight.max())}]")
        if bool(weight[batch["mask"] == IGNORE].any()):
            raise ValueError("batch['weight'] must be 0 where the mask is 255 (ignore)")
