"""Relic landslides: their plan, the morphology that they carve into a slope, and where slopes can fail.

A slide is described in its own frame: u metres down the axis from the crown, v metres to the left of it. Upslope lies the depleted bowl
under an arcuate back wall, downslope the hummocky tongue with a bulging toe. Volume follows V = 10^-0.73 A^1.35, about the relation that
Larsen et al. (2010) give for landslides in bedrock. Age blurs the forms as creep would, by diffusion.
"""

from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from rasterio import features
from rasterio.transform import from_origin
from scipy import ndimage
from shapely import affinity
from shapely.geometry import Polygon

from datamodules.synthetic.noise import Grid, fractal, smoothstep

Kind = Literal["landslide", "amphitheatre", "apron"]
"""What is carved: a landslide, a gully head without a deposit, or a colluvial apron without a scarp. The last two carry no label."""


@dataclass(frozen=True)
class Landslide:
    """One landslide or a form that is easily mistaken for one, in metres from the upper left corner of the surface (x east, y south)."""

    crown: tuple[float, float]
    """Top of the back wall, on the axis."""
    azimuth_deg: float
    """Direction of movement, clockwise from north."""
    length_m: float
    width_m: float
    age: float
    """0 fresh forms, 1 nearly levelled."""
    outline: tuple[tuple[float, float], ...]
    """Plan in the frame of the slide, (u, v) metres, not closed."""
    depth_factor: float = 1.0
    """Depth relative to the area-volume law; about half of it, since erosion has taken from the scarp and filled the bowl."""
    kind: Kind = "landslide"

    @property
    def polygon(self) -> Polygon:
        """Plan in metres from the upper left corner of the surface."""
        azimuth = np.radians(self.azimuth_deg)
        # u runs along the azimuth, v to its left; y grows to the south.
        along, left = (np.sin(azimuth), -np.cos(azimuth)), (-np.cos(azimuth), -np.sin(azimuth))
        return affinity.affine_transform(Polygon(self.outline), [along[0], left[0], along[1], left[1], *self.crown])

    @property
    def area_m2(self) -> float:
        """Area of the plan."""
        return float(Polygon(self.outline).area)

    @property
    def volume_m3(self) -> float:
        """Volume that moves."""
        return float(self.depth_factor * 10**-0.73 * self.area_m2**1.35)


class Carving(NamedTuple):
    """A surface with a landslide in it."""

    surface: Grid
    depleted_m3: float
    deposited_m3: float


def draw_plan(rng: np.random.Generator, area_m2: float, age: float, kind: Kind = "landslide") -> Landslide:
    """A landslide of the given area at the origin, facing north, with an irregular horseshoe, pear or tongue as its plan."""
    stations = np.linspace(0, 1, 41)
    head, toe = rng.uniform(0.35, 0.6), rng.uniform(0.2, 0.5)
    half = stations**head * (1 - stations) ** toe
    half /= half.max()
    bend, aspect_ratio = rng.normal(0, 0.15), float(np.exp(rng.uniform(np.log(0.7), np.log(2.4))))
    axis = bend * stations**2
    wobble = [
        np.clip(
            1 + sum(rng.normal(0, 0.22 / wave) * np.sin(np.pi * wave * stations + rng.uniform(0, 6.3)) for wave in range(1, 8)), 0.55, 1.5
        )
        for _ in range(2)
    ]
    left, right = axis + half * wobble[0] / 2, axis - half * wobble[1] / 2
    u, v = np.concatenate([stations, stations[-2:0:-1]]), np.concatenate([left, right[-2:0:-1]])
    raw = np.stack([u * aspect_ratio, v], axis=1)
    # Closing, then opening: time has rounded all corners.
    rounded = Polygon(raw).buffer(0.05).buffer(-0.17).buffer(0.13)
    polygon = max(getattr(rounded, "geoms", [rounded]), key=lambda part: float(part.area))
    width = float(np.sqrt(area_m2 / polygon.area))
    points = np.asarray(polygon.exterior.coords)[:-1] * width
    points[:, 0] -= points[:, 0].min()
    return Landslide(
        crown=(0.0, 0.0),
        azimuth_deg=0.0,
        length_m=float(np.ptp(points[:, 0])),
        width_m=width,
        age=age,
        outline=tuple((float(u), float(v)) for u, v in points),
        depth_factor=float(rng.uniform(0.5, 0.95)),
        kind=kind,
    )


def carve(surface: Grid, pixel_m: float, slide: Landslide, rng: np.random.Generator) -> Carving:
    """Carve the morphology of a landslide into a surface.

    Args:
        surface: Elevation in metres; not changed.
        pixel_m: Metres a pixel.
        slide: What to carve; parts beyond the surface are left out.
        rng: Draws the hummocks.

    Returns:
        The new surface and the volumes before the ground was smoothed under the slide; for a landslide they agree within 15 %.
    """
    margin = 40.0
    west, north, east, south = slide.polygon.bounds
    rows, columns = surface.shape
    top, bottom = max(0, int((north - margin) / pixel_m)), min(rows, int((south + margin) / pixel_m) + 1)
    left, right = max(0, int((west - margin) / pixel_m)), min(columns, int((east + margin) / pixel_m) + 1)
    if top >= bottom or left >= right:
        return Carving(surface, 0.0, 0.0)
    window = surface[top:bottom, left:right]
    transform = from_origin(left * pixel_m, -top * pixel_m, pixel_m, pixel_m)
    mirrored = affinity.scale(slide.polygon, 1, -1, origin=(0, 0))
    inside = features.rasterize([mirrored], window.shape, transform=transform, dtype="uint8").astype(bool)
    if not inside.any():
        return Carving(surface, 0.0, 0.0)
    ground, change = _change(window, pixel_m, slide, inside, _along(slide, window.shape, (top, left), pixel_m), rng=rng)
    cell = pixel_m**2
    carved = surface.copy()
    carved[top:bottom, left:right] = ground + change
    return Carving(carved, float(-change[change < 0].sum() * cell), float(change[change > 0].sum() * cell))


def _along(slide: Landslide, shape: tuple[int, int], corner: tuple[int, int], pixel_m: float) -> Grid:
    """Position of each pixel along the axis, 0 at the crown and 1 at the toe."""
    azimuth = np.radians(slide.azimuth_deg)
    x = (np.arange(shape[1]) + corner[1] + 0.5) * pixel_m - slide.crown[0]
    y = (np.arange(shape[0]) + corner[0] + 0.5) * pixel_m - slide.crown[1]
    return np.asarray((x[None] * np.sin(azimuth) - y[:, None] * np.cos(azimuth)) / slide.length_m, dtype=np.float32)


def _change(
    ground: Grid, pixel_m: float, slide: Landslide, inside: NDArray[np.bool_], along: Grid, *, rng: np.random.Generator
) -> tuple[Grid, Grid]:
    """The ground with its old gullies wiped out under the slide, and what the slide adds to it."""
    edge_m = ndimage.distance_transform_edt(inside, sampling=pixel_m).astype(np.float32)
    mean_depth = slide.volume_m3 / slide.area_m2
    scale = float(np.sqrt(slide.area_m2))
    # A fresh back wall of loess stands at some 45 degrees; depth over width of the wall sets that.
    wall_m = max(2.5 * mean_depth, 2 * pixel_m)
    # The depleted zone ends where the tongue begins; the apron has no bowl, the amphitheatre no tongue.
    divide = {"landslide": 0.55, "amphitheatre": 0.95, "apron": 0.15}[slide.kind]
    # Deepest below the back wall and thinning out downslope: a floor that is gentler than the slope, but no pit.
    lowered = smoothstep(edge_m, 0, wall_m) * np.clip((divide - along) / divide, 0, 1) ** 0.8
    # The tongue is an arched sheet: feathered at the flanks, with a steep front at the toe.
    arch = np.clip(edge_m / (0.3 * slide.width_m), 0, 1) ** 0.7
    raised = arch * np.clip((along - divide + 0.1) / (0.9 - divide), 0, 1)
    hummock_m = float(np.clip(scale / 7, 18, 45))
    hummocks = fractal(rng, ground.shape, pixel_m, roughness=2.0, longest_m=hummock_m, shortest_m=0.3 * hummock_m)
    ridges = np.sin(2 * np.pi * (along * slide.length_m / (1.6 * hummock_m) + 0.35 * hummocks))
    cell = pixel_m**2
    moved = slide.volume_m3 if slide.kind != "amphitheatre" else 0.6 * slide.volume_m3
    change = np.zeros_like(ground)
    if slide.kind != "apron":
        change -= lowered * np.float32(moved / max(float(lowered.sum()) * cell, 1.0))
    if slide.kind != "amphitheatre":
        strength = 0.5 if slide.kind == "apron" else 1.0
        change += raised * np.float32(strength * 0.95 * moved / max(float(raised.sum()) * cell, 1.0))
        body = smoothstep(edge_m, 0, 0.12 * slide.width_m) * smoothstep(along, 0.1, 0.35)
        relief = np.clip(0.16 * mean_depth, 0.5, 1.8) * (1 - 0.5 * slide.age)
        rough = body * (0.75 * hummocks + 0.6 * ridges)
        change += np.float32(relief) * (rough - body * (rough.sum() / max(float(body.sum()), 1.0)))
    # Creep: sqrt(2 D t) of 3 m for fresh forms to some 14 m for the oldest, and some of the relief is gone.
    blur_m = (3 + 11 * slide.age) * np.clip(scale / 200, 0.6, 1.3)
    change = (1 - 0.25 * slide.age) * ndimage.gaussian_filter(change, blur_m / pixel_m)
    cover = smoothstep(edge_m, 0, 0.15 * slide.width_m) * (0.4 if slide.kind == "amphitheatre" else 0.85)
    smooth = ndimage.gaussian_filter(ground, 0.12 * scale / pixel_m, mode="nearest")
    return np.asarray(ground + cover * (smooth - ground), dtype=np.float32), np.asarray(change, dtype=np.float32)


def place(
    rng: np.random.Generator, surface: Grid, pixel_m: float, plan: Landslide, taken: NDArray[np.bool_], *, candidates: int = 600
) -> Landslide | None:
    """Put a plan on a slope that can have failed: it falls all the way to a valley and the ground is free.

    Args:
        rng: Draws the candidates.
        surface: Elevation in metres.
        pixel_m: Metres a pixel.
        plan: From `draw_plan`.
        taken: Pixels that no part of it may touch.
        candidates: Slopes to look at.

    Returns:
        The plan where it fits, or None.
    """
    rows, columns = surface.shape
    # Forms as wide as the slide decide where it goes, not the gullies on them.
    ground = ndimage.gaussian_filter(surface, 0.12 * plan.length_m / pixel_m)
    down, right = np.gradient(ground, pixel_m)
    pick_row, pick_column = rng.integers(0, rows, candidates), rng.integers(0, columns, candidates)
    azimuth = np.arctan2(-right[pick_row, pick_column], down[pick_row, pick_column]) + rng.normal(0, 0.15, candidates)
    # The picked pixel becomes the middle of the slide.
    steps = np.linspace(-0.55, 0.6, 9) * plan.length_m / pixel_m
    profile_row = pick_row[:, None] - steps * np.cos(azimuth)[:, None]
    profile_column = pick_column[:, None] + steps * np.sin(azimuth)[:, None]
    profile = ndimage.map_coordinates(ground, [profile_row, profile_column], order=1, mode="nearest")
    drop = profile[:, 1] - profile[:, -2]
    mean_slope = drop / (np.ptp(steps[1:-1]) * pixel_m)
    # Falling everywhere, and the ground at the toe flattens: a slope that ends in a valley.
    falling = (np.diff(profile, axis=1) < 0.02 * plan.length_m).all(1)
    score = np.where(falling & (mean_slope > 0.16) & (mean_slope < 0.75), 0.3 * mean_slope + rng.uniform(0, 0.25, candidates), -1)
    for pick in np.argsort(-score):
        if score[pick] < 0:
            return None
        middle = np.array([pick_column[pick] + 0.5, pick_row[pick] + 0.5]) * pixel_m
        ahead = np.array([np.sin(azimuth[pick]), -np.cos(azimuth[pick])])
        crown = middle - 0.5 * plan.length_m * ahead
        slide = replace(plan, crown=(float(crown[0]), float(crown[1])), azimuth_deg=float(np.degrees(azimuth[pick]) % 360))
        if not _blocked(slide, taken, pixel_m):
            return slide
    return None


def footprint(slide: Landslide, shape: tuple[int, int], pixel_m: float, *, grow_m: float = 0.0) -> NDArray[np.bool_]:
    """Pixels of a surface whose centre lies in the plan, grown by a margin."""
    mirrored = affinity.scale(slide.polygon.buffer(grow_m), 1, -1, origin=(0, 0))
    return np.asarray(features.rasterize([mirrored], shape, transform=from_origin(0, 0, pixel_m, pixel_m), dtype="uint8"), dtype=bool)


def _blocked(slide: Landslide, taken: NDArray[np.bool_], pixel_m: float) -> bool:
    west, north, east, south = slide.polygon.bounds
    rows, columns = taken.shape
    if west < 0 or north < 0 or east > columns * pixel_m or south > rows * pixel_m:
        return True
    return bool((taken & footprint(slide, taken.shape, pixel_m)).any())
