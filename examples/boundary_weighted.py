"""A method of your own in sixty lines: the baseline, with more weight on pixels near the boundary of a landslide."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from datamodules.batch import Batch
from datamodules.classes import IGNORE, LANDSLIDE
from zoo.base import LandslideModule, OptimOptions
from zoo.losses import LossOptions
from zoo.segmentor import NetworkOptions


@dataclass(frozen=True)
class BoundaryOptions:
    """How boundaries are weighted.

    Args:
        radius: Pixels on each side of the boundary that count more.
        weight: Weight of the additional term; 0 gives the baseline.
    """

    radius: int = 3
    weight: float = 0.5


def boundary_band(mask: Tensor, radius: int) -> Tensor:
    """Valid pixels within `radius` pixels of a landslide's boundary.

    Args:
        mask: uint8 (B, H, W): 0, 1, 255.
        radius: Pixels >= 1.

    Returns:
        float (B, H, W), 1 in the band.
    """
    landslide = (mask == LANDSLIDE).float()[:, None]
    size = 2 * radius + 1
    grown = F.max_pool2d(landslide, size, stride=1, padding=radius)
    shrunk = -F.max_pool2d(-landslide, size, stride=1, padding=radius)
    return (grown - shrunk)[:, 0] * (mask != IGNORE).float()


class BoundaryWeighted(LandslideModule):
    """The baseline with a second cross-entropy on the band around boundaries.

    Args:
        network: The network.
        loss: Segmentation loss.
        optim: Optimiser and schedule.
        boundary: The band and its weight.
    """

    def __init__(
        self,
        network: NetworkOptions = NetworkOptions(),
        loss: LossOptions = LossOptions(),
        optim: OptimOptions = OptimOptions(),
        boundary: BoundaryOptions = BoundaryOptions(),
    ) -> None:
        super().__init__(network, loss, optim)
        self.boundary = boundary  # kept under its own name, so that checkpoints record it

    def objective(self, batch: Batch) -> dict[str, Tensor]:
        """The segmentation loss, the boundary term, and their weighted sum."""
        logits = self.network(batch["image"], batch["dem"], batch["pixel_size"])
        terms = self.loss(logits, batch["mask"])
        band = boundary_band(batch["mask"], self.boundary.radius)
        label = (batch["mask"] == LANDSLIDE).float()
        each = F.binary_cross_entropy_with_logits(logits[:, 0].float(), label, reduction="none")
        terms["boundary"] = (each * band).sum() / torch.clamp(band.sum(), min=1)
        return {**terms, "total": terms["segmentation"] + self.boundary.weight * terms["boundary"]}
