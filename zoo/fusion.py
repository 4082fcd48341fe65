"""Fusion of image and terrain features of one level.

Each module takes `(image_features (B, C, h, w), terrain_features (B, C', h, w))` and gives (B, C, h, w). Early fusion is not here:
that is one encoder on stacked inputs.
"""

import difflib

import torch
from torch import Tensor, nn

from datamodules.errors import UserError


class CoordinateAttention(nn.Module):
    """Coordinate attention: gates for rows and columns from features pooled along each axis.

    After Hou, Zhou, Feng: Coordinate Attention for Efficient Mobile Network Design, CVPR 2021. Means along the width and along the
    height are laid end to end, squeezed by a shared 1x1 convolution, batch norm and h-swish, parted again and expanded to one
    sigmoid gate a row and one a column, which both multiply the input.

    Args:
        channels: C of input and output.
        reduction: The squeezed width is max(8, C // reduction).
    """

    def __init__(self, channels: int, reduction: int = 32) -> None:
        super().__init__()
        squeezed = max(8, channels // reduction)
        self.squeeze = nn.Sequential(nn.Conv2d(channels, squeezed, 1), nn.BatchNorm2d(squeezed), nn.Hardswish())
        self.rows = nn.Conv2d(squeezed, channels, 1)
        self.columns = nn.Conv2d(squeezed, channels, 1)

    def forward(self, features: Tensor) -> Tensor:
        """(B, C, h, w) -> (B, C, h, w)."""
        height = features.shape[2]
        along_width = features.mean(3, keepdim=True)
        along_height = features.mean(2, keepdim=True).transpose(2, 3)
        squeezed = self.squeeze(torch.cat([along_width, along_height], dim=2))
        row_gate = self.rows(squeezed[:, :, :height]).sigmoid()
        column_gate = self.columns(squeezed[:, :, height:].transpose(2, 3)).sigmoid()
        gated: Tensor = features * row_gate * column_gate
        return gated


def _mix(in_channels: int, out_channels: int) -> nn.Sequential:
    """1x1 convolution, batch norm, ReLU."""
    return nn.Sequential(nn.Conv2d(in_channels, out_channels, 1, bias=False), nn.BatchNorm2d(out_channels), nn.ReLU())


def _match(terrain_channels: int, image_channels: int) -> nn.Module:
    """Terrain features to the image's channels: nothing where they agree, else a 1x1 convolution."""
    return nn.Identity() if terrain_channels == image_channels else nn.Conv2d(terrain_channels, image_channels, 1)


class Concat(nn.Module):
    """Concatenate, then 1x1 convolution, batch norm and ReLU back to the image's channels.

    Args:
        image_channels: C, also of the output.
        terrain_channels: C'.
    """

    def __init__(self, image_channels: int, terrain_channels: int) -> None:
        super().__init__()
        self.mix = _mix(image_channels + terrain_channels, image_channels)

    def forward(self, image_features: Tensor, terrain_features: Tensor) -> Tensor:
        """(B, C, h, w), (B, C', h, w) -> (B, C, h, w)."""
        fused: Tensor = self.mix(torch.cat([image_features, terrain_features], dim=1))
        return fused


class Add(nn.Module):
    """Sum; where channels differ, a 1x1 convolution of the terrain features first.

    Args:
        image_channels: C, also of the output.
        terrain_channels: C'.
    """

    def __init__(self, image_channels: int, terrain_channels: int) -> None:
        super().__init__()
        self.match = _match(terrain_channels, image_channels)

    def forward(self, image_features: Tensor, terrain_features: Tensor) -> Tensor:
        """(B, C, h, w), (B, C', h, w) -> (B, C, h, w)."""
        fused: Tensor = image_features + self.match(terrain_features)
        return fused


class ConcatCoordinateAttention(nn.Module):
    """Concatenate, coordinate attention on all C + C' channels, then 1x1 convolution, batch norm and ReLU back to C.

    Args:
        image_channels: C, also of the output.
        terrain_channels: C'.
        reduction: Of the attention.
    """

    def __init__(self, image_channels: int, terrain_channels: int, reduction: int = 32) -> None:
        super().__init__()
        self.attention = CoordinateAttention(image_channels + terrain_channels, reduction)
        self.mix = _mix(image_channels + terrain_channels, image_channels)

    def forward(self, image_features: Tensor, terrain_features: Tensor) -> Tensor:
        """(B, C, h, w), (B, C', h, w) -> (B, C, h, w)."""
        fused: Tensor = self.mix(self.attention(torch.cat([image_features, terrain_features], dim=1)))
        return fused


class CoordinateAttentionAdd(nn.Module):
    """Coordinate attention on each, then the sum; where channels differ, a 1x1 convolution of the terrain features before it.

    Args:
        image_channels: C, also of the output.
        terrain_channels: C'.
        reduction: Of both attentions.
    """

    def __init__(self, image_channels: int, terrain_channels: int, reduction: int = 32) -> None:
        super().__init__()
        self.image_attention = CoordinateAttention(image_channels, reduction)
        self.terrain_attention = CoordinateAttention(terrain_channels, reduction)
        self.match = _match(terrain_channels, image_channels)

    def forward(self, image_features: Tensor, terrain_features: Tensor) -> Tensor:
        """(B, C, h, w), (B, C', h, w) -> (B, C, h, w)."""
        fused: Tensor = self.image_attention(image_features) + self.match(self.terrain_attention(terrain_features))
        return fused


class EmptyLevel(nn.Module):
    """For a level at which neither encoder has channels (some timm models have such): nothing to fuse, the image's tensor passes."""

    def forward(self, image_features: Tensor, terrain_features: Tensor) -> Tensor:  # noqa: ARG002 - the signature of all fusions
        """(B, 0, h, w), (B, 0, h, w) -> (B, 0, h, w)."""
        return image_features


FUSIONS: dict[str, type[nn.Module]] = {
    "concat": Concat,
    "add": Add,
    "concat_ca": ConcatCoordinateAttention,
    "ca_each_then_add": CoordinateAttentionAdd,
}


def build_fusion(name: str, channels: int | tuple[int, int]) -> nn.Module:
    """Make the fusion of one level.

    Args:
        name: `concat`, `add`, `concat_ca` or `ca_each_then_add`.
        channels: Channels of (image, terrain) features, or of both alike.

    Raises:
        UserError: The name is unknown, or one of the encoders has no channels at this level and the other has.
    """
    if name not in FUSIONS:
        near = difflib.get_close_matches(name, FUSIONS, n=2)
        remedy = f"did you mean {' or '.join(near)}?" if near else f"choose one of {', '.join(FUSIONS)}"
        raise UserError("unknown fusion", remedy, field="fusion", value=name, exit_code=2)
    image_channels, terrain_channels = (channels, channels) if isinstance(channels, int) else channels
    if image_channels == terrain_channels == 0:
        return EmptyLevel()
    if image_channels < 1 or terrain_channels < 1:
        raise UserError(
            f"an encoder has no channels at this level (image {image_channels}, terrain {terrain_channels})",
            "leave the level out of fusion_levels or choose encoders that agree",
            field="fusion",
            value=name,
        )
    return FUSIONS[name](image_channels, terrain_channels)
