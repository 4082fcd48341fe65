"""One synthetic scene: relief, landslides, confusers, image, elevation model and labels, put together.

Everything about scene i of a seed follows from (seed, i, size) alone.
"""

from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from rasterio import features
from rasterio.transform import Affine, from_origin
from scipy import ndimage
from shapely import affinity
from shapely.geometry import Polygon

from datamodules.synthetic.confusers import build_roads, terrace
from datamodules.synthetic.imagery import Sky, render
from datamodules.synthetic.morphology import Kind, Landslide, carve, draw_plan, footprint, place
from datamodules.synthetic.noise import Grid, fractal, gradient_slope_deg
from datamodules.synthetic.relief import dissected_hills, incise

IMAGE_PIXEL_M = 2.0
DEM_PIXEL_M = 8.0
DEM_NODATA = -9999.0
DEM_OVERLAP_M = 96.0
"""The elevation model reaches at least so far beyond the image, so that windows at its rim have a halo."""
_WORLD_MARGIN_M = 128.0
_WORK_PIXEL_M = 4.0
SMALLEST_M2, LARGEST_M2, AREA_POWER = 5e3, 3e5, 1.7
"""Landslide areas follow p(A) ~ A^-1.7 between these bounds, in square metres."""


class Region(NamedTuple):
    """A kind of landscape; scenes of one region have it in common."""

    name: str
    easting_m: float
    northing_m: float
    elevation_m: float
    relief_m: tuple[float, float]
    dissection: tuple[float, float]
    tableland: tuple[float, float]
    terraced: tuple[float, float]


REGIONS = (
    Region("tongwei", 520_000, 3_895_000, 1_640, (170, 280), (0.7, 1.1), (0.0, 0.06), (0.25, 0.5)),
    Region("huachi", 706_000, 4_049_000, 1_240, (140, 230), (0.9, 1.5), (0.05, 0.18), (0.10, 0.35)),
)
"""Gullied hills and gullied tableland, at plausible places of UTM zone 48N on the Loess Plateau."""
EPSG = 32648


@dataclass(frozen=True)
class LabelledSlide:
    """One polygon of the label."""

    landslide: int
    polygon: Polygon
    """In metres east and north of the upper left corner of the image (y negative)."""
    certainty: str
    """certain | probable | possible"""
    age: float


@dataclass(frozen=True)
class Scene:
    """What is written for one scene."""

    index: int
    region: Region
    image: NDArray[np.uint8]
    """(3, size, size); 0 = no data."""
    image_transform: Affine
    dem: Grid
    """(rows, columns) metres; -9999 = no data."""
    dem_transform: Affine
    label: NDArray[np.uint8]
    """(size, size): 0, 1, 255 = possible landslide or no image."""
    slides: tuple[LabelledSlide, ...]
    sky: Sky
    target_share: float


def region_of(index: int) -> Region:
    """Groups of four scenes share a region, so that each region has scenes of every split."""
    return REGIONS[index // 4 % len(REGIONS)]


def image_has_gap(index: int) -> bool:
    """Whether a scene lies at the ragged rim of the image swath."""
    return index % 8 in {1, 3, 6}


def dem_has_hole(index: int) -> bool:
    """Whether the elevation model of a scene has a hole."""
    return index % 8 in {2, 3}


def make_scene(seed: int, index: int, size: int) -> Scene:
    """Make one scene.

    Args:
        seed: Seed of the data set.
        index: Number of the scene, from 0.
        size: Image pixels a side, even, at least 96.
    """
    # One stream a stage, so that a change in one stage leaves the others alone.
    ground, sliding, confusing, painting, sensing = (np.random.default_rng([seed, index, size, stage]) for stage in range(5))
    region = region_of(index)
    side_m = size * IMAGE_PIXEL_M
    valid = _swath(sensing, size) if image_has_gap(index) else np.ones((size, size), dtype=bool)
    share = 0.03 + 0.04 * ((_van_der_corput(index) + np.random.default_rng(seed).uniform()) % 1)
    surface, slides = _landscape(ground, sliding, region, valid, share)
    surface = _weather(sliding, surface, slides)
    drainage = incise(surface, _WORK_PIXEL_M, 0.0)[1]
    surface, drainage = (_refine(layer) for layer in (surface, np.log(drainage)))
    surface += 0.10 * fractal(ground, surface.shape, IMAGE_PIXEL_M, roughness=2.0, longest_m=60)
    terraces = terrace(confusing, surface, IMAGE_PIXEL_M, share=confusing.uniform(*region.terraced))
    number = max(1, round(2.5 * side_m / 2048))
    surface, road_m = build_roads(confusing, terraces.surface, IMAGE_PIXEL_M, number)
    terraces = terraces._replace(surface=surface)
    labelled = _annotate(sliding, slides)
    label = _rasterize(labelled, size)
    label[~valid] = 255
    sky = Sky.draw(painting)
    traces = [(footprint(slide, surface.shape, IMAGE_PIXEL_M), slide.age) for slide in slides]
    margin = round(_WORLD_MARGIN_M / IMAGE_PIXEL_M)
    inner = slice(margin, margin + size)
    image = render(painting, surface, IMAGE_PIXEL_M, sky, terraces=terraces, road_m=road_m, drainage_m2=np.exp(drainage), slides=traces)[
        :, inner, inner
    ].copy()
    image[:, ~valid] = 0
    dem, dem_corner = _measure(sensing, surface, side_m, hole=dem_has_hole(index))
    spacing = 1000 * np.ceil((side_m + 2 * _WORLD_MARGIN_M + 200) / 1000)
    west = region.easting_m + index % 4 * spacing
    top = region.northing_m + index // (4 * len(REGIONS)) * spacing
    return Scene(
        index,
        region,
        image,
        from_origin(west, top, IMAGE_PIXEL_M, IMAGE_PIXEL_M),
        np.where(dem == DEM_NODATA, dem, dem + np.float32(region.elevation_m)).astype(np.float32),
        from_origin(west + dem_corner[0], top - dem_corner[1], DEM_PIXEL_M, DEM_PIXEL_M),
        label,
        labelled,
        sky,
        share,
    )


def _van_der_corput(index: int) -> float:
    """Well spread numbers in [0, 1): any few scenes in a row have small and large shares of landslide."""
    bits = f"{index:b}"[::-1]
    return int(bits, 2) / float(1 << len(bits))


def _landscape(
    ground: np.random.Generator, sliding: np.random.Generator, region: Region, valid: NDArray[np.bool_], share: float
) -> tuple[Grid, list[Landslide]]:
    """Relief on the working grid and the landslides (and forms like them) that will be carved into it, oldest first."""
    side_m = valid.shape[0] * IMAGE_PIXEL_M
    world_m = side_m + 2 * _WORLD_MARGIN_M
    hills, cell_m = dissected_hills(
        ground,
        max(world_m + 500, 2400),
        relief_m=ground.uniform(*region.relief_m),
        dissection=ground.uniform(*region.dissection),
        tableland=ground.uniform(*region.tableland),
    )
    hills = np.ascontiguousarray(np.rot90(hills, int(ground.integers(4))))
    margin, cells = round(_WORLD_MARGIN_M / _WORK_PIXEL_M), round(world_m / cell_m)
    free = np.zeros((2 * cells, 2 * cells), dtype=bool)
    # The coarse pixel is free where the image has data; 12 m off the rim of the image.
    step = round(_WORK_PIXEL_M / IMAGE_PIXEL_M)
    body = ndimage.binary_erosion(valid, iterations=round(12 / IMAGE_PIXEL_M))[::step, ::step]
    free[margin : margin + body.shape[0], margin : margin + body.shape[1]] = body
    steep = ndimage.uniform_filter((gradient_slope_deg(ndimage.gaussian_filter(hills, 4), cell_m) > 10).astype(np.float32), cells)
    target_m2 = share * float(valid.sum()) * IMAGE_PIXEL_M**2
    for _ in range(30):
        corners = ground.integers(0, hills.shape[0] - cells + 1, (12, 2))
        # Small scenes must not end up on the plain.
        row, column = max(corners, key=lambda corner: float(steep[corner[0] + cells // 2, corner[1] + cells // 2]))
        surface = ndimage.zoom(hills[row : row + cells, column : column + cells], 2, order=3, mode="nearest", grid_mode=True)
        slides = _settle(sliding, surface, ~free, target_m2)
        if slides:
            return surface.astype(np.float32), slides
    raise RuntimeError(
        f"no place for landslides of {target_m2:.0f} m2 in a scene of {side_m:.0f} m; the relief of the generator is at fault"
    )


def _areas(rng: np.random.Generator, total_m2: float) -> list[float]:
    """Areas from a truncated power law that add up to the total, largest first."""
    smallest, largest = min(SMALLEST_M2, 0.6 * total_m2), min(LARGEST_M2, 0.7 * total_m2)
    areas: list[float] = []
    while (rest := total_m2 - sum(areas)) > 1.3 * smallest:
        low, high = smallest ** (1 - AREA_POWER), min(largest, rest) ** (1 - AREA_POWER)
        areas.append(float((low + rng.uniform() * (high - low)) ** (1 / (1 - AREA_POWER))))
    return sorted([*areas, max(rest, 0.7 * smallest)], reverse=True) if rest > 0.3 * smallest else sorted(areas, reverse=True)


def _settle(rng: np.random.Generator, surface: Grid, taken: NDArray[np.bool_], target_m2: float) -> list[Landslide]:
    """Landslides of the target area, and about half as many other forms, none touching another; empty if they do not fit."""
    slides: list[Landslide] = []
    taken = taken.copy()

    def settle(area_m2: float, kind: Kind, age: float, depth_factor: float = 1.0) -> bool:
        plan = draw_plan(rng, area_m2, age, kind)
        slide = place(rng, surface, _WORK_PIXEL_M, replace(plan, depth_factor=plan.depth_factor * depth_factor), taken)
        if slide is None:
            return False
        slides.append(slide)
        np.logical_or(taken, footprint(slide, taken.shape, _WORK_PIXEL_M, grow_m=16), out=taken)
        return True

    smallest = min(SMALLEST_M2, 0.5 * target_m2)
    missing, queue = 0.0, _areas(rng, target_m2)
    for _ in range(60):
        if not queue and missing < 0.12 * target_m2:
            break
        if not queue:
            queue, missing = _areas(rng, missing), 0.0
        area_m2 = queue.pop(0)
        if not settle(area_m2, "landslide", float(rng.beta(1.6, 1.4))):
            # Where it does not fit, a smaller one may, and the rest is made up elsewhere.
            again = [0.6 * area_m2] if 0.6 * area_m2 >= smallest else []
            queue += again
            missing += area_m2 - sum(again)
    if missing > 0.25 * target_m2 or queue or not slides:
        return []
    for area_m2 in _areas(rng, 0.5 * target_m2):
        settle(area_m2, "amphitheatre" if rng.uniform() < 0.55 else "apron", float(rng.uniform(0.1, 0.8)))
    if target_m2 > 10 * SMALLEST_M2:
        settle(float(rng.uniform(1, 3)) * SMALLEST_M2, "landslide", 1.0, depth_factor=0.4)
    return sorted(slides, key=lambda slide: -slide.age)


def _weather(rng: np.random.Generator, surface: Grid, slides: list[Landslide]) -> Grid:
    """Carve the slides in the order of age; between them streams cut on, so that gullies run through the older ones."""
    epochs = 3
    for epoch in range(epochs):
        for slide in slides:
            if min(int((1 - slide.age) * epochs), epochs - 1) == epoch:
                surface = carve(surface, _WORK_PIXEL_M, slide, rng).surface
        roughness = 0.05 * fractal(rng, surface.shape, _WORK_PIXEL_M, roughness=1.5)
        surface, _ = incise(surface + roughness, _WORK_PIXEL_M, 0.03, channel_head_m2=1500, steepest_deg=55)
        surface = ndimage.gaussian_filter(surface, 0.5)
    return surface


def _refine(layer: Grid) -> Grid:
    """From the working grid to image pixels."""
    zoom = round(_WORK_PIXEL_M / IMAGE_PIXEL_M)
    return np.asarray(ndimage.zoom(layer, zoom, order=3, mode="nearest", grid_mode=True), dtype=np.float32)


def _annotate(rng: np.random.Generator, slides: list[Landslide]) -> tuple[LabelledSlide, ...]:
    """What an interpreter would draw: a few metres too large or too small, less sure of the old ones."""
    labelled: list[LabelledSlide] = []
    largest = max((slide.area_m2 for slide in slides if slide.kind == "landslide" and slide.age < 1), default=0.0)
    for slide in slides:
        if slide.kind != "landslide":
            continue
        error_m = min(1 + 1.5 * slide.age, 0.015 * float(np.sqrt(slide.area_m2)))
        polygon = slide.polygon.buffer(float(rng.normal(0, error_m))).simplify(1.0)
        polygon = affinity.affine_transform(polygon, [1, 0, 0, -1, -_WORLD_MARGIN_M, _WORLD_MARGIN_M])
        doubt = slide.age + rng.normal(0, 0.12)
        certainty = "certain" if doubt < 0.5 else "probable"
        if slide.age >= 1 and slide.area_m2 < largest:
            certainty = "possible"
        labelled.append(LabelledSlide(len(labelled) + 1, polygon, certainty, round(slide.age, 3)))
    return tuple(labelled)


def _rasterize(slides: tuple[LabelledSlide, ...], size: int) -> NDArray[np.uint8]:
    """Pixels whose centre lies in a polygon: 1, or 255 where the landslide is only possible."""
    shapes = [(slide.polygon, 255 if slide.certainty == "possible" else 1) for slide in slides]
    burnt = features.rasterize(shapes, (size, size), transform=from_origin(0, 0, IMAGE_PIXEL_M, IMAGE_PIXEL_M), dtype="uint8")
    return np.asarray(burnt, dtype=np.uint8)


def _swath(rng: np.random.Generator, size: int) -> NDArray[np.bool_]:
    """Valid pixels of an image that is cut by the slanting, ragged rim of a swath."""
    rows, columns = np.mgrid[:size, :size].astype(np.float32) / size - 0.5
    angle = rng.uniform(0, 2 * np.pi)
    ragged = 0.015 * fractal(rng, (size, size), 1.0, roughness=3.0, longest_m=size / 6)
    across = columns * np.cos(angle) + rows * np.sin(angle) + 0.08 * ragged
    steps = np.floor((columns * -np.sin(angle) + rows * np.cos(angle)) * 25) % 2 * 0.006
    return np.asarray(across + steps < np.quantile(across, rng.uniform(0.86, 0.96)))


def _measure(rng: np.random.Generator, surface: Grid, side_m: float, *, hole: bool) -> tuple[Grid, tuple[float, float]]:
    """The elevation model: coarser, noisy, on a grid that is shifted by fractions of an image pixel.

    Returns:
        Elevations and the upper left corner in metres (east, south) of that of the image.
    """
    shift_x, shift_y = (float(rng.choice([0.7, 1.3, 2.7, 3.3, 4.9, 5.3, 6.7])) for _ in range(2))
    corner = (-DEM_OVERLAP_M - shift_x, -DEM_OVERLAP_M - shift_y)
    rows, columns = (int(np.ceil((side_m + 2 * DEM_OVERLAP_M + shift) / DEM_PIXEL_M)) for shift in (shift_y, shift_x))
    smooth = ndimage.uniform_filter(surface, round(DEM_PIXEL_M / IMAGE_PIXEL_M))
    # Filters of even width look half a pixel to the upper left.
    offset = _WORLD_MARGIN_M / IMAGE_PIXEL_M
    row = (corner[1] + (np.arange(rows) + 0.5) * DEM_PIXEL_M) / IMAGE_PIXEL_M + offset
    column = (corner[0] + (np.arange(columns) + 0.5) * DEM_PIXEL_M) / IMAGE_PIXEL_M + offset
    dem = ndimage.map_coordinates(smooth, np.meshgrid(row, column, indexing="ij"), order=1, mode="nearest")
    dem += rng.uniform(0.2, 0.4) * fractal(rng, dem.shape, DEM_PIXEL_M, roughness=2.0, longest_m=60)
    dem += 0.08 * rng.standard_normal(dem.shape, dtype=np.float32)
    if hole:
        blob = fractal(rng, dem.shape, DEM_PIXEL_M, roughness=4.5, longest_m=side_m / 2)
        inner = np.hypot(*np.meshgrid(*(np.linspace(-1, 1, count) for count in dem.shape), indexing="ij")) < 0.75
        dem[inner & (blob > np.quantile(blob[inner], 0.98))] = DEM_NODATA
    return dem.astype(np.float32), corner
