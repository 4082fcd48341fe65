"""Openness and sky view: how much the terrain within a radius hides of the sky above, and of the ground below.

From each pixel rays run into equally spaced directions. Along a ray the pixels nearest to it are read, each with its true distance, up to
the radius; the steepest of them is the horizon. A value is NaN wherever a ray leaves the model or meets a missing elevation, because what
would hide the sky is then unknown. The curvature of the Earth is left out (2 m at 5 km).
"""

import math
from collections.abc import Sequence
from typing import Literal, get_args

import torch
from torch import Tensor

from datamodules.errors import UserError
from datamodules.terrain.stencil import PixelSize, Reach, check_elevation, each_size, evaluate

OpennessKind = Literal["positive", "negative", "difference"]
Horizon = Literal["positive", "negative", "difference", "sky_view"]

OPENNESS_PIXELS = 10
"""Radius in pixels where none is given: the default of the Relief Visualization Toolbox."""
DIRECTIONS = 16

Ray = list[tuple[int, int, float]]
"""Pixels of a ray, outwards: rows down, columns right, distance in metres."""


def rays(size: tuple[float, float], radius_m: float, directions: int = DIRECTIONS) -> list[Ray]:
    """Pixels along equally spaced directions, the first to the north, then clockwise.

    Args:
        size: Metres a pixel (x, y).
        radius_m: Length of the rays.
        directions: How many; a multiple of 4 keeps the result equivariant under quarter turns.

    Raises:
        UserError: Fewer than 4 directions or a ray without a pixel.
    """
    if directions < 4:
        raise UserError("too few directions", "use 4 or more, 16 as a rule", field="directions", value=directions)
    x, y = size
    found = []
    for index in range(directions):
        azimuth = 2 * math.pi * index / directions
        step = min(x, y)
        pixels: dict[tuple[int, int], float] = {}
        for number in range(1, math.ceil(radius_m / step) + 2):
            row = _nearest(-number * step * math.cos(azimuth) / y)
            column = _nearest(number * step * math.sin(azimuth) / x)
            distance = math.hypot(row * y, column * x)
            # The tolerance keeps pixel sizes that went through float32 from losing the last pixel.
            if 0 < distance <= radius_m * (1 + 1e-5):
                pixels[row, column] = distance
        if not pixels:
            raise UserError("no pixel lies within it", f"give a radius of {math.hypot(x, y):g} m or more", field="radius_m", value=radius_m)
        found.append([(row, column, distance) for (row, column), distance in pixels.items()])
    return found


def _nearest(position: float) -> int:
    """Nearest pixel; halves go inwards, the same in every quadrant, whatever the last digit of a sine."""
    return int(math.copysign(math.floor(abs(position) + 0.5 - 1e-6), position))


def ray_reach(found: Sequence[Ray]) -> Reach:
    """Pixels (rows, columns) that the rays read on each side."""
    pixels = [pixel for ray in found for pixel in ray]
    return max(abs(row) for row, _, _ in pixels), max(abs(column) for _, column, _ in pixels)


def radius_of(size: tuple[float, float], radius_m: float | None) -> float:
    """The radius in metres; `OPENNESS_PIXELS` pixels where none is given."""
    return OPENNESS_PIXELS * max(size) if radius_m is None else radius_m


def horizons(
    dem: Tensor, pixel_size: PixelSize, wanted: Sequence[Horizon], radius_m: float | None = None, directions: int = DIRECTIONS
) -> Sequence[Tensor]:
    """What is `wanted` of the horizon, from one sweep over the rays.

    Args:
        dem: Elevation in metres, (..., H, W); NaN = missing.
        pixel_size: Metres; see `PixelSize`.
        wanted: "positive", "negative" or "difference" openness, "sky_view".
        radius_m: Length of the rays; None = `OPENNESS_PIXELS` pixels.
        directions: Number of rays.

    Returns:
        One tensor like `dem` for each of `wanted`.
    """
    check_elevation(dem)

    def compute(item: Tensor, size: tuple[float, float]) -> Sequence[Tensor]:
        found = rays(size, radius_of(size, radius_m), directions)
        reach = ray_reach(found)
        return evaluate(item, reach, lambda window: _sweep(window, found, reach, wanted), len(wanted))

    return each_size(dem, pixel_size, compute)


def _sweep(window: Tensor, found: Sequence[Ray], reach: Reach, wanted: Sequence[Horizon]) -> list[Tensor]:
    rows, columns = reach
    height, width = window.shape[-2] - 2 * rows, window.shape[-1] - 2 * columns
    centre = window[..., rows : rows + height, columns : columns + width]
    upwards = {"positive", "difference", "sky_view"} & set(wanted)
    downwards = {"negative", "difference"} & set(wanted)
    positive, negative, sky = (torch.zeros_like(centre) for _ in range(3))
    for ray in found:
        steepest: Tensor | None = None
        deepest: Tensor | None = None
        for row, column, distance in ray:
            top, left = rows + row, columns + column
            rise = (window[..., top : top + height, left : left + width] - centre) * (1 / distance)
            if upwards:
                steepest = rise if steepest is None else torch.maximum(steepest, rise)
            if downwards:
                deepest = rise if deepest is None else torch.minimum(deepest, rise)
        if steepest is not None:
            if upwards - {"sky_view"}:
                positive = positive - steepest.atan()
            if "sky_view" in upwards:
                hidden = steepest.clamp_min(0.0)
                sky = sky + hidden * (hidden * hidden + 1).rsqrt()  # sin(atan(t)) = t / sqrt(1 + t^2)
        if deepest is not None:
            negative = negative + deepest.atan()
    degrees = 180 / math.pi / len(found)
    results = {
        "positive": 90 + positive * degrees,
        "negative": 90 + negative * degrees,
        "difference": (positive - negative) * (degrees / 2),
        "sky_view": 1 - sky / len(found),
    }
    return [results[name] for name in wanted]


def openness(
    dem: Tensor, pixel_size: PixelSize, kind: OpennessKind = "positive", radius_m: float | None = None, directions: int = DIRECTIONS
) -> Tensor:
    """Topographic openness: mean over the directions of the angle between the zenith (or the nadir) and the horizon, in degrees 0 to 180.

    "positive": mean of 90 - g, where g is the highest elevation angle of the terrain along a ray; above 90 on ridges, below in hollows.
    "negative": the same of -z, seen from below ground; above 90 in hollows. "difference": (positive - negative) / 2, -90 to 90, the
    brightness of the red relief image map of Chiba et al. (2008); flat ground and even slopes give 0, scarp edges and crests stand out.
    Unlike shading it has no sun and so does not change with the aspect. Source: Yokoyama et al. (2002), Photogrammetric Engineering and
    Remote Sensing 68: 257-265.

    Args:
        dem: Elevation in metres, (..., H, W); NaN = missing.
        pixel_size: Metres; see `PixelSize`.
        kind: "positive", "negative" or "difference".
        radius_m: How far the terrain is looked at; None = `OPENNESS_PIXELS` pixels.
        directions: Number of rays.

    Returns:
        Degrees, like `dem`.

    Raises:
        UserError: Unknown kind, a radius below one pixel, fewer than 4 directions.
    """
    if kind not in get_args(OpennessKind):
        raise UserError("unknown kind of openness", f"use one of {', '.join(get_args(OpennessKind))}", field="kind", value=kind)
    return horizons(dem, pixel_size, [kind], radius_m, directions)[0]


def sky_view_factor(dem: Tensor, pixel_size: PixelSize, radius_m: float | None = None, directions: int = DIRECTIONS) -> Tensor:
    """Sky view factor: mean over the directions of 1 - sin(max(g, 0)), without unit, 0 (no sky) to 1 (all of the sky).

    g is the highest elevation angle of the terrain along a ray. Source: Zaksek et al. (2011), Remote Sensing 3: 398-415.

    Args:
        dem: Elevation in metres, (..., H, W); NaN = missing.
        pixel_size: Metres; see `PixelSize`.
        radius_m: How far the terrain is looked at; None = `OPENNESS_PIXELS` pixels.
        directions: Number of rays.

    Returns:
        Like `dem`.

    Raises:
        UserError: A radius below one pixel, fewer than 4 directions.
    """
    return horizons(dem, pixel_size, ["sky_view"], radius_m, directions)[0]
