"""Terrain layers by name: what a configuration lists, what a window must carry around it, and the stack that a network reads."""

import difflib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from datamodules.errors import UserError
from datamodules.terrain.derivatives import (
    REACH,
    Surface,
    aspect,
    hillshade,
    multidirectional_hillshade,
    plan_curvature,
    profile_curvature,
    slope,
    tangential_curvature,
)
from datamodules.terrain.stencil import PixelSize, check_elevation, evaluate, spacing_of


@dataclass(frozen=True)
class Layer:
    """One terrain layer.

    Attributes:
        function: From (dem, pixel_size) to the layer, like `dem`.
        unit: Of the values; "" where they have none.
        low: Lower end of the physical range, for normalisation.
        high: Upper end of the physical range, for normalisation.
        halo_pixels: Pixels that it reads on each side.
        local: The layer from the shared derivatives of the 3 x 3 neighbourhood, for layers that follow from them.
        channels: Always 1.
    """

    function: Callable[[Tensor, PixelSize], Tensor]
    unit: str
    low: float
    high: float
    halo_pixels: int = 1
    local: Callable[[Surface], Tensor] | None = None
    channels: int = 1


LAYERS: Final[dict[str, Layer]] = {
    "elevation": Layer(lambda dem, _: dem, "m", -500.0, 9000.0, halo_pixels=0),
    "slope": Layer(slope, "degrees", 0.0, 90.0, local=lambda surface: surface.horn.slope),
    "aspect_sin": Layer(lambda dem, size: aspect(dem, size)[0], "", -1.0, 1.0, local=lambda surface: surface.horn.aspect[0]),
    "aspect_cos": Layer(lambda dem, size: aspect(dem, size)[1], "", -1.0, 1.0, local=lambda surface: surface.horn.aspect[1]),
    "hillshade": Layer(hillshade, "", 0.0, 1.0, local=lambda surface: surface.horn.shade(315.0, 45.0)),
    "multidirectional_hillshade": Layer(
        multidirectional_hillshade, "", 0.0, 1.0, local=lambda surface: surface.horn.multidirectional_shade(45.0)
    ),
    "profile_curvature": Layer(profile_curvature, "1/m", -0.1, 0.1, local=lambda surface: surface.profile_curvature),
    "tangential_curvature": Layer(tangential_curvature, "1/m", -0.1, 0.1, local=lambda surface: surface.tangential_curvature),
    "plan_curvature": Layer(plan_curvature, "1/m", -0.1, 0.1, local=lambda surface: surface.plan_curvature),
}


def layer(name: str) -> Layer:
    """The layer of that name.

    Raises:
        UserError: No such layer; names the nearest.
    """
    if name not in LAYERS:
        near = difflib.get_close_matches(name, LAYERS, n=3)
        raise UserError(
            "no such terrain layer",
            f"did you mean {' or '.join(near)}?" if near else f"use {', '.join(LAYERS)}",
            field="layers",
            value=name,
        )
    return LAYERS[name]


def halo_of(names: Sequence[str], pixel_size: PixelSize) -> int:  # noqa: ARG001 -- layers with a radius in metres come next
    """Pixels that must surround a window so that none of the layers has a rim inside it."""
    return max((layer(name).halo_pixels for name in names), default=0)


def terrain_layers(dem: Tensor, pixel_size: PixelSize, names: Sequence[str]) -> Tensor:
    """Stack of the named layers, with shared derivatives computed once.

    Args:
        dem: Elevation in metres, (B, 1, H, W); NaN = missing.
        pixel_size: Metres; see `PixelSize`.
        names: Layers, in the order of the channels.

    Returns:
        (B, K, H, W), NaN where a layer is not defined.

    Raises:
        UserError: Unknown layer.
    """
    check_elevation(dem)
    specs = [layer(name) for name in names]
    spacing = spacing_of(pixel_size, dem)
    local = [spec.local for spec in specs if spec.local is not None]

    def compute(window: Tensor) -> list[Tensor]:
        surface = Surface(window, spacing)
        return [function(surface) for function in local]

    shared = iter(evaluate(dem, REACH, compute, len(local)) if local else [])
    return torch.cat([next(shared) if spec.local is not None else spec.function(dem, pixel_size) for spec in specs], dim=1)
