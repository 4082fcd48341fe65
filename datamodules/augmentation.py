"""Random changes of training windows: geometry for all layers, colour for the image alone.

Two pipelines, since a colour transform that met the elevation model would clip 1200 m to 1.0 without a word. The elevation model
goes through the geometry as a float image (bilinear), the label and its weight as masks (nearest). Terrain is derived later, in the network, so
aspect and hillshade follow the geometry; where geometry scales, the pixel size goes with it and slopes keep their degrees.
"""

import math
import os
from collections.abc import Callable
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from datamodules.alignment import NO_IMAGE
from datamodules.reading import Layers

Array = npt.NDArray[Any]
_TRANSPOSING: Final = frozenset({"r90", "r270", "t", "hvt"})
_RANGE_STDS: Final = 5.0


class Augmentation:
    """Geometry and colour of one training window, decided by its seed alone.

    Args:
        geometry: Flips and quarter turns (all eight of the square), scaling and shifting.
        scale: Largest relative change of scale s: between 1 - s and 1 + s; 0 keeps it.
        shift: Largest shift, as a share of the window.
        colour: Brightness and contrast of the image.
        colour_strength: Largest relative change of brightness and contrast.
        image_mean, image_std: Statistics of each band; images that are not uint8 are brought to [0, 1] by mean - 5 std .. mean + 5 std
            for the colour pipeline and back, values outside of that range are left as they are.
    """

    def __init__(
        self,
        *,
        geometry: bool = True,
        scale: float = 0.1,
        shift: float = 0.05,
        colour: bool = True,
        colour_strength: float = 0.2,
        image_mean: tuple[float, ...] = (),
        image_std: tuple[float, ...] = (),
    ) -> None:
        self.geometry, self.scale, self.shift = geometry, scale, shift
        self.colour, self.colour_strength = colour, colour_strength
        self._mean, self._std = np.asarray(image_mean, dtype=np.float32), np.asarray(image_std, dtype=np.float32)
        self._pipelines: tuple[Any, Any] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_pipelines": None}

    def _compose(self) -> tuple[Any, Any]:
        """Geometry and colour as albumentations composes them; made on first use."""
        if self._pipelines is None:
            # Without this, importing albumentations asks the network for its newest version.
            os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
            import albumentations  # noqa: PLC0415 - slow to import, needed in training only

            steps = [albumentations.D4(p=1.0)]
            if self.scale or self.shift:
                span = (-self.shift, self.shift)
                steps.append(
                    albumentations.Affine(
                        scale=(1 - self.scale, 1 + self.scale),
                        translate_percent={"x": span, "y": span},
                        keep_ratio=True,
                        fill=math.nan,
                        fill_mask=NO_IMAGE,
                        p=1.0,
                    )
                )
            geometry = albumentations.Compose(steps, additional_targets={"dem": "image", "weight": "mask"}, save_applied_params=True)
            strength = self.colour_strength
            # On its own, since a Compose around one transform of one layer takes longer than the transform.
            colour = albumentations.RandomBrightnessContrast(strength, strength, p=0.8)
            self._pipelines = geometry, colour
        return self._pipelines

    def __call__(self, layers: Layers, pixel_size: tuple[float, float], seed: int, halo: int) -> tuple[Layers, tuple[float, float]]:
        """Augment one window.

        Args:
            layers: All of size (H + 2 halo, W + 2 halo). What the geometry draws in from beyond has no data: reading half as many
                pixels again to fill it would cost more than the 5 % of pixels are worth.
            pixel_size: Metres (x, y).
            seed: Decides everything.
            halo: Pixels that image, mask and weight lose on each side.

        Returns:
            Image, mask and weight (H, W) and elevation (H + 2 halo, W + 2 halo), with their pixel size.
        """
        geometry, colour = self._compose()
        image, dem, mask, weight = layers.image, layers.dem, layers.mask, layers.weight
        if self.geometry:
            geometry.set_random_seed(seed)
            weights = {} if weight is None else {"weight": weight}
            changed = geometry(image=image, dem=dem[..., None], mask=mask, **weights)
            image, dem, mask, weight = changed["image"], changed["dem"][..., 0], changed["mask"], changed.get("weight")
            if self.scale or self.shift:
                mask = _without_blends(mask)
            pixel_size = _new_pixel_size(pixel_size, changed["applied_transforms"])
        image, mask, weight = crop(image, halo), crop(mask, halo), None if weight is None else crop(weight, halo)
        if self.colour:
            colour.set_random_seed(seed)
            image = self._recolour(np.ascontiguousarray(image), colour)
        return Layers(image, dem, mask, weight), pixel_size

    def _recolour(self, image: Array, colour: Callable[..., dict[str, Any]]) -> Array:
        """Colour of the image, in the range that albumentations takes."""
        if image.dtype == np.uint8:
            return np.asarray(colour(image=image)["image"])
        low, high = self._mean - _RANGE_STDS * self._std, self._mean + _RANGE_STDS * self._std
        span = np.maximum(high - low, np.finfo(np.float32).tiny)
        scaled = (image.astype(np.float32) - low) / span
        inside = (scaled >= 0) & (scaled <= 1)
        changed = colour(image=np.where(inside, scaled, 0).astype(np.float32))["image"] * span + low
        return np.where(inside, changed, image).astype(np.float32)


def crop(array: Array, margin: int) -> Array:
    """The array (H, W, ...) without `margin` pixels on each side."""
    return array[margin : array.shape[0] - margin, margin : array.shape[1] - margin]


def _without_blends(mask: Array) -> Array:
    """Also take out, in place, the neighbours of pixels without an image: interpolation has mixed nodata values into them."""
    missing = mask == NO_IMAGE
    if not missing.any():
        return mask
    import cv2  # noqa: PLC0415 - albumentations brings it, and like albumentations it is needed in training only

    wide = cv2.dilate(missing.view(np.uint8), np.ones((3, 3), dtype=np.uint8))
    np.copyto(mask, np.uint8(NO_IMAGE), where=wide.view(bool))
    return mask


def _new_pixel_size(pixel_size: tuple[float, float], applied: list[tuple[str, dict[str, Any]]]) -> tuple[float, float]:
    """Pixel size after the geometry: a window enlarged by s shows pixels of 1 / s, a quarter turn swaps x and y."""
    x, y = pixel_size
    for name, values in applied:
        if name == "D4" and str(values["group_element"]) in _TRANSPOSING:
            x, y = y, x
        elif name == "Affine":
            x, y = x / values["scale"]["x"], y / values["scale"]["y"]
    return x, y
