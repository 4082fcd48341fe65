"""Loess-like relief: a trunk river, its tributaries and the hills between them, by stream-power incision and hillslope creep.

The ground changes as dz/dt = U - K A^m S + D laplace(z), with drainage area A and slope S to the receiver (detachment-limited stream
power, n = 1). Each implicit step is an affine map along the drainage tree, z_i = a_i + b_i z_receiver(i), composed by pointer doubling:
log2(depth) array operations in place of a loop over pixels.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.sparse import coo_array, csgraph

from datamodules.synthetic.noise import Grid, fractal

AREA_EXPONENT = 0.45
"""m of the stream-power law; 0.4 to 0.5 fits channels (concavity with n = 1)."""
_NEIGHBOURS = tuple((row, column) for row in (-1, 0, 1) for column in (-1, 0, 1) if row or column)

Index = NDArray[np.int64]


class Drainage(NamedTuple):
    """Where each cell drains to."""

    receiver: Index
    """(cells,): flat index of the steepest lower neighbour, or the cell itself (outlet, pit)."""
    distance_m: NDArray[np.float64]
    """(cells,): way to it."""


def steepest_descent(surface: Grid, cell_m: float, outlet: NDArray[np.bool_] | None = None) -> Drainage:
    """D8 receivers; cells without a lower neighbour and outlets drain to themselves. The rim lets nothing out."""
    rows, columns = surface.shape
    index = np.arange(surface.size).reshape(rows, columns)
    padded = np.pad(surface, 1, constant_values=np.inf)
    steepest = np.zeros(surface.shape, dtype=np.float32)
    receiver, distance = index.copy(), np.full(surface.shape, cell_m, dtype=np.float64)
    for row, column in _NEIGHBOURS:
        way = cell_m * float(np.hypot(row, column))
        fall = (surface - padded[1 + row : 1 + row + rows, 1 + column : 1 + column + columns]) / np.float32(way)
        better = fall > steepest
        steepest[better] = fall[better]
        receiver[better] = index[better] + row * columns + column
        distance[better] = way
    if outlet is not None:
        receiver[outlet] = index[outlet]
    return Drainage(receiver.ravel(), distance.ravel())


def drainage_area(receiver: Index, cell_area_m2: float) -> NDArray[np.float64]:
    """Contributing area of each cell, itself included, in square metres.

    Pointer doubling: after k rounds a cell holds the sum over its donors up to 2^k steps away.
    """
    size = receiver.size
    # Slot `size` swallows what leaves an outlet, so that outlets do not feed themselves.
    target = np.append(np.where(receiver == np.arange(size), size, receiver), size)
    area = np.append(np.full(size, cell_area_m2), 0.0)
    while (target[:size] != size).any():
        area = area + np.bincount(target, area, minlength=size + 1)
        area[size] = 0
        target = target[target]
    return np.asarray(area[:size])


def solve_along_tree(receiver: Index, constant: NDArray[np.float64], factor: NDArray[np.float64]) -> NDArray[np.float64]:
    """Solve z_i = constant_i + factor_i * z_receiver(i); outlets (their own receivers) keep `constant`, whatever their factor."""
    roots = receiver == np.arange(receiver.size)
    constant, factor = constant.copy(), np.where(roots, 0.0, factor)
    target = receiver
    while True:
        further = target[target]
        constant = constant + factor * np.where(roots[target] & roots, 0.0, constant[target])
        factor = factor * factor[target]
        if np.array_equal(further, target):
            return constant
        target = further


def incise(
    surface: Grid,
    cell_m: float,
    erodibility: float | NDArray[np.float32],
    *,
    uplift_m: float = 0.0,
    outlet: NDArray[np.bool_] | None = None,
    channel_head_m2: float = 0.0,
    steepest_deg: float = 90.0,
) -> tuple[Grid, Grid]:
    """One implicit time step of stream-power incision.

    Args:
        surface: Elevation in metres.
        cell_m: Metres a cell.
        erodibility: K dt, in m^(1 - 2 m); one for all, or one a cell.
        uplift_m: U dt; outlets do not rise.
        outlet: Cells with fixed elevation.
        channel_head_m2: Drainage area that it takes to make a channel; above it hillslopes creep and do not incise.
        steepest_deg: Flow paths steeper than this collapse to it.

    Returns:
        New elevation and drainage area (square metres).
    """
    drainage = steepest_descent(surface, cell_m, outlet)
    area = drainage_area(drainage.receiver, cell_m**2)
    before = surface.ravel().astype(np.float64) + uplift_m
    if outlet is not None:
        before = np.where(outlet.ravel(), surface.ravel(), before)
    power = erodibility * np.maximum(area - channel_head_m2, 0) ** AREA_EXPONENT / drainage.distance_m
    after = solve_along_tree(drainage.receiver, np.where(_is_root(drainage.receiver), before, before / (1 + power)), power / (1 + power))
    if steepest_deg < 90:
        after = np.minimum(after, after[drainage.receiver] + drainage.distance_m * np.tan(np.radians(steepest_deg)))
    return after.reshape(surface.shape).astype(np.float32), area.reshape(surface.shape).astype(np.float32)


def _is_root(receiver: Index) -> NDArray[np.bool_]:
    return np.asarray(receiver == np.arange(receiver.size))


def _percolation_tree(resistance: Grid, outlet: NDArray[np.bool_]) -> Index:
    """Receivers along the lowest passes to an outlet: the minimum spanning tree, which has no pits by construction."""
    rows, columns = resistance.shape
    index = np.arange(resistance.size).reshape(rows, columns)
    flat = resistance.ravel() - resistance.min() + 1
    pairs = [(index[:, :-1], index[:, 1:]), (index[:-1], index[1:]), (index[:-1, :-1], index[1:, 1:]), (index[:-1, 1:], index[1:, :-1])]
    one, other = (np.concatenate([pair[side].ravel() for pair in pairs]) for side in (0, 1))
    sea = resistance.size
    shores = index[outlet]
    weights = np.concatenate([np.maximum(flat[one], flat[other]), np.full(shores.size, 1e-3)])
    graph = coo_array((weights, (np.append(one, np.full(shores.size, sea)), np.append(other, shores))), shape=(sea + 1, sea + 1))
    tree = csgraph.minimum_spanning_tree(graph.tocsr())
    _, parent = csgraph.breadth_first_order(tree, sea, directed=False)
    receiver = parent[:sea].astype(np.int64)
    receiver[outlet.ravel()] = shores
    return np.asarray(receiver)


def _river(rng: np.random.Generator, cells: int, cell_m: float) -> tuple[NDArray[np.bool_], Grid]:
    """A meandering trunk river from the west rim to the east rim: its flood plain and the elevation of the bed by column."""
    x = np.linspace(0, 1, cells, dtype=np.float32)
    course = rng.uniform(0.3, 0.7) + rng.uniform(-0.3, 0.3) * (x - 0.5)
    for wave in (1, 2, 4, 7):
        course = course + rng.normal(0, 0.06 / wave) * np.sin(2 * np.pi * (wave * x + rng.uniform()))
    row = np.clip(course, 0.04, 0.96) * (cells - 1)
    rows = np.arange(cells)[:, None]
    # Between neighbouring columns the course may jump several rows; fill the jump.
    upper, lower = np.minimum(row, np.append(row[1:], row[-1])), np.maximum(row, np.append(row[1:], row[-1]))
    axis = (rows >= np.floor(upper)) & (rows <= np.ceil(lower))
    half_width_m = rng.uniform(5, 40) * np.exp(0.5 * fractal(rng, axis.shape, cell_m, roughness=2.6))
    return ndimage.distance_transform_edt(~axis, sampling=cell_m) <= half_width_m, (12 * (1 - x)).astype(np.float32)


def dissected_hills(
    rng: np.random.Generator, extent_m: float, *, relief_m: float, dissection: float, tableland: float
) -> tuple[Grid, float]:
    """Hills and valleys around a trunk river, cut into a loess tableland.

    Args:
        rng: Source of randomness.
        extent_m: Side of the square domain.
        relief_m: Height between the 1st and the 99th percentile.
        dissection: About 0.6 (broad hills) to 1.6 (dense gully network).
        tableland: In [0, 1): share of the height at which the old surface cuts off the summits; near 0 hardly anything of it is left.

    Returns:
        Elevation above the river mouth in metres, on cells of 8 m, and the cell size.
    """
    coarse_m, fine_m = 16.0, 8.0
    cells = round(extent_m / coarse_m)
    outlet, bed = _river(rng, cells, coarse_m)
    away = ndimage.distance_transform_edt(~outlet, sampling=coarse_m).astype(np.float32)
    resistance = fractal(rng, (cells, cells), coarse_m, roughness=3.2) + away / 300
    receiver = _percolation_tree(resistance, outlet)
    area = drainage_area(receiver, coarse_m**2)
    # Steady state of the stream-power law on that tree: each reach has slope U / (K A^m).
    drop = np.where(_is_root(receiver), np.broadcast_to(bed, outlet.shape).ravel(), coarse_m * area**-AREA_EXPONENT * 60)
    surface = solve_along_tree(receiver, drop, np.ones(receiver.size)).reshape(outlet.shape).astype(np.float32)
    # A patchwork of hard and weak ground keeps the ridges from becoming regular.
    strength = fractal(rng, surface.shape, coarse_m, roughness=3.0)
    erodibility = (0.35 * np.exp(-0.3 * strength)).ravel()
    for _ in range(30):
        surface, _ = incise(
            _fill_pits(surface, outlet),
            coarse_m,
            erodibility,
            uplift_m=9.0,
            outlet=outlet,
            channel_head_m2=4000 / dissection,
            steepest_deg=38,
        )
        # Without some roughness at every step, flow along eight directions locks into straight parallel gullies.
        rough = rng.standard_normal(surface.shape, dtype=np.float32)
        surface = np.where(outlet, surface, ndimage.gaussian_filter(surface + 2.0 * rough, 0.6))
    surface *= relief_m / float(np.subtract(*np.percentile(surface, (99, 1))))
    summit = float(np.percentile(surface, 99.5)) * (1 - tableland) + 0.06 * relief_m * fractal(rng, surface.shape, coarse_m, roughness=3.5)
    surface = _soft_minimum(surface, summit, 0.06 * relief_m)
    surface = ndimage.zoom(surface, 2, order=3, mode="nearest", grid_mode=True).astype(np.float32)
    outlet = ndimage.zoom(outlet.astype(np.float32), 2, order=1, mode="nearest", grid_mode=True) > 0.6
    surface += np.where(outlet, 0.1, 0.5) * fractal(rng, surface.shape, fine_m, roughness=2.4, longest_m=160)
    for _ in range(10):
        surface, _ = incise(
            _fill_pits(surface, outlet),
            fine_m,
            0.10 * dissection,
            uplift_m=0.5,
            outlet=outlet,
            channel_head_m2=1500 / dissection,
            steepest_deg=44,
        )
        surface = np.where(outlet, surface, ndimage.gaussian_filter(surface, 0.55))
    return surface, fine_m


def _fill_pits(surface: Grid, outlet: NDArray[np.bool_]) -> Grid:
    """Raise cells that lie below all their neighbours to the lowest of them; wider hollows take several steps to fill."""
    around = np.ones((3, 3), dtype=bool)
    around[1, 1] = False
    lowest = ndimage.minimum_filter(surface, footprint=around, mode="constant", cval=np.inf)
    return np.where(outlet, surface, np.maximum(surface, lowest + np.float32(0.02)))


def _soft_minimum(surface: Grid, ceiling: Grid, width_m: float) -> Grid:
    """The lower of both, with a rounded shoulder where they meet."""
    gap = np.clip((surface - ceiling) / width_m, -30, 30)
    return np.asarray(surface - width_m * np.log1p(np.exp(gap)), dtype=np.float32)
