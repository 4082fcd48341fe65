"""A backbone of your own: what `zoo.encoders.Encoder` asks for and nothing more."""

from torch import Tensor, nn


class PoolingEncoder(nn.Module):
    """One convolution and one average pooling a level.

    Args:
        in_channels: Channels of the input.
        depth: Levels below the input.
        output_stride: Stride of the deepest level; later levels keep the size once it is reached.
    """

    def __init__(self, in_channels: int, depth: int, output_stride: int) -> None:
        super().__init__()
        self.out_channels = [in_channels, *[16 * 2 ** min(level, 3) for level in range(depth)]]
        self.levels = nn.ModuleList()
        for level in range(depth):
            convolution = nn.Conv2d(self.out_channels[level], self.out_channels[level + 1], 3, padding=1)
            shrink = nn.AvgPool2d(2) if 2 ** (level + 1) <= output_stride else nn.Identity()
            self.levels.append(nn.Sequential(convolution, nn.BatchNorm2d(self.out_channels[level + 1]), nn.ReLU(), shrink))

    def forward(self, image: Tensor) -> list[Tensor]:
        """(B, C, H, W) -> the input and one map a level."""
        features = [image]
        for level in self.levels:
            features.append(level(features[-1]))
        return features
