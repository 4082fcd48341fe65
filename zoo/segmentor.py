"""Segmentor: preprocessing, encoder(s), fusion, decoder, head. The network that every method trains and that deployment keeps."""

import copy
from dataclasses import dataclass
from typing import Final, Literal

import torch
import torch.nn.functional as F
from segmentation_models_pytorch.decoders.deeplabv3 import decoder as smp_deeplab
from segmentation_models_pytorch.decoders.unet import decoder as smp_unet
from torch import Tensor, nn

from datamodules.errors import UserError
from zoo.encoders import build_encoder
from zoo.fusion import build_fusion
from zoo.preprocessing import Inputs, Preprocessing

LOW_LEVEL: Final = 2
"""Level of the fine features that DeepLabV3+ joins: stride 4 in all common encoders."""


@dataclass(frozen=True)
class NetworkOptions:
    """Everything that defines the network; with the state dict it is the checkpoint.

    Args:
        encoder: Name or class path, see `zoo.encoders`.
        weights: `null`, `imagenet` (downloads), `imagenet-lite0` (offline, from a pip package), or a path.
        inputs: What the network sees: the image, the elevation model, or both.
        fusion: How two inputs meet. `none`: stacked as channels of one encoder (early fusion). Otherwise two encoders whose features are
            joined by `concat`, `add`, `concat_ca` or `ca_each_then_add` (coordinate attention); see `zoo.fusion`.
        fusion_levels: `all` levels that the decoder reads, or only the `deep` one; levels that are not fused come from the image alone.
        decoder: `deeplabv3plus` or `unet`.
        image_channels: Bands of the image.
        terrain: Layers derived from the elevation model, see `datamodules.terrain.LAYERS`.
        output_stride: Stride of the deepest features; `null` takes the decoder's own, 16 for DeepLabV3+ and 32 for U-Net.
        decoder_channels: Width of the DeepLabV3+ decoder; a U-Net has it at its deepest level and halves it level by level.
        atrous_rates: Dilations of the three atrous branches, for the stated output stride.
        separable: Separable instead of full convolutions in the atrous branches.
        dropout: After the atrous pyramid.
        dem_dropout: Share of training samples whose elevation model is hidden, so that one network works with and without one; for
            `inputs: both`. See `zoo.preprocessing`.
        image_dropout: Share of training samples whose image is hidden; of one sample never both.
    """

    encoder: str = "resnet18"
    weights: str | None = None
    inputs: Inputs = "both"
    fusion: Literal["none", "concat", "add", "concat_ca", "ca_each_then_add"] = "none"
    fusion_levels: Literal["all", "deep"] = "all"
    decoder: Literal["deeplabv3plus", "unet"] = "deeplabv3plus"
    image_channels: int = 3
    terrain: tuple[str, ...] = ("elevation", "slope")
    output_stride: int | None = None
    decoder_channels: int = 256
    # smp's own defaults (12, 24, 36, separable, dropout .5) are those of output stride 8 and of Xception; these are the family's at 16.
    atrous_rates: tuple[int, int, int] = (6, 12, 18)
    separable: bool = False
    dropout: float = 0.1
    dem_dropout: float = 0.0
    image_dropout: float = 0.0


class Segmentor(nn.Module):
    """Raw image and elevation in, logits out.

    Args:
        options: The network's definition.

    Attributes:
        out_channels: Channels of each level of `features`, the input first.
        strides: Stride of each level.
    """

    def __init__(self, options: NetworkOptions) -> None:
        super().__init__()
        self.options = options
        self.preprocessing = Preprocessing(
            options.inputs, options.image_channels, options.terrain, dem_dropout=options.dem_dropout, image_dropout=options.image_dropout
        )
        image_channels, terrain_channels = self.preprocessing.image_channels, self.preprocessing.terrain_channels
        stride = options.output_stride or (16 if options.decoder == "deeplabv3plus" else 32)
        self.two_encoders = options.inputs == "both" and options.fusion != "none"
        if not self.two_encoders:
            in_channels = image_channels + terrain_channels
            self.encoder, self.out_channels, self.strides = build_encoder(
                options.encoder, in_channels=in_channels, weights=options.weights, output_stride=stride
            )
        else:
            self.encoder, image_levels, self.strides = build_encoder(
                options.encoder, in_channels=image_channels, weights=options.weights, output_stride=stride
            )
            self.terrain_encoder, terrain_levels, _ = build_encoder(
                options.encoder, in_channels=terrain_channels, weights=options.weights, output_stride=stride
            )
            self.out_channels = [image_channels + terrain_channels, *image_levels[1:]]
            deepest = len(image_levels) - 1
            read = [LOW_LEVEL, deepest] if options.decoder == "deeplabv3plus" else list(range(1, deepest + 1))
            fused = read if options.fusion_levels == "all" else [deepest]
            self.fusion = nn.ModuleDict(
                {str(level): build_fusion(options.fusion, (image_levels[level], terrain_levels[level])) for level in fused}
            )
        if options.decoder == "deeplabv3plus":
            self.decoder: nn.Module = DeepLabV3PlusDecoder(self.out_channels, options)
            width = options.decoder_channels
        else:
            widths = [max(options.decoder_channels >> level, 16) for level in range(len(self.strides) - 1)]
            self.decoder = smp_unet.UnetDecoder(self.out_channels, widths, n_blocks=len(widths))
            width = widths[-1]
        self.head = nn.Conv2d(width, 1, kernel_size=1)

    def forward(self, image: Tensor, dem: Tensor, pixel_size: Tensor) -> Tensor:
        """Logits of the landslide class.

        Args:
            image: float (B, C, H, W), raw values, NaN = no data; any H and W.
            dem: float (B, 1, H + 2h, W + 2h), metres, NaN = no data.
            pixel_size: float (B, 2), metres (x, y).

        Returns:
            float (B, 1, H, W); a sigmoid makes them probabilities.
        """
        return self.decode(self.features(image, dem, pixel_size))

    def features(self, image: Tensor, dem: Tensor, pixel_size: Tensor) -> list[Tensor]:
        """Fused features, fine to coarse.

        Returns:
            The normalised input (B, C + K, H, W), then one map (B, out_channels[i], ceil(H / s) s / strides[i], ...) a level, for the
            largest stride s: inputs that it does not divide are continued at the lower and right edge, and `decode` cuts that off.
        """
        return self.encode(*self.preprocessing(image, dem, pixel_size))

    def encode(self, image: Tensor, terrain: Tensor) -> list[Tensor]:
        """Features of inputs that are normalised already (masked or mixed by a method); see `features`."""
        stacked = torch.cat([image, terrain], dim=1)
        image, terrain = self._pad(image), self._pad(terrain)
        if not self.two_encoders:
            levels: list[Tensor] = self.encoder(torch.cat([image, terrain], dim=1))
            return [stacked, *levels[1:]]
        levels = list(self.encoder(image))
        terrain_levels = self.terrain_encoder(terrain)
        for name, fuse in self.fusion.items():
            levels[int(name)] = fuse(levels[int(name)], terrain_levels[int(name)])
        return [stacked, *levels[1:]]

    def trunk(self, *, decoder: bool = False) -> "Segmentor":
        """Encoders and fusion alone, what a momentum copy holds: `encode` works, and `decoder_features` if asked for; the rest does not.

        The parts are shared, not copied. Make it where it is needed; kept as a module's attribute it would put every weight into the
        state dict twice.

        Args:
            decoder: With the decoder.
        """
        names = ("encoder", "terrain_encoder", "fusion", *(["decoder"] if decoder else []))
        trunk = copy.copy(self)
        trunk._modules = {name: module for name, module in self.named_children() if name in names}  # noqa: SLF001 - no public way to share children
        return trunk

    def decode(self, features: list[Tensor]) -> Tensor:
        """Logits (B, 1, H, W) from `features`, cut to the size of the first."""
        height, width = features[0].shape[-2:]
        return self.classify(self.decoder_features(features))[..., :height, :width]

    @property
    def decoder_stride(self) -> int:
        """Stride of what the decoder gives to the head."""
        return self.strides[LOW_LEVEL] if self.options.decoder == "deeplabv3plus" else 1

    def decoder_features(self, features: list[Tensor]) -> Tensor:
        """What the head sees: float (B, decoder width, h, w), at stride 4 for DeepLabV3+ and 1 for U-Net."""
        decoded: Tensor = self.decoder([self._pad(features[0]), *features[1:]])
        return decoded

    def classify(self, decoded: Tensor) -> Tensor:
        """Logits (B, 1, ...) of `decoder_features` at stride 1; as large as the input was continued to."""
        logits: Tensor = self.head(decoded)
        if self.decoder_stride > 1:
            logits = F.interpolate(logits, scale_factor=float(self.decoder_stride), mode="bilinear", align_corners=False)
        return logits

    def _pad(self, inputs: Tensor) -> Tensor:
        """Continue the lower and right edge up to a multiple of the largest stride; the edge value, since no size is too small for it."""
        stride = max(self.strides)
        right, bottom = -inputs.shape[-1] % stride, -inputs.shape[-2] % stride
        if not (right or bottom) or not inputs.shape[1]:
            return inputs if inputs.shape[1] else F.pad(inputs, (0, right, 0, bottom))
        return F.pad(inputs, (0, right, 0, bottom), mode="replicate")


class DeepLabV3PlusDecoder(nn.Module):
    """DeepLabV3+ (Chen et al. 2018): atrous pyramid on the deepest level, joined with the level of stride 4.

    Assembled from smp's parts. Deviation: the pyramid is resized to the fine level's size instead of by a fixed factor, because encoders
    that cannot be dilated (transformers) come with output stride 32; and the pyramid's image pooling normalises a batch of one by its running
    statistics, because one value has no variance.

    Args:
        channels: Channels of the encoder's levels, the input first.
        options: Widths, rates and dropout.
    """

    def __init__(self, channels: list[int], options: NetworkOptions) -> None:
        super().__init__()
        if not channels[LOW_LEVEL]:
            raise UserError(
                "its level of stride 4 is empty", "take decoder unet or another encoder", field="encoder", value=options.encoder
            )
        parts = smp_deeplab.DeepLabV3PlusDecoder(
            encoder_channels=channels,
            encoder_depth=5,
            out_channels=options.decoder_channels,
            atrous_rates=options.atrous_rates,
            output_stride=16,
            aspp_separable=options.separable,
            aspp_dropout=options.dropout,
        )
        self.pyramid, self.low_level, self.join = parts.aspp, parts.block1, parts.block2
        for pooling in (module for module in self.pyramid.modules() if isinstance(module, smp_deeplab.ASPPPooling)):
            pooling[2] = _SingleValueBatchNorm(options.decoder_channels)

    def forward(self, features: list[Tensor]) -> Tensor:
        """Levels -> float (B, decoder_channels, H / 4, W / 4)."""
        fine: Tensor = self.low_level(features[LOW_LEVEL])
        deep = F.interpolate(self.pyramid(features[-1]), size=fine.shape[-2:], mode="bilinear", align_corners=False)
        joined: Tensor = self.join(torch.cat([deep, fine], dim=1))
        return joined


class _SingleValueBatchNorm(nn.BatchNorm2d):
    """Batch normalisation that falls back on its running statistics where a channel has a single value."""

    def forward(self, values: Tensor) -> Tensor:
        if self.training and values.shape[0] * values.shape[2] * values.shape[3] == 1:
            return F.batch_norm(values, self.running_mean, self.running_var, self.weight, self.bias, training=False, eps=self.eps)
        normalised: Tensor = super().forward(values)
        return normalised
