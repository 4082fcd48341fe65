"""Raw image, raw elevation and pixel size -> what the encoders see. It is part of the network, so a checkpoint takes raw pixels.

The image is standardised with the training split's mean and standard deviation. Terrain layers are derived here, from elevation in metres
and the pixel size in metres, hence *after* any geometric augmentation: aspect and hillshade stay true under flips and rotations. Each layer
is scaled from its stated physical range to [-1, 1]; elevation alone has no such range and is taken relative to the window's own mean, since
absolute height says where a window lies and not what it shows.
"""

from collections.abc import Sequence
from typing import Final, Literal

import torch
import torch.nn.functional as F  # noqa: N812 - the name everybody uses
from torch import Tensor, nn

from datamodules.errors import UserError
from datamodules.statistics import DataStatistics
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

    Raises:
        UserError: The elevation model is asked for without a terrain layer.
    """

    image_mean: Tensor
    image_std: Tensor
    elevation_std: Tensor
    layer_centre: Tensor
    layer_scale: Tensor
    is_elevation: Tensor

    def __init__(self, inputs: Inputs, image_channels: int, terrain: Sequence[str]) -> None:
        super().__init__()
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
        self.register_buffer("elevation_std", torch.tensor(100.0))
        ranges = [(LAYERS[name].low, LAYERS[name].high) for name in self.terrain]
        # Not in the state dict: they follow from the names.
        for name, values in (
            ("layer_centre", [(low + high) / 2 for low, high in ranges]),
            ("layer_scale", [(high - low) / 2 for low, high in ranges]),
            ("is_elevation", [name == ELEVATION for name in self.terrain]),
        ):
            self.register_buffer(name, torch.tensor(values).view(1, -1, 1, 1), persistent=False)

    @property
    def terrain_channels(self) -> int:
        """Channels of the terrain tensor; 0 without an elevation model."""
        return len(self.terrain)

    def set_statistics(self, statistics: DataStatistics) -> None:
        """Take mean and standard deviation from the training split; they travel in the checkpoint."""
        if self.image_channels:
            if len(statistics.image_mean) != self.image_channels:
                raise UserError(
                    f"the data have {len(statistics.image_mean)} bands",
                    "set it to the data's number of bands",
                    field="image_channels",
                    value=self.image_channels,
                )
            self.image_mean.copy_(torch.tensor(statistics.image_mean))
            # A constant band carries nothing; a standard deviation of 1 keeps it at 0 instead of dividing by 0.
            self.image_std.copy_(torch.tensor([std if std > 0 else 1.0 for std in statistics.image_std]))
        if self.terrain_channels and statistics.elevation_std > 0:
            self.elevation_std.fill_(statistics.elevation_std)

    def forward(self, image: Tensor, dem: Tensor, pixel_size: Tensor) -> tuple[Tensor, Tensor]:
        """Normalise.

        Args:
            image: float (B, C, H, W), raw values, NaN = no data.
            dem: float (B, 1, H + 2h, W + 2h), metres, NaN = no data.
            pixel_size: float (B, 2), metres (x, y).

        Returns:
            Image (B, C, H, W) and terrain (B, K, H, W), without NaN; the one that is not an input has 0 channels.
        """
        height, width = image.shape[-2:]
        if self.image_channels:
            image = (image - self.image_mean.view(1, -1, 1, 1)) / self.image_std.view(1, -1, 1, 1)
            image = torch.nan_to_num(image)  # no data becomes the mean
        else:
            image = image[:, :0]
        if not self.terrain:
            return image, image[:, :0]
        layers = terrain_layers(dem, pixel_size, self.terrain)
        top, left = (layers.shape[-2] - height) // 2, (layers.shape[-1] - width) // 2
        layers = layers[..., top : top + height, left : left + width]
        window_mean = torch.nanmean(layers, dim=(-2, -1), keepdim=True)
        centre = torch.where(self.is_elevation, window_mean, self.layer_centre)
        scale = torch.where(self.is_elevation, self.elevation_std, self.layer_scale)
        return image, fill_from_neighbours((layers - centre) / scale, RIM_STEPS)


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
