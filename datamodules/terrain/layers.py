"""Terrain layers by name: what a configuration lists, what a window must carry around it, and the stack that a network reads.

A name is a key of `LAYERS`. Layers that look around within a radius take it in metres after a colon: `tpi:50`, `openness_positive:100`,
`local_relief:20`. Without it they use the default of the tool that users compare with, in pixels: the eight neighbours for `tpi`
(gdaldem), 10 pixels for openness and sky view, 20 for `local_relief` (Relief Visualization Toolbox). Give the radius where data of
several resolutions meet.
"""

import difflib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
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
from datamodules.terrain.openness import Horizon, horizons, radius_of, ray_reach, rays, sky_view_factor
from datamodules.terrain.relief import (
    LOCAL_RELIEF_PIXELS,
    disc_reach,
    local_relief,
    position,
    riley,
    roughness,
    span,
    tpi,
    tri,
    wilson,
)
from datamodules.terrain.stencil import PixelSize, Reach, check_elevation, evaluate, in_strips, sizes_of, spacing_of


@dataclass(frozen=True)
class Layer:
    """One terrain layer.

    Attributes:
        function: From (dem, pixel_size) to the layer, like `dem`; layers with a radius take `radius_m` as the third argument.
        unit: Of the values; "" where they have none.
        low: Lower end of the physical range, for normalisation. Angles and shades cannot leave it; curvatures and reliefs can, on cliffs.
        high: Upper end of the physical range, for normalisation.
        halo_pixels: Pixels that it reads on each side, where no radius decides.
        reach: Pixels (rows, columns) that it reads on each side, from the metres a pixel (x, y) and the radius; None = no radius.
        radius_m: The radius; None = the default in pixels.
        local: The layer from the shared 3 x 3 neighbourhood, for layers that need no more.
        horizon: The layer as a result of `horizons`, whose sweep several layers share.
        channels: Always 1.
    """

    function: Callable[..., Tensor]
    unit: str
    low: float
    high: float
    halo_pixels: int = 1
    reach: Callable[[tuple[float, float], float | None], Reach] | None = None
    radius_m: float | None = None
    local: Callable[[Surface], Tensor] | None = None
    horizon: Horizon | None = None
    channels: int = 1

    def halo(self, pixel_size: PixelSize) -> int:
        """Pixels that must surround a window so that this layer has no rim inside it."""
        if self.reach is None:
            return self.halo_pixels
        return max(max(self.reach(size, self.radius_m)) for size in sizes_of(pixel_size))

    def __call__(self, dem: Tensor, pixel_size: PixelSize) -> Tensor:
        """The layer of `dem` (..., H, W) in metres, like `dem`."""
        return self.function(dem, pixel_size) if self.reach is None else self.function(dem, pixel_size, radius_m=self.radius_m)


class LayerTable(dict[str, Layer]):
    """Layers by name; a name with a radius gives the layer at that radius, and an unknown one a `UserError` with the nearest names."""

    def __missing__(self, name: str) -> Layer:
        """The layer of a name that is not itself a key."""
        stem, colon, text = name.partition(":")
        base = self.get(stem)
        if base is None:
            near = difflib.get_close_matches(stem, self, n=3, cutoff=0.5)
            remedy = f"did you mean {' or '.join(near)}?" if near else f"use one of {', '.join(self)}"
            raise UserError("no such terrain layer", remedy, field="layers", value=name)
        if not colon or base.reach is None:
            raise UserError("this terrain layer takes no radius", f"write {stem}", field="layers", value=name)
        try:
            radius_m = float(text)
        except ValueError:
            radius_m = math.nan
        if not 0 < radius_m < math.inf:
            raise UserError("the radius must be positive metres", f"write for example {stem}:50", field="layers", value=name)
        if base.unit == "m":
            # What stands out from a slope of 45 degrees within the radius.
            return replace(base, radius_m=radius_m, low=-radius_m / 2, high=radius_m / 2)
        return replace(base, radius_m=radius_m)


def _disc(pixels: int) -> Callable[[tuple[float, float], float | None], Reach]:
    return lambda size, radius_m: disc_reach(size, pixels * max(size) if radius_m is None else radius_m)


def _eight_or_disc(size: tuple[float, float], radius_m: float | None) -> Reach:
    return REACH if radius_m is None else disc_reach(size, radius_m)


def _rays(size: tuple[float, float], radius_m: float | None) -> Reach:
    return ray_reach(rays(size, radius_of(size, radius_m)))


def _openness(kind: Horizon) -> Callable[..., Tensor]:
    return lambda dem, pixel_size, radius_m=None: horizons(dem, pixel_size, [kind], radius_m)[0]


LAYERS: Final[LayerTable] = LayerTable(
    {
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
        "tpi": Layer(tpi, "m", -10.0, 10.0, reach=_eight_or_disc, local=lambda surface: position(surface.window)),
        "tri": Layer(tri, "m", 0.0, 50.0, local=lambda surface: riley(surface.window)),
        "tri_wilson": Layer(lambda dem, size: tri(dem, size, "wilson"), "m", 0.0, 20.0, local=lambda surface: wilson(surface.window)),
        "roughness": Layer(roughness, "m", 0.0, 50.0, local=lambda surface: span(surface.window)),
        "openness_positive": Layer(_openness("positive"), "degrees", 0.0, 180.0, reach=_rays, horizon="positive"),
        "openness_negative": Layer(_openness("negative"), "degrees", 0.0, 180.0, reach=_rays, horizon="negative"),
        "openness_difference": Layer(_openness("difference"), "degrees", -90.0, 90.0, reach=_rays, horizon="difference"),
        "sky_view_factor": Layer(sky_view_factor, "", 0.0, 1.0, reach=_rays, horizon="sky_view"),
        "local_relief": Layer(local_relief, "m", -20.0, 20.0, reach=_disc(LOCAL_RELIEF_PIXELS)),
    }
)
"""All terrain layers. `LAYERS["tpi:50"]` works too."""


def halo_of(names: Sequence[str], pixel_size: PixelSize) -> int:
    """Pixels that must surround a window so that none of the layers has a rim inside it.

    Args:
        names: Layers.
        pixel_size: Metres; see `PixelSize`. Of several, the one that needs most decides.

    Raises:
        UserError: Unknown layer, or a radius below one pixel.
    """
    return max((LAYERS[name].halo(pixel_size) for name in names), default=0)


def terrain_layers(dem: Tensor, pixel_size: PixelSize, names: Sequence[str]) -> Tensor:
    """Stack of the named layers; what several of them need (derivatives, horizons) is computed once.

    Args:
        dem: Elevation in metres, (B, 1, H, W); NaN = missing.
        pixel_size: Metres; see `PixelSize`. Layers with a radius need it on the host, so a GPU tensor makes them wait for the device.
        names: Layers, in the order of the channels.

    Returns:
        (B, K, H, W), NaN where a layer is not defined.

    Raises:
        UserError: Unknown layer, or a radius below one pixel.
        ValueError: Another shape of `dem`.
    """
    check_elevation(dem)
    if dem.ndim != 4 or dem.shape[1] != 1:
        raise ValueError(f"dem must be (B, 1, H, W), not {tuple(dem.shape)}")
    layers = [LAYERS[name] for name in names]
    if not layers:
        return dem[:, :0]
    if not in_strips(dem):
        return torch.cat(_compute(dem, pixel_size, layers, None), dim=1)
    # In strips most results go straight to their place in the stack, which saves a second copy of a large scene.
    stack = dem.new_empty((dem.shape[0], len(layers), *dem.shape[-2:]))
    places = [stack[:, index : index + 1] for index in range(len(layers))]
    for place, values in zip(places, _compute(dem, pixel_size, layers, places), strict=True):
        if values is not place:
            place.copy_(values)
    return stack


def _compute(dem: Tensor, pixel_size: PixelSize, layers: Sequence[Layer], places: Sequence[Tensor] | None) -> list[Tensor]:
    """The layers, each (B, 1, H, W); those from the 3 x 3 neighbourhood in `places`, if given."""
    results: dict[int, Tensor] = {}
    local = {index: layer.local for index, layer in enumerate(layers) if layer.local is not None and layer.radius_m is None}
    if local:
        spacing = spacing_of(pixel_size, dem)

        def compute(window: Tensor) -> list[Tensor]:
            surface = Surface(window, spacing)
            return [function(surface) for function in local.values()]

        out = None if places is None else [places[index] for index in local]
        results.update(zip(local, evaluate(dem, REACH, compute, len(local), out), strict=True))
    for radius_m in {layer.radius_m for layer in layers if layer.horizon is not None}:
        shared = {index: layer.horizon for index, layer in enumerate(layers) if layer.horizon is not None and layer.radius_m == radius_m}
        results.update(zip(shared, horizons(dem, pixel_size, list(shared.values()), radius_m), strict=True))
    return [results[index] if index in results else layer(dem, pixel_size) for index, layer in enumerate(layers)]
