"""One or several networks, as they are or under the eight symmetries of the square: mean probability, and the spread around it."""

from collections.abc import Sequence
from typing import Final, Literal

import torch
from torch import Tensor

from datamodules.batch import Batch
from datamodules.terrain import halo_of
from zoo.base import LandslideModule

Tta = Literal["none", "d4"]
Precision = Literal["float32", "bf16"]
D4: Final = tuple((turns, flipped) for flipped in (False, True) for turns in range(4))
"""Quarter turns, and whether columns are mirrored after them."""


class Ensemble:
    """Members are all pairs of a network and a symmetry; each counts the same.

    Image and elevation are turned as they come, in raw values, and the network derives aspect, hillshade and the like from what it is given,
    so these are right in every turn; turned terrain layers would not be.

    Args:
        modules: At least one; they are moved to the device and put into evaluation mode.
        tta: `d4` predicts each tile under all eight turns and mirrorings, `none` as it is.
        device: Where to predict.
        precision: `bf16` runs the networks under autocast.
    """

    def __init__(
        self, modules: Sequence[LandslideModule], tta: Tta = "none", device: str | torch.device = "cpu", precision: Precision = "float32"
    ) -> None:
        self.device = torch.device(device)
        self.modules = [module.to(self.device).eval() for module in modules]
        self.symmetries = D4 if tta == "d4" else D4[:1]
        self._autocast = precision == "bf16"

    @property
    def size(self) -> int:
        """Number of members."""
        return len(self.modules) * len(self.symmetries)

    @property
    def reads_dem(self) -> bool:
        """Whether any network sees the elevation model."""
        return any(module.network.options.inputs != "image" for module in self.modules)

    def halo(self, pixel_size: tuple[float, float]) -> int:
        """Pixels of elevation that must surround a tile so that no terrain layer has a rim in it."""
        return max((halo_of(module.network.preprocessing.terrain, pixel_size) for module in self.modules), default=0)

    @torch.inference_mode()
    def __call__(self, batch: Batch) -> Tensor:
        """Predict.

        Args:
            batch: On the CPU; `mask` is not read.

        Returns:
            float32 (B, 1, H, W): probability; with several members (B, 2, H, W): mean, and standard deviation over members (of the
            population: divided by their number).
        """
        image, dem, pixel_size = (batch[key].to(self.device, non_blocking=True) for key in ("image", "dem", "pixel_size"))
        mean = torch.zeros_like(image[:, 0])
        squares = torch.zeros_like(mean)
        count = 0
        for turns, flipped in self.symmetries:
            turned = Batch(
                image=_turn(image, turns, flipped),
                dem=_turn(dem, turns, flipped),
                mask=batch["mask"],
                pixel_size=pixel_size.flip(1) if turns % 2 else pixel_size,
                tile=batch["tile"],
            )
            for module in self.modules:
                with torch.autocast(self.device.type, torch.bfloat16, enabled=self._autocast):
                    probability = module.probabilities(turned)
                probability = _turn_back(probability, turns, flipped)
                # Welford: the spread of equal members is exactly 0, where a difference of squares would leave noise.
                count += 1
                difference = probability - mean
                mean += difference / count
                squares += difference * (probability - mean)
        return mean[:, None] if self.size == 1 else torch.stack([mean, (squares / count).sqrt()], dim=1)


def _turn(values: Tensor, turns: int, flipped: bool) -> Tensor:
    turned = torch.rot90(values, turns, (-2, -1))
    return (turned.flip(-1) if flipped else turned).contiguous()


def _turn_back(values: Tensor, turns: int, flipped: bool) -> Tensor:
    return torch.rot90(values.flip(-1) if flipped else values, -turns, (-2, -1))
