"""What HPCL-Net trains beside the segmentor: the head that turns a feature map into hyper-pixels, and what its momentum copy holds."""

from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn import functional

from datamodules.errors import UserError
from zoo.contrast import cell_projector
from zoo.segmentor import Segmentor


@dataclass(frozen=True)
class HyperPixelSource:
    """The feature map whose cells are hyper-pixels.

    Args:
        level: Index into `Segmentor.features`, or None for the decoder's features.
        channels: Of that map.
        pool: Cells of that map, each way, that make one hyper-pixel.
        stride: Pixels of the image, each way, that one hyper-pixel stands for.
    """

    level: int | None
    channels: int
    pool: int
    stride: int


def hyper_pixel_source(network: Segmentor, stride: int | None, *, decoder: bool) -> HyperPixelSource:
    """Choose the map: the decoder's, pooled; or the deepest level of the stride; or, beyond all strides, the deepest level, pooled.

    Args:
        network: Segmentor.
        stride: Pixels a hyper-pixel; None takes the deepest level's.
        decoder: Take what the decoder gives to the head.

    Raises:
        UserError: The network has no map that can be cut into hyper-pixels of this stride.
    """
    # Not stated in the paper: what exactly a hyper-pixel is; from its name and the deep fusion, a cell of the deep feature map.
    deepest = max(network.strides)
    stride = stride or deepest
    if decoder:
        fine = network.decoder_stride
        source = HyperPixelSource(None, network.head.in_channels, stride // fine, stride)
    elif stride in network.strides:
        level = len(network.strides) - 1 - network.strides[::-1].index(stride)
        source = HyperPixelSource(level, network.out_channels[level], 1, stride)
    elif stride > deepest:
        source = HyperPixelSource(len(network.strides) - 1, network.out_channels[-1], stride // deepest, stride)
    else:
        source = HyperPixelSource(None, 0, 0, stride)
    if source.channels < 1:
        raise UserError(
            f"the encoder has no features of this stride; its strides are {', '.join(map(str, network.strides[1:]))}",
            "choose one of them or a multiple of the largest",
            field="contrast.hyper_pixel_stride",
            value=stride,
        )
    return source


class ProjectionHead(nn.Module):
    """Feature map -> hyper-pixels: `cell_projector`, on pooled cells where one hyper-pixel stands for several.

    Args:
        source: The map.
        dim: Length D of a hyper-pixel's vector.
    """

    def __init__(self, source: HyperPixelSource, dim: int) -> None:
        super().__init__()
        self.pool = source.pool
        # Not stated in the paper: the head.
        self.layers = cell_projector(source.channels, dim)

    def forward(self, features: Tensor) -> Tensor:
        """(B, C, h, w) -> (B, D, ceil(h / pool), ceil(w / pool)), not normalised."""
        if self.pool > 1:
            features = functional.avg_pool2d(features, self.pool, ceil_mode=True)
        hyper_pixels: Tensor = self.layers(features)
        return hyper_pixels


class HyperPixelEncoder(nn.Module):
    """Normalised image and terrain -> hyper-pixels: encoders, fusion, head. The student whose momentum copy makes the keys.

    It shares its parts with `network` and `projection`, and leaves out the decoder, unless hyper-pixels are made of its features, and
    preprocessing, so that inputs are normalised once. As for `Segmentor.trunk`: build it where it is needed, do not keep it in a module.

    Args:
        network: Segmentor.
        projection: Head.
        source: The map that the head sees.
    """

    def __init__(self, network: Segmentor, projection: ProjectionHead, source: HyperPixelSource) -> None:
        super().__init__()
        self.source = source
        self.trunk = network.trunk(decoder=source.level is None)
        self.projection = projection

    def forward(self, image: Tensor, terrain: Tensor) -> Tensor:
        """(B, C, H, W), (B, K, H, W) -> (B, D, h, w)."""
        features = self.trunk.encode(image, terrain)
        seen = self.trunk.decoder_features(features) if self.source.level is None else features[self.source.level]
        hyper_pixels: Tensor = self.projection(seen)
        return hyper_pixels
