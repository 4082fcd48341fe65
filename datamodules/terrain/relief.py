"""Relief indices: how high a place lies, and how rough it is, against what surrounds it.

Windows with a radius are discs: the pixels whose centre lies within the radius plus half a pixel, so that a radius of one (square) pixel
takes in the eight neighbours and the result is that of `gdaldem`. A value is NaN wherever its window leaves the model or holds a missing
elevation: the mean of half a disc on a slope would be off by the slope itself.
"""

import math
from collections.abc import Sequence
from typing import Literal, get_args

import torch
from torch import Tensor

from datamodules.errors import UserError
from datamodules.terrain.stencil import PixelSize, Reach, check_elevation, each_size, evaluate, inverse_root

RuggednessMethod = Literal["riley", "wilson"]
_NEIGHBOURS = [(row, column) for row in (0, 1, 2) for column in (0, 1, 2) if (row, column) != (1, 1)]

LOCAL_RELIEF_PIXELS = 20
"""Radius of `local_relief` where none is given: the default of the Relief Visualization Toolbox."""


def disc_widths(size: tuple[float, float], radius_m: float) -> list[int]:
    """Half widths in pixels of the rows of a disc, from its centre row outwards.

    Args:
        size: Metres a pixel (x, y).
        radius_m: Of the disc.

    Raises:
        UserError: The disc holds no neighbour.
    """
    x, y = size
    reach = radius_m + (x + y) / 4
    # The tolerance keeps pixel sizes that went through float32 from losing the pixels on the circle.
    tolerance = 1e-5
    if not (0 < radius_m < math.inf) or reach < min(x, y) * (1 - tolerance):
        raise UserError("must hold at least one neighbour", f"give a radius of {min(x, y):g} m or more", field="radius_m", value=radius_m)
    rows = math.floor(reach / y + tolerance)
    return [math.floor(math.sqrt(max(reach * reach - (row * y) ** 2, 0.0)) / x + tolerance) for row in range(rows + 1)]


def disc_reach(size: tuple[float, float], radius_m: float) -> Reach:
    """Pixels (rows, columns) that a disc reads on each side."""
    widths = disc_widths(size, radius_m)
    return len(widths) - 1, widths[0]


def disc_sum(window: Tensor, widths: list[int]) -> Tensor:
    """Sum over the disc around each pixel.

    Args:
        window: (..., H + 2 rows, W + 2 columns).
        widths: From `disc_widths`.

    Returns:
        (..., H, W).
    """
    rows, columns = len(widths) - 1, widths[0]
    height, width = window.shape[-2] - 2 * rows, window.shape[-1] - 2 * columns
    # Sums along rows grow pixel by pixel from the narrow rows at the rim of the disc to its centre: about three additions for each row of
    # the disc instead of one for each of its pixels, and no running total in which a NaN would poison the rest of its row.
    half = 0
    along = window[..., columns : columns + width]
    total: Tensor | None = None
    for row in range(rows, -1, -1):
        while half < widths[row]:
            half += 1
            left, right = columns - half, columns + half
            along = along + window[..., left : left + width] + window[..., right : right + width]
        for offset in {rows - row, rows + row}:
            part = along[..., offset : offset + height, :]
            total = part if total is None else total + part
    assert total is not None
    return total


def disc_mean_difference(dem: Tensor, pixel_size: PixelSize, radius_m: float | None, pixels: int, *, include_centre: bool) -> Tensor:
    """Elevation minus the mean of the disc around it, with or without the pixel itself; without `radius_m` the radius is so many pixels."""
    check_elevation(dem)

    def compute(item: Tensor, size: tuple[float, float]) -> Sequence[Tensor]:
        widths = disc_widths(size, pixels * max(size) if radius_m is None else radius_m)
        rows, columns = len(widths) - 1, widths[0]
        number = 2 * sum(2 * width + 1 for width in widths[1:]) + 2 * widths[0] + (1 if include_centre else 0)

        def difference(window: Tensor) -> list[Tensor]:
            # Thousands of elevations of thousands of metres: in float32 their sum is off by metres. Apple's GPUs have no float64.
            wide = window if window.device.type == "mps" else window.double()
            centre = wide[..., rows : wide.shape[-2] - rows, columns : wide.shape[-1] - columns]
            total = disc_sum(wide, widths)
            mean = (total if include_centre else total - centre) / number
            return [(centre - mean).to(window.dtype)]

        return evaluate(item, (rows, columns), difference, 1)

    return each_size(dem, pixel_size, compute)[0]


def tpi(dem: Tensor, pixel_size: PixelSize, radius_m: float | None = None) -> Tensor:
    """Topographic position index: elevation minus the mean of its neighbours within a radius, in metres; ridges > 0, valleys < 0.

    The scale decides what is seen: give two or three radii. Source: Weiss (2001), "Topographic position and landforms analysis", ESRI User
    Conference; without a radius, or with one of one square pixel, the eight neighbours as `gdaldem TPI`.

    Args:
        dem: Elevation in metres, (..., H, W); NaN = missing.
        pixel_size: Metres; see `PixelSize`.
        radius_m: Of the disc of neighbours; None = the eight neighbours.

    Returns:
        Metres, like `dem`.

    Raises:
        UserError: A radius below one pixel.
    """
    if radius_m is not None:
        return disc_mean_difference(dem, pixel_size, radius_m, 1, include_centre=False)
    check_elevation(dem)
    return evaluate(dem, (1, 1), lambda window: [position(window)], 1)[0]


def local_relief(dem: Tensor, pixel_size: PixelSize, radius_m: float | None = None) -> Tensor:
    """Local relief model: elevation minus the mean of the disc around it, the pixel included, in metres.

    Takes the large forms away and leaves scarps, levees and lobes of the size of the radius. Source: the simple local relief model of
    Hesse (2010), Archaeological Prospection 17: 67-72, as in the Relief Visualization Toolbox (mean filter).

    Args:
        dem: Elevation in metres, (..., H, W); NaN = missing.
        pixel_size: Metres; see `PixelSize`.
        radius_m: Of the disc; None = `LOCAL_RELIEF_PIXELS` pixels.

    Returns:
        Metres, like `dem`.

    Raises:
        UserError: A radius below one pixel.
    """
    return disc_mean_difference(dem, pixel_size, radius_m, LOCAL_RELIEF_PIXELS, include_centre=True)


def tri(
    dem: Tensor,
    pixel_size: PixelSize | None = None,  # noqa: ARG001 -- one signature for all layers
    method: RuggednessMethod = "riley",
) -> Tensor:
    """Terrain ruggedness index of the 3 x 3 neighbourhood, in metres, 0 and more.

    "riley": root of the sum of the squared differences to the eight neighbours (for land), Riley et al. (1999), Intermountain Journal of
    Sciences 5: 23-27. "wilson": mean of the absolute differences (for sea floors), Wilson et al. (2007), Marine Geodesy 30: 3-35. As
    `gdaldem TRI -alg Riley | Wilson`. Grows with the pixel size on the same slope.

    Args:
        dem: Elevation in metres, (..., H, W); NaN = missing.
        pixel_size: Not used.
        method: "riley" or "wilson".

    Returns:
        Metres, like `dem`.

    Raises:
        UserError: Unknown method.
    """
    if method not in get_args(RuggednessMethod):
        raise UserError("unknown ruggedness method", f"use one of {', '.join(get_args(RuggednessMethod))}", field="method", value=method)
    check_elevation(dem)
    function = riley if method == "riley" else wilson
    return evaluate(dem, (1, 1), lambda window: [function(window)], 1)[0]


def roughness(dem: Tensor, pixel_size: PixelSize | None = None) -> Tensor:  # noqa: ARG001 -- one signature for all layers
    """Roughness: highest minus lowest elevation of the 3 x 3 neighbourhood, in metres, 0 and more.

    Source: Dartnell (2000), MSc thesis, San Francisco State University; Wilson et al. (2007), Marine Geodesy 30: 3-35; as `gdaldem
    roughness`.

    Args:
        dem: Elevation in metres, (..., H, W); NaN = missing.
        pixel_size: Not used.

    Returns:
        Metres, like `dem`.
    """
    check_elevation(dem)
    return evaluate(dem, (1, 1), lambda window: [span(window)], 1)[0]


def _differences(window: Tensor) -> list[Tensor]:
    """Elevation minus each of the eight neighbours, from (..., H + 2, W + 2) to eight (..., H, W)."""
    height, width = window.shape[-2] - 2, window.shape[-1] - 2
    centre = window[..., 1:-1, 1:-1]
    return [centre - window[..., row : row + height, column : column + width] for row, column in _NEIGHBOURS]


def position(window: Tensor) -> Tensor:
    """Topographic position among the eight neighbours, from a window (..., H + 2, W + 2)."""
    first, *others = _differences(window)
    for difference in others:
        first = first + difference
    return first / len(_NEIGHBOURS)


def riley(window: Tensor) -> Tensor:
    """Ruggedness by Riley from a window (..., H + 2, W + 2)."""
    total: Tensor | None = None
    for difference in _differences(window):
        total = difference * difference if total is None else torch.addcmul(total, difference, difference)
    assert total is not None
    return total * inverse_root(total)


def wilson(window: Tensor) -> Tensor:
    """Ruggedness by Wilson from a window (..., H + 2, W + 2)."""
    first, *others = _differences(window)
    total = first.abs()
    for difference in others:
        total = total + difference.abs()
    return total / len(_NEIGHBOURS)


def span(window: Tensor) -> Tensor:
    """Highest minus lowest of the nine elevations of a window (..., H + 2, W + 2)."""
    # Extremes of rows, then of columns: four comparisons instead of eight.
    high = torch.maximum(torch.maximum(window[..., :-2], window[..., 1:-1]), window[..., 2:])
    low = torch.minimum(torch.minimum(window[..., :-2], window[..., 1:-1]), window[..., 2:])
    high = torch.maximum(torch.maximum(high[..., :-2, :], high[..., 1:-1, :]), high[..., 2:, :])
    low = torch.minimum(torch.minimum(low[..., :-2, :], low[..., 1:-1, :]), low[..., 2:, :])
    return high - low
