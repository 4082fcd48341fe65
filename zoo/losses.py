"""Segmentation losses and their weighted sum; pixels marked 255 count for nothing.

With a weight w in [0, 1] for each pixel, by the certainty of its label, every sum over pixels is one of w times the pixel's share:
cross-entropy and focal loss are sum(w l) / sum(w), and Dice is 1 - (2 sum(w p y) + s) / (sum(w p) + sum(w y) + s). A weight of 0 is
the same as 255 in the mask, and weights of 1 are the same as none.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from datamodules.classes import IGNORE, LANDSLIDE


@dataclass(frozen=True)
class LossOptions:
    """The segmentation loss: a weighted sum of named terms; a weight of 0 leaves a term out.

    Args:
        bce_weight: Weight of the binary cross-entropy.
        dice_weight: Weight of the Dice loss of the landslide class, pooled over the batch.
        focal_weight: Weight of the focal loss.
        focal_gamma: Exponent of the focal loss; 0 makes it the cross-entropy.
        positive_weight: Factor on landslide pixels in the cross-entropy and focal terms; 1 leaves prevalence as it is.
        label_smoothing: Share moved from each label to the other in the cross-entropy, in [0, 0.5).
    """

    bce_weight: float = 1.0
    dice_weight: float = 1.0
    focal_weight: float = 0.0
    focal_gamma: float = 2.0
    positive_weight: float = 1.0
    label_smoothing: float = 0.0


def _valid(mask: Tensor, weight: Tensor | None) -> tuple[Tensor, Tensor]:
    """Label and weight of each pixel as float; a product instead of an index keeps shapes fixed and the device busy."""
    valid = (mask != IGNORE).float()
    return (mask == LANDSLIDE).float(), valid if weight is None else valid * weight


def bce_loss(
    logits: Tensor, mask: Tensor, positive_weight: float = 1.0, label_smoothing: float = 0.0, weight: Tensor | None = None
) -> Tensor:
    """Binary cross-entropy, mean over valid pixels by their weight.

    Args:
        logits: float (B, 1, H, W).
        mask: integer (B, H, W): 0, 1, 255 = ignore.
        positive_weight: Factor on landslide pixels.
        label_smoothing: Share moved from each label to the other.
        weight: float (B, H, W) in [0, 1]; None = 1.

    Returns:
        Scalar float32; 0 with a zero gradient where no pixel is valid.
    """
    label, valid = _valid(mask, weight)
    factor = valid * (1 + (positive_weight - 1) * label)
    target = label * (1 - 2 * label_smoothing) + label_smoothing
    loss = F.binary_cross_entropy_with_logits(logits[:, 0].float(), target, reduction="none")
    return (loss * factor).sum() / valid.sum().clamp(min=1)


def dice_loss(logits: Tensor, mask: Tensor, smooth: float = 1.0, weight: Tensor | None = None) -> Tensor:
    """1 - soft Dice coefficient of the landslide class, pooled over the valid pixels of the batch (Milletari et al. 2016, linear form).

    Args:
        logits: float (B, 1, H, W).
        mask: integer (B, H, W): 0, 1, 255 = ignore.
        smooth: Added to numerator and denominator, in pixels: a batch without landslides then asks for an empty prediction.
        weight: float (B, H, W) in [0, 1]; None = 1.

    Returns:
        Scalar float32 in [0, 1].
    """
    label, valid = _valid(mask, weight)
    probability = torch.sigmoid(logits[:, 0].float()) * valid
    overlap = (probability * label).sum()
    return 1 - (2 * overlap + smooth) / (probability.sum() + (label * valid).sum() + smooth)


def focal_loss(logits: Tensor, mask: Tensor, gamma: float = 2.0, positive_weight: float = 1.0, weight: Tensor | None = None) -> Tensor:
    """Focal loss, mean over valid pixels by their weight: cross-entropy times (1 - p_t)^gamma (Lin et al. 2017, eq. 4).

    Args:
        logits: float (B, 1, H, W).
        mask: integer (B, H, W): 0, 1, 255 = ignore.
        gamma: Focusing exponent >= 0.
        positive_weight: Factor on landslide pixels (their alpha / (1 - alpha)).
        weight: float (B, H, W) in [0, 1]; None = 1.

    Returns:
        Scalar float32.
    """
    label, valid = _valid(mask, weight)
    cross_entropy = F.binary_cross_entropy_with_logits(logits[:, 0].float(), label, reduction="none")
    factor = valid * (1 + (positive_weight - 1) * label)
    return ((1 - torch.exp(-cross_entropy)) ** gamma * cross_entropy * factor).sum() / valid.sum().clamp(min=1)


class SegmentationLoss(nn.Module):
    """Weighted sum of the terms that `LossOptions` switches on."""

    def __init__(self, options: LossOptions) -> None:
        super().__init__()
        self.options = options

    def forward(self, logits: Tensor, mask: Tensor, weight: Tensor | None = None) -> dict[str, Tensor]:
        """The terms by name, unweighted, and `segmentation`, their weighted sum.

        Args:
            logits: float (B, 1, H, W).
            mask: integer (B, H, W).
            weight: float (B, H, W) in [0, 1], as a batch may have it; None = 1.
        """
        options = self.options
        terms: dict[str, Tensor] = {}
        total = logits.new_zeros((), dtype=torch.float32)
        if options.bce_weight:
            terms["bce"] = bce_loss(logits, mask, options.positive_weight, options.label_smoothing, weight)
            total = total + options.bce_weight * terms["bce"]
        if options.dice_weight:
            terms["dice"] = dice_loss(logits, mask, weight=weight)
            total = total + options.dice_weight * terms["dice"]
        if options.focal_weight:
            terms["focal"] = focal_loss(logits, mask, options.focal_gamma, options.positive_weight, weight)
            total = total + options.focal_weight * terms["focal"]
        return {**terms, "segmentation": total}
