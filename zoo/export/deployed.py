"""The deployed network: raw layers in, probability out, and no more inputs than the network reads."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

import torch
from torch import Tensor, nn

from datamodules.errors import UserError
from zoo.preprocessing import Inputs
from zoo.registry import built, read_checkpoint
from zoo.segmentor import Segmentor

DEFAULT_TILE: Final = 512
LAYERS: Final[dict[Inputs, tuple[str, ...]]] = {
    "image": ("image",),
    "dem": ("dem", "pixel_size"),
    "both": ("image", "dem", "pixel_size"),
}
"""What a deployed network takes, in this order."""


@dataclass(frozen=True)
class Description:
    """What a checkpoint says of itself beside its weights.

    Args:
        method: Class path of the method.
        hyperparameters: Of the method, nested plain values.
        data: Settings of the data module in training; empty if the checkpoint was saved without a trainer.
        training_pixel_m: Smallest and largest side of a training pixel, metres; None if it does not say.
        threshold: Probability from which on a pixel is landslide, chosen on validation.
    """

    method: str
    hyperparameters: dict[str, Any]
    data: dict[str, Any]
    training_pixel_m: list[float] | None
    threshold: float

    @property
    def tile_size(self) -> int:
        """Pixels of a training window along each axis."""
        return int(self.data.get("tile_size", DEFAULT_TILE))

    @property
    def halo(self) -> int:
        """Pixels of elevation beyond the window on each side."""
        return int(self.data.get("halo", 1))


class Deployed(nn.Module):
    """A network that gives probabilities and takes only what it reads: see `names`.

    Args:
        network: What a checkpoint deploys, without teacher, queues and heads of training.
        halo: Pixels of elevation beyond the image on each side.

    Attributes:
        names: Names of the arguments of `forward`, in order.
    """

    def __init__(self, network: Segmentor, halo: int) -> None:
        super().__init__()
        self.network = network
        self.halo = halo
        self.names = LAYERS[network.options.inputs]

    @classmethod
    def from_checkpoint(cls, path: Path) -> tuple[Self, Description]:
        """The network of a checkpoint in evaluation mode, and what the checkpoint says of itself.

        Raises:
            UserError: No such file, or not a checkpoint of this package.
        """
        content = read_checkpoint(path)
        described, module = content["landslide_zoo"], built(content)
        description = Description(
            described["method"],
            described["hyperparameters"],
            described["data"],
            described.get("training_pixel_m"),
            module.threshold,
        )
        return cls(module.network, description.halo).eval(), description

    def forward(self, *layers: Tensor) -> Tensor:
        """Probability of landslide.

        Args:
            layers: In the order of `names`, of image float (B, C, H, W), raw values, NaN = no data; dem float (B, 1, H + 2 halo,
                W + 2 halo), metres, NaN = no data; pixel_size float (B, 2), metres (x, y).

        Returns:
            float32 (B, 1, H, W) in [0, 1].

        Raises:
            UserError: Another number of layers.
        """
        if len(layers) != len(self.names):
            raise UserError(
                f"the network takes {len(self.names)} layers", f"give {', '.join(self.names)}", field="layers", value=len(layers)
            )
        given = dict(zip(self.names, layers, strict=True))
        image, dem, pixel_size = given.get("image"), given.get("dem"), given.get("pixel_size")
        if image is None:  # the network takes the size of the window from the image
            assert dem is not None
            inner = dem[..., self.halo : dem.shape[-2] - self.halo, self.halo : dem.shape[-1] - self.halo]
            image = torch.zeros_like(inner).expand(-1, self.network.options.image_channels, -1, -1)
        if dem is None or pixel_size is None:
            dem, pixel_size = image[:, :1], image.new_ones(image.shape[0], 2)  # not read
        logits: Tensor = self.network(image, dem, pixel_size)
        return torch.sigmoid(logits.float())

    def examples(self, batch: int, size: int, pixel_m: float, *, seed: int = 0) -> tuple[Tensor, ...]:
        """Layers with plausible values and holes, to trace and to compare with.

        Args:
            batch: Number of windows.
            size: Pixels of a window along each axis.
            pixel_m: Metres a pixel.
            seed: Of the values.
        """
        generator = torch.Generator().manual_seed(seed)
        statistics = self.network.preprocessing
        image = torch.randn(batch, self.network.options.image_channels, size, size, generator=generator)
        if statistics.image_channels:
            image = image * statistics.image_std.view(1, -1, 1, 1) + statistics.image_mean.view(1, -1, 1, 1)
        wide = size + 2 * self.halo
        # A rough slope of about ten degrees with steps of a tenth of a pixel.
        ramp = torch.arange(wide).float().view(1, 1, 1, -1) * pixel_m * 0.18
        dem = 1000 + ramp + 0.1 * pixel_m * torch.randn(batch, 1, wide, wide, generator=generator)
        hole = max(size // 8, 1)
        image[0, :, :hole, :hole] = torch.nan
        dem[0, :, hole : 2 * hole, :hole] = torch.nan
        layers: Mapping[str, Tensor] = {"image": image, "dem": dem, "pixel_size": torch.full((batch, 2), pixel_m)}
        return tuple(layers[name] for name in self.names)
