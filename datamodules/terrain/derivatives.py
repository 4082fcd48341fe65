"""Slope, aspect, shading and curvature from the 3 x 3 neighbourhood.

Names of the window, row-major and north up, with x to the east, y to the **north** and pixel sizes dx, dy in metres:

    a b c
    d e f
    g h i

Derivatives of elevation z by Horn (1981), Proc. IEEE 69(1): 14-47, "Hill shading and the reflectance map":

    z_x = [(c + 2f + i) - (a + 2d + g)] / (8 dx)        z_y = [(a + 2b + c) - (g + 2h + i)] / (8 dy)

or by Zevenbergen & Thorne (1987), Earth Surf. Process. Landforms 12: 47-56, "Quantitative analysis of land surface topography":

    z_x = (f - d) / (2 dx)                              z_y = (b - h) / (2 dy)
    z_xx = (d + f - 2e) / dx^2    z_yy = (b + h - 2e) / dy^2    z_xy = (c + g - a - i) / (4 dx dy)

Horn smooths and suits rough terrain, Zevenbergen & Thorne is sharper and suits smooth terrain. All functions give NaN on the outermost rows
and columns and where any of the nine elevations is missing, as `gdaldem` does without `-compute_edges`. North is grid north.
"""

import math
from collections.abc import Callable
from typing import Literal, get_args

import torch
from torch import Tensor

from datamodules.errors import UserError
from datamodules.terrain.stencil import NOTHING, Once, PixelSize, Spacing, check_elevation, evaluate, inverse_root, spacing_of

GradientMethod = Literal["horn", "zevenbergen_thorne"]
REACH = (1, 1)


class Gradient:
    """First derivatives (z_x, z_y) of a window and what follows from them alone, each computed once.

    Args:
        east: z_x, (..., H, W).
        north: z_y, (..., H, W).
    """

    def __init__(self, east: Tensor, north: Tensor) -> None:
        self.east = east
        self.north = north

    @Once
    def squared(self) -> Tensor:
        """G = z_x^2 + z_y^2."""
        return torch.addcmul(self.east * self.east, self.north, self.north)

    @Once
    def inverse(self) -> Tensor:
        """1 / sqrt(G), 0 where flat."""
        return inverse_root(self.squared)

    @Once
    def cosine(self) -> Tensor:
        """Cosine of the slope, 1 / sqrt(1 + G)."""
        return (self.squared + 1).rsqrt()

    @Once
    def slope(self) -> Tensor:
        """Degrees."""
        steepness = self.squared * self.inverse
        return _atan2(steepness, steepness.new_ones(())) * (180 / math.pi)

    @Once
    def aspect(self) -> tuple[Tensor, Tensor]:
        """Sine and cosine of the downslope azimuth: -z_x / sqrt(G), -z_y / sqrt(G)."""
        downwards = -self.inverse
        return self.east * downwards, self.north * downwards

    def shade(self, azimuth_deg: float, altitude_deg: float) -> Tensor:
        """Cosine of the angle between the surface normal and the sun, not below 0."""
        azimuth, altitude = math.radians(azimuth_deg), math.radians(altitude_deg)
        horizontal = math.cos(altitude)
        facing = self.east * (-horizontal * math.sin(azimuth)) + math.sin(altitude)
        facing = torch.add(facing, self.north, alpha=-horizontal * math.cos(azimuth))
        return (facing * self.cosine).clamp_min(0.0)

    def multidirectional_shade(self, altitude_deg: float) -> Tensor:
        """Mean shade of four suns in the west, each weighted by how much the slope faces it or turns its back to it."""
        sine, cosine = self.aspect
        # On flat ground any aspect gives weights that sum to 2, so north does.
        cosine = torch.where(self.squared < NOTHING, 1.0, cosine)
        total: Tensor | None = None
        for azimuth_deg in (225.0, 270.0, 315.0, 360.0):
            azimuth = math.radians(azimuth_deg)
            facing = sine * math.sin(azimuth) + cosine * math.cos(azimuth)
            lit = facing * facing * self.shade(azimuth_deg, altitude_deg)
            total = lit if total is None else total + lit
        assert total is not None
        return total / 2


class Surface:
    """A window (..., H + 2, W + 2) of elevations and its derivatives (..., H, W), each computed once however many layers ask for it."""

    def __init__(self, window: Tensor, spacing: Spacing) -> None:
        self.window = window
        self.spacing = spacing

    def gradient(self, method: GradientMethod) -> Gradient:
        """First derivatives by the named method."""
        return self.horn if method == "horn" else self.zevenbergen_thorne

    @Once
    def _steps_east(self) -> Tensor:
        """Elevation differences between pixels side by side, (..., H + 2, W + 1)."""
        return self.window[..., 1:] - self.window[..., :-1]

    @Once
    def horn(self) -> Gradient:
        """First derivatives by Horn."""
        # Differences before sums: neighbouring elevations differ by little, so their float32 difference is exact, whereas the sums of the
        # formula as printed would round at 1e-3 m. Through the steps (f - e) + (e - d) the centre takes part, so z_x is NaN if any of 9 is.
        span = self._steps_east[..., 1:] + self._steps_east[..., :-1]
        east = torch.add(span[..., :-2, :], span[..., 1:-1, :], alpha=2) + span[..., 2:, :]
        fall = self.window[..., :-2, :] - self.window[..., 2:, :]
        north = torch.add(fall[..., :-2], fall[..., 1:-1], alpha=2) + fall[..., 2:]
        return Gradient(east * (0.125 / self.spacing.x), north * (0.125 / self.spacing.y))

    @Once
    def zevenbergen_thorne(self) -> Gradient:
        """First derivatives by Zevenbergen & Thorne."""
        middle = self._steps_east[..., 1:-1, :]
        east = middle[..., 1:] + middle[..., :-1]
        north = self.window[..., :-2, 1:-1] - self.window[..., 2:, 1:-1]
        # The corners take no part in the formula, but gdaldem wants all nine elevations.
        corners = self.twist * 0
        return Gradient(east * (0.5 / self.spacing.x) + corners, north * (0.5 / self.spacing.y))

    @Once
    def bend_east(self) -> Tensor:
        """z_xx, per metre."""
        steps = self._steps_east[..., 1:-1, :]
        return (steps[..., 1:] - steps[..., :-1]) * (1 / (self.spacing.x * self.spacing.x))

    @Once
    def bend_north(self) -> Tensor:
        """z_yy, per metre."""
        middle = self.window[..., 1:-1]
        steps = middle[..., :-1, :] - middle[..., 1:, :]
        return (steps[..., :-1, :] - steps[..., 1:, :]) * (1 / (self.spacing.y * self.spacing.y))

    @Once
    def twist(self) -> Tensor:
        """z_xy, per metre."""
        top, bottom = self.window[..., :-2, :], self.window[..., 2:, :]
        fall = top - bottom
        return (fall[..., 2:] - fall[..., :-2]) * (0.25 / (self.spacing.x * self.spacing.y))

    @Once
    def profile_curvature(self) -> Tensor:
        """Per metre."""
        gradient = self.zevenbergen_thorne
        sine, cosine = gradient.aspect
        along = self.bend_east * sine * sine + 2 * self.twist * sine * cosine + self.bend_north * cosine * cosine
        return -along * gradient.cosine**3

    @Once
    def _bend_across(self) -> Tensor:
        """Second derivative across the direction of fall, per metre."""
        sine, cosine = self.zevenbergen_thorne.aspect
        return self.bend_east * cosine * cosine - 2 * self.twist * sine * cosine + self.bend_north * sine * sine

    @Once
    def tangential_curvature(self) -> Tensor:
        """Per metre."""
        return -self._bend_across * self.zevenbergen_thorne.cosine

    @Once
    def plan_curvature(self) -> Tensor:
        """Per metre."""
        return -self._bend_across * self.zevenbergen_thorne.inverse


def slope(dem: Tensor, pixel_size: PixelSize, method: GradientMethod = "horn") -> Tensor:
    """Steepest slope, atan(sqrt(z_x^2 + z_y^2)), in degrees 0 to 90.

    Source: Horn (1981) or Zevenbergen & Thorne (1987), as `gdaldem slope -alg Horn | ZevenbergenThorne`.

    Args:
        dem: Elevation in metres, (..., H, W); NaN = missing.
        pixel_size: Metres; see `PixelSize`.
        method: "horn" or "zevenbergen_thorne".

    Returns:
        Degrees, like `dem`.

    Raises:
        UserError: Unknown method or a pixel size that is not positive.
    """
    _check_method(method)
    return _from_surface(dem, pixel_size, lambda surface: surface.gradient(method).slope)


def aspect(dem: Tensor, pixel_size: PixelSize, method: GradientMethod = "horn") -> tuple[Tensor, Tensor]:
    """Sine and cosine of the downslope azimuth A, clockwise from grid north: -z_x / sqrt(G), -z_y / sqrt(G).

    The pair is what networks and resampling need: degrees jump from 359 to 0. Where the ground is flat both are 0. `gdaldem aspect`
    ignores the pixel size, so the two agree on square pixels only.

    Args:
        dem: Elevation in metres, (..., H, W); NaN = missing.
        pixel_size: Metres; see `PixelSize`.
        method: "horn" or "zevenbergen_thorne".

    Returns:
        (sin A, cos A), each in -1 to 1 and like `dem`.

    Raises:
        UserError: Unknown method or a pixel size that is not positive.
    """
    _check_method(method)
    check_elevation(dem)
    spacing = spacing_of(pixel_size, dem)
    sine, cosine = evaluate(dem, REACH, lambda window: Surface(window, spacing).gradient(method).aspect, 2)
    return sine, cosine


def aspect_deg(dem: Tensor, pixel_size: PixelSize, method: GradientMethod = "horn") -> Tensor:
    """Downslope azimuth clockwise from grid north, atan2(-z_x, -z_y) mod 360, in degrees 0 to 360; NaN where flat, as `gdaldem aspect`.

    For people and for maps. Networks and anything that interpolates want `aspect`.

    Args:
        dem: Elevation in metres, (..., H, W); NaN = missing.
        pixel_size: Metres; see `PixelSize`.
        method: "horn" or "zevenbergen_thorne".

    Returns:
        Degrees, like `dem`.

    Raises:
        UserError: Unknown method or a pixel size that is not positive.
    """
    sine, cosine = aspect(dem, pixel_size, method)
    flat = (sine == 0) & (cosine == 0)
    degrees = _atan2(sine, torch.where(flat, 1.0, cosine)) * (180 / math.pi)
    degrees = torch.where(degrees < 0, degrees + 360, degrees)
    return torch.where(flat, torch.nan, degrees)


def hillshade(dem: Tensor, pixel_size: PixelSize, azimuth_deg: float = 315.0, altitude_deg: float = 45.0) -> Tensor:
    """Illumination by one sun, 0 (in the shade) to 1 (facing the sun), without unit.

    max(0, [sin h - cos h (z_x sin a + z_y cos a)] / sqrt(1 + G)) with azimuth a and altitude h of the sun. `gdaldem hillshade` writes
    1 + 254 times this as a byte. No cast shadows. Source: Horn (1981).

    Args:
        dem: Elevation in metres, (..., H, W); NaN = missing.
        pixel_size: Metres; see `PixelSize`.
        azimuth_deg: Where the light comes from, clockwise from north.
        altitude_deg: Of the sun above the horizon.

    Returns:
        Like `dem`.
    """
    return _from_surface(dem, pixel_size, lambda surface: surface.horn.shade(azimuth_deg, altitude_deg))


def multidirectional_hillshade(dem: Tensor, pixel_size: PixelSize, altitude_deg: float = 45.0) -> Tensor:
    """Illumination by suns at 225, 270, 315 and 360 degrees, 0 to 1, without unit.

    Half the sum over azimuths a of cos^2(A - a) times the hillshade of a, where A is the aspect; sin(altitude) where flat. Slopes that
    one sun leaves dark or washes out keep their relief. Source: Mark (1992), USGS Open-File Report 92-422, as `gdaldem hillshade
    -multidirectional`.

    Args:
        dem: Elevation in metres, (..., H, W); NaN = missing.
        pixel_size: Metres; see `PixelSize`.
        altitude_deg: Of the suns above the horizon.

    Returns:
        Like `dem`.
    """
    return _from_surface(dem, pixel_size, lambda surface: surface.horn.multidirectional_shade(altitude_deg))


def profile_curvature(dem: Tensor, pixel_size: PixelSize) -> Tensor:
    """Curvature of the slope line, per metre; convex (water speeds up) > 0, 0 where flat.

    -(z_xx z_x^2 + 2 z_xy z_x z_y + z_yy z_y^2) / (G (1 + G)^(3/2)), the geometric form. A relic scarp is a convex edge above a concave
    foot. Source: Minar et al. (2020), Earth-Science Reviews 211: 103414, with the derivatives of Zevenbergen & Thorne (1987).

    Args:
        dem: Elevation in metres, (..., H, W); NaN = missing.
        pixel_size: Metres; see `PixelSize`.

    Returns:
        1/m (not times 100), like `dem`.
    """
    return _from_surface(dem, pixel_size, lambda surface: surface.profile_curvature)


def tangential_curvature(dem: Tensor, pixel_size: PixelSize) -> Tensor:
    """Curvature across the slope line in the normal section, per metre; convex (water spreads) > 0, 0 where flat.

    -(z_xx z_y^2 - 2 z_xy z_x z_y + z_yy z_x^2) / (G (1 + G)^(1/2)). The tame relative of plan curvature: it stays bounded on gentle slopes.
    Source: Minar et al. (2020), Earth-Science Reviews 211: 103414, with the derivatives of Zevenbergen & Thorne (1987).

    Args:
        dem: Elevation in metres, (..., H, W); NaN = missing.
        pixel_size: Metres; see `PixelSize`.

    Returns:
        1/m (not times 100), like `dem`.
    """
    return _from_surface(dem, pixel_size, lambda surface: surface.tangential_curvature)


def plan_curvature(dem: Tensor, pixel_size: PixelSize) -> Tensor:
    """Curvature of the contour line, per metre; convex (water spreads) > 0, 0 where flat.

    -(z_xx z_y^2 - 2 z_xy z_x z_y + z_yy z_x^2) / G^(3/2). Grows without bound towards flat ground, so clip it or use
    `tangential_curvature`. Source: Minar et al. (2020), Earth-Science Reviews 211: 103414, with the derivatives of Zevenbergen & Thorne
    (1987).

    Args:
        dem: Elevation in metres, (..., H, W); NaN = missing.
        pixel_size: Metres; see `PixelSize`.

    Returns:
        1/m (not times 100), like `dem`.
    """
    return _from_surface(dem, pixel_size, lambda surface: surface.plan_curvature)


def _from_surface(dem: Tensor, pixel_size: PixelSize, layer: Callable[[Surface], Tensor]) -> Tensor:
    check_elevation(dem)
    spacing = spacing_of(pixel_size, dem)
    return evaluate(dem, REACH, lambda window: [layer(Surface(window, spacing))], 1)[0]


def _check_method(method: str) -> None:
    if method not in get_args(GradientMethod):
        raise UserError("unknown gradient method", f"use one of {', '.join(get_args(GradientMethod))}", field="method", value=method)


def _atan2(y: Tensor, x: Tensor) -> Tensor:
    """`torch.atan2` that stays NaN in exported graphs too.

    ONNX has none, and its translation chooses the quadrant by comparisons, which NaN fails, so that no data would become 0.
    """
    angle = torch.atan2(y, x)
    return torch.where(torch.isnan(y + x), torch.nan, angle) if torch.compiler.is_exporting() else angle
