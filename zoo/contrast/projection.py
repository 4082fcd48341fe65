"""The head between a feature map and the vectors that are contrasted."""

from torch import nn


def cell_projector(channels: int, dim: int) -> nn.Sequential:
    """Feature map -> vectors of cells, (B, C, h, w) -> (B, D, h, w), not normalised: 1x1 convolution, batch norm, ReLU, 1x1 convolution.

    The head of ContrastiveSeg, as wide inside as its input. All cells pass, not only the few that are drawn: batch norm then sees the
    scene and not its boundaries alone, at a few percent of an encoder's cost.

    Args:
        channels: C.
        dim: D.
    """
    return nn.Sequential(nn.Conv2d(channels, channels, 1, bias=False), nn.BatchNorm2d(channels), nn.ReLU(), nn.Conv2d(channels, dim, 1))
