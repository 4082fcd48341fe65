"""Landslides of a map: what is one, its outline, and what its pixels say; read band by band."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from zoo.inventory.attributes import PixelSums
from zoo.inventory.outlines import Components, Outlines, simplified
from zoo.inventory.reference import Reference
from zoo.inventory.source import MapReader, TerrainReader
from zoo.metrics.rasters import strips

Array = npt.NDArray[Any]
STRIP_PIXELS: Final = 1_000_000
"""Pixels of a band of rows; some 80 bytes are needed for each."""


@dataclass(frozen=True)
class Survey:
    """Landslides of a scene in their order: N polygons, and what was summed over their pixels.

    Args:
        polygons: Multipolygons (N) in map coordinates.
        chosen: int64 (N): their places in `sums`, `pixels` and `reference`.
        sums: Over pixels.
        pixels: Of each.
        reference: Known landslides, counted; None without.
    """

    polygons: Array
    chosen: Array
    sums: PixelSums
    pixels: Array
    reference: Reference | None


def survey(
    source: MapReader,
    terrain: TerrainReader | None,
    reference: tuple[Path, str] | None = None,
    *,
    min_area_m2: float = 0.0,
    simplify_m: float = 0.0,
    strip_pixels: int = STRIP_PIXELS,
) -> Survey:
    """Read a map twice: to find what is one landslide, and to outline and measure it.

    Args:
        source: The map.
        terrain: The ground under it, if known.
        reference: File and layer of known landslides.
        min_area_m2: Least geodesic area, before simplification.
        simplify_m: Tolerance in metres; 0 = none.
        strip_pixels: Pixels that are read at a time.

    Raises:
        UserError: A damaged file, or a reference that cannot be used.
    """
    grid = source.grid
    bands = [strip.rows for strip in strips((grid.height, grid.width), strip_pixels=strip_pixels)]
    components = Components(lambda rows: source.read(rows).landslide, bands)
    # Speckle must not fill the memory: what is too small however the map stretches is not even outlined.
    components.keep(components.pixels * source.ground.largest_pixel_m2(grid.transform, grid.width, grid.height) >= min_area_m2)
    num = len(components.pixels)
    outlines, sums = Outlines(num), PixelSums(num, grid.width)
    known = Reference(*reference, grid, num) if reference else None
    for rows in bands:
        content = source.read(rows)
        numbers = components.read(rows, content.landslide)
        if known is not None:
            known.add(rows.start, numbers, ~np.isnan(content.probability))
        if numbers.any():
            outlines.add(rows.start, numbers)
            sums.add(numbers, content, terrain.read(rows) if terrain else None)
    polygons = outlines.polygons(grid.transform)
    areas = source.ground.areas_and_perimeters(polygons, source.step)[0]
    chosen = np.argsort(sums.first, kind="stable")
    chosen = chosen[areas[chosen] >= min_area_m2]
    polygons = polygons[chosen]
    if simplify_m:
        polygons = simplified(polygons, source.units(simplify_m))
    return Survey(polygons, chosen, sums, components.pixels, known)
