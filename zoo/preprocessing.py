"""Raw image, raw elevation and pixel size -> what the encoders see. It is part of the network, so a checkpoint takes raw pixels.

Image bands and terrain layers are standardised with the training split's means and standard deviations. Terrain layers are derived here,
from elevation in metres and the pixel size in metres, hence *after* any geometric augmentation: aspect and hillshade stay true under flips
and rotations. Elevation is taken relative to the window's own mean, since absolute height says where a window lies and not what it shows.

Modality dropout hides, in training, the elevation model or the image of single samples: all its normalised values become 0, the mean, which
is to the bit what data without that modality give. A learned token in its place would be a weight that exports must know, and is not
needed: no real window is 0 throughout. Whatever a method does with the normalised inputs, its teacher included, sees a sample as the
student does; keys and targets of a modality that the student cannot see would be another objective than the papers'.
"""

from collections.abc import Iterable, Sequence
from typing import Final, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from datamodules.batch import Batch
from datamodules.errors import UserError
from datamodules.statistics import DataStatistics, RunningMoments
from datamodules.terrain import LAYERS, terrain_layers

Inputs = Literal["image", "dem", "both"]

ELEVATION: Final = "elevation"

RIM_STEPS: Final = 2
"""Pixels by which a terrain layer is continued into places without data: enough for the rim that 3x3 operators leave."""


class Preprocessing(nn.Module):
    """Standardise the image and derive normalised terrain layers.

    Args:
        inputs: Which of the two the network sees.
        image_channels: Bands of the image.
        terrain: Names of terrain layers, see `datamodules.terrain.LAYERS`.
        dem_dropout, image_dropout: Shares of training samples in which the one or the other is hidden, together at most 1.

    Raises:
        UserError: The elevation model is asked for without a terrain layer, or a share makes no sense.
    """

    image_mean: Tensor
    image_std: Tensor
    layer_mean: Tensor
    layer_std: Tensor

    def __init__(
        self, inputs: Inputs, image_channels: int, terrain: Sequence[str], *, dem_dropout: float = 0.0, image_dropout: float = 0.0
    ) -> None:
        super().__init__()
        _check_dropout(inputs, dem_dropout, image_dropout)
        self.dem_dropout, self.image_dropout = dem_dropout, image_dropout
        self.inputs = inputs
        self.image_channels = image_channels if inputs != "dem" else 0
        self.terrain = tuple(terrain) if inputs != "image" else ()
        if inputs != "image" and not self.terrain:
            raise UserError(
                "the elevation model is an input but no layer of it is named",
                f"name some of {', '.join(LAYERS)}, or set inputs to image",
                field="terrain",
                value=list(terrain),
                exit_code=2,
            )
        self.register_buffer("image_mean", torch.zeros(self.image_channels))
        self.register_buffer("image_std", torch.ones(self.image_channels))
        # Until `set_statistics` has measured them: the physical ranges onto [-1, 1].
        ranges = [(-100.0, 100.0) if name == ELEVATION else (LAYERS[name].low, LAYERS[name].high) for name in self.terrain]
        self.register_buffer("layer_mean", torch.tensor([(low + high) / 2 for low, high in ranges]))
        self.register_buffer("layer_std", torch.tensor([(high - low) / 2 for low, high in ranges]))

    @property
    def terrain_channels(self) -> int:
        """Channels of the terrain tensor; 0 without an elevation model."""
        return len(self.terrain)

    def set_statistics(self, statistics: DataStatistics, windows: Iterable[Batch]) -> None:
        """Take means and standard deviations from the training split; they travel in the checkpoint.

        Args:
            statistics: Of the image bands.
            windows: Training windows, without augmentation, on which the terrain layers are measured.
        """
        if self.image_channels:
            self.image_mean.copy_(torch.tensor(statistics.image_mean))
            self.image_std.copy_(_spread(statistics.image_std))
        if self.terrain:
            moments = RunningMoments(self.terrain_channels)
            for batch in windows:
                layers = self._layers(batch["dem"], batch["pixel_size"], batch["image"].shape[-2:])
                moments.update(layers.movedim(1, 0).flatten(1).numpy())
            self.layer_mean.copy_(torch.from_numpy(moments.mean).nan_to_num())
            self.layer_std.copy_(_spread(moments.std.tolist()))

    def forward(self, image: Tensor, dem: Tensor, pixel_size: Tensor) -> tuple[Tensor, Tensor]:
        """Normalise.

        Args:
            image: float (B, C, H, W), raw values, NaN = no data.
            dem: float (B, 1, H + 2h, W + 2h), metres, NaN = no data.
            pixel_size: float (B, 2), metres (x, y).

        Returns:
            Image (B, C, H, W) and terrain (B, K, H, W), without NaN; the one that is not an input has 0 channels.
        """
        size, drops = image.shape[-2:], self.training and self.dem_dropout + self.image_dropout > 0
        hides_image, hides_dem = self._draw_hidden(image, dem) if drops else (None, None)
        if self.image_channels:
            image = (image - self.image_mean.view(1, -1, 1, 1)) / self.image_std.view(1, -1, 1, 1)
            image = torch.nan_to_num(image)  # no data becomes the mean
        else:
            image = image[:, :0]
        if not self.terrain:
            return image, image[:, :0]
        layers = self._layers(dem, pixel_size, size)
        layers = (layers - self.layer_mean.view(1, -1, 1, 1)) / self.layer_std.view(1, -1, 1, 1)
        layers = fill_from_neighbours(layers, RIM_STEPS)
        if hides_image is not None and hides_dem is not None:
            image, layers = image.masked_fill(hides_image, 0.0), layers.masked_fill(hides_dem, 0.0)
        return image, layers

    def _draw_hidden(self, image: Tensor, dem: Tensor) -> tuple[Tensor, Tensor]:
        """Of which samples the image, and of which the elevation model is hidden: bool (B, 1, 1, 1) each, never both.

        What is hidden depends on torch's generator of the device, which the base seeds in each step, and nothing waits for the host.
        A sample that lacks the other modality keeps the one it has.
        """
        drawn = torch.rand(len(image), 1, 1, 1, device=image.device)
        has_image, has_dem = (torch.isfinite(values).flatten(1).any(1).view(-1, 1, 1, 1) for values in (image, dem))
        hides_dem = drawn < self.dem_dropout
        hides_image = ~hides_dem & (drawn < self.dem_dropout + self.image_dropout)
        return hides_image & has_dem, hides_dem & has_image

    def _layers(self, dem: Tensor, pixel_size: Tensor, size: torch.Size) -> Tensor:
        """Terrain layers (B, K, H, W) in their own units, NaN where undefined, elevation relative to the window's mean."""
        (height, width), names = size, self.terrain
        layers = terrain_layers(dem, pixel_size, names)
        top, left = (layers.shape[-2] - height) // 2, (layers.shape[-1] - width) // 2
        layers = layers[..., top : top + height, left : left + width]
        if ELEVATION not in names:
            return layers
        parts = [
            layer - torch.nanmean(layer, dim=(-2, -1), keepdim=True) if name == ELEVATION else layer
            for name, layer in zip(names, layers.chunk(len(names), dim=1), strict=True)
        ]
        return torch.cat(parts, dim=1)


def _check_dropout(inputs: Inputs, dem_dropout: float, image_dropout: float) -> None:
    """Refuse shares that make no sense."""
    for name, value in (("dem_dropout", dem_dropout), ("image_dropout", image_dropout)):
        if not 0 <= value <= 1 or dem_dropout + image_dropout > 1:
            raise UserError(
                "must lie in [0, 1], and together with the other at most at 1",
                "0.2 to 0.5 leaves enough of both",
                field=f"network.{name}",
                value=value,
                exit_code=2,
            )
        if value and inputs != "both":
            raise UserError(
                f"hides one of two inputs, but network.inputs is {inputs}",
                "set inputs to both, or this to 0",
                field=f"network.{name}",
                value=value,
                exit_code=2,
            )


def _spread(std: Sequence[float]) -> Tensor:
    """Standard deviations to divide by: a constant layer carries nothing, and 1 keeps it at 0 instead of dividing by 0."""
    values = torch.tensor(std, dtype=torch.float32)
    return torch.where(values > 0, values, torch.ones_like(values))  # NaN (nothing measured) compares false too


def fill_from_neighbours(layers: Tensor, steps: int) -> Tensor:
    """Continue layers into NaN by the mean of the known 3x3 neighbours, `steps` times; what is still NaN becomes 0.

    A rim of zeros would draw a frame around every scene and every hole; the neighbours' values do not.

    Args:
        layers: float (B, K, H, W).
        steps: Pixels to continue.

    Returns:
        float (B, K, H, W) without NaN.
    """
    for _ in range(steps):
        known = ~torch.isnan(layers)
        total = F.avg_pool2d(torch.nan_to_num(layers), 3, stride=1, padding=1)
        share = F.avg_pool2d(known.to(layers.dtype), 3, stride=1, padding=1)
        layers = torch.where(known | (share == 0), layers, total / share.clamp(min=1e-6))
    return torch.nan_to_num(layers)
