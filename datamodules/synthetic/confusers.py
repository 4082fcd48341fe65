"""What looks like a landslide and is none: terraces, roads, and the fields that cover all of it. None of it is labelled."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import interpolate, ndimage
from scipy.sparse import coo_array, csgraph

from datamodules.synthetic.noise import Grid, fractal, gradient_slope_deg, smoothstep


class Terraces(NamedTuple):
    """Terraced ground."""

    surface: Grid
    share: Grid
    """0 to 1: how far a pixel is terraced."""
    riser: Grid
    """0 to 1: on the step between two benches."""


def terrace(rng: np.random.Generator, surface: Grid, pixel_m: float, *, share: float) -> Terraces:
    """Cut benches along the contours into patches of gentle and moderate slopes.

    Args:
        rng: Source of randomness.
        surface: Elevation in metres.
        pixel_m: Metres a pixel.
        share: About the share of suitable slopes that is terraced.
    """
    shape = surface.shape
    # Benches follow the forms, not the rills.
    smooth = ndimage.gaussian_filter(surface, 8 / pixel_m)
    slope = gradient_slope_deg(smooth, pixel_m)
    suited = smoothstep(slope, 4, 8) * smoothstep(slope, 27, 20)
    patches = fractal(rng, shape, pixel_m, roughness=3.0, longest_m=500)
    where = suited * smoothstep(patches, float(np.quantile(patches, 1 - share)), float(np.quantile(patches, 1 - share)) + 0.15)
    # Higher steps, 5 to 10 m, make scarp-like breaks in the ground.
    step_m = np.where(fractal(rng, shape, pixel_m, roughness=3.5) > 1.0, rng.uniform(5, 10), rng.uniform(2, 4)).astype(np.float32)
    level = (smooth + 1.5 * fractal(rng, shape, pixel_m, roughness=3.0, longest_m=300)) / step_m
    part = level - np.floor(level)
    # A bench takes the lower 75 % of a step, the riser the rest.
    bench = 0.2 * part + 0.8 * smoothstep(part, 0.72, 1.0)
    where = ndimage.gaussian_filter(where, 6 / pixel_m)
    return Terraces(surface + where * (bench - part) * step_m, where, where * smoothstep(part, 0.7, 0.8))


def least_cost_road(rng: np.random.Generator, surface: Grid, pixel_m: float, existing: NDArray[np.bool_]) -> NDArray[np.float64]:
    """A road across the surface from rim to rim that avoids steep ground and joins existing roads.

    Returns:
        Points (n, 2) as row and column of the surface, about two a pixel.
    """
    stride = max(1, round(16 / pixel_m))
    coarse = ndimage.uniform_filter(surface, stride)[::stride, ::stride]
    rows, columns = coarse.shape
    index = np.arange(coarse.size).reshape(rows, columns)
    roughness = 0.03 * np.exp(0.5 * fractal(rng, (rows, columns), 16))
    roughness[ndimage.maximum_filter(existing, stride)[::stride, ::stride]] *= 0.05
    starts, ends, costs = [], [], []
    for row, column in ((0, 1), (1, 0), (1, 1), (1, -1)):
        one = index[: rows - row, max(0, -column) : columns - max(0, column)]
        other = index[row:, max(0, column) : columns + min(0, column)]
        way = np.hypot(row, column)
        rise = np.abs(coarse.ravel()[one] - coarse.ravel()[other]) / (way * stride * pixel_m)
        starts.append(one.ravel())
        ends.append(other.ravel())
        costs.append((way * (roughness.ravel()[one] + rise**2)).ravel())
    graph = coo_array((np.concatenate(costs), (np.concatenate(starts), np.concatenate(ends))), shape=(coarse.size, coarse.size)).tocsr()
    source, target = _rim_points(rng, rows, columns)
    _, before = csgraph.dijkstra(graph, directed=False, indices=source, return_predecessors=True)
    path = [target]
    while path[-1] != source:
        path.append(int(before[path[-1]]))
    points = np.stack(np.unravel_index(path, coarse.shape), axis=1) * stride + (stride - 1) / 2
    if len(points) < 5:
        return np.asarray(points, dtype=np.float64)
    smoothed = ndimage.gaussian_filter1d(points.astype(np.float64), 1.2, axis=0, mode="nearest")
    curve = interpolate.make_interp_spline(np.arange(len(points)), smoothed, k=3)
    return np.asarray(curve(np.linspace(0, len(points) - 1, len(points) * stride * 2)), dtype=np.float64)


def _rim_points(rng: np.random.Generator, rows: int, columns: int) -> tuple[int, int]:
    """Two flat indices on opposite rims."""
    if rng.uniform() < 0.5:
        return int(rng.integers(rows)) * columns, int(rng.integers(rows)) * columns + columns - 1
    return int(rng.integers(columns)), int(rng.integers(columns)) + (rows - 1) * columns


def build_roads(rng: np.random.Generator, surface: Grid, pixel_m: float, number: int) -> tuple[Grid, Grid]:
    """Cut roads into the slopes.

    Returns:
        The surface with a level road bed, cut bank and fill, and the distance of each pixel to the nearest road in metres, negative on it.
    """
    bed = ndimage.gaussian_filter(surface, 10 / pixel_m)
    nearest = np.full(surface.shape, np.inf, dtype=np.float32)
    for _ in range(number):
        axis = np.ones(surface.shape, dtype=bool)
        row, column = np.round(least_cost_road(rng, surface, pixel_m, nearest < 0)).astype(int).T
        axis[np.clip(row, 0, surface.shape[0] - 1), np.clip(column, 0, surface.shape[1] - 1)] = False
        distance = ndimage.distance_transform_edt(axis, sampling=pixel_m).astype(np.float32)
        nearest = np.minimum(nearest, distance - np.float32(rng.uniform(1.5, 4.0)))
    return surface + smoothstep(nearest, 5, 0) * 0.9 * (bed - surface), nearest


def parcels(rng: np.random.Generator, surface: Grid, pixel_m: float, size_m: float) -> NDArray[np.int64]:
    """Number of the field that each pixel belongs to: cells around jittered seeds, drawn out along the contours."""
    rows, columns = surface.shape
    smooth = ndimage.gaussian_filter(surface, 20 / pixel_m)
    warp = [8 * fractal(rng, surface.shape, pixel_m, roughness=3.0, longest_m=200) for _ in range(2)]
    # Elevation as the second coordinate narrows fields on slopes.
    tilt = rng.uniform(0, np.pi)
    x, y = np.arange(columns, dtype=np.float32)[None] * pixel_m, np.arange(rows, dtype=np.float32)[:, None] * pixel_m
    first = (x * np.cos(tilt) + y * np.sin(tilt) + warp[0]) / (1.6 * size_m)
    second = (-x * np.sin(tilt) + y * np.cos(tilt) + warp[1] + 3.5 * smooth) / size_m
    row, column = np.floor(second).astype(np.int64), np.floor(first).astype(np.int64)
    # A shifted start in each row makes a brick bond instead of a grid.
    shift = np.array(rng.uniform(0, 1, 4096), dtype=np.float32)
    column = np.floor(first + shift[row % 4096]).astype(np.int64)
    return np.asarray((row * 7919 + column) % 65536)
