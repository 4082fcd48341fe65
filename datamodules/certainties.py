"""How many landslides of each certainty a scene holds, their area, and how much of it training ignores."""

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import label as label_components
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from datamodules.classes import IGNORE, LANDSLIDE
from datamodules.components import EIGHT, graded, touching
from datamodules.polygons import LabelPolygons
from datamodules.reading import SceneReader

_STRIP_ROWS = 256


@dataclass(frozen=True)
class Tally:
    """Landslides of one certainty.

    Args:
        certainty: In lower case; "" where none is stated.
        weight: In the loss; 0 = ignored.
        landslides: Polygons that reach into the image, or 8-connected pieces of a raster.
        km2: Area of their pixels where the image has data.
        ignored_km2: Of it, what counts for nothing: of an ignored certainty, or near a boundary.
    """

    certainty: str
    weight: float
    landslides: int
    km2: float
    ignored_km2: float


def tally(reader: SceneReader) -> list[Tally]:
    """Count the landslides of one scene by certainty, strip by strip; certainties that do not occur in it are left out."""
    labels, grid = reader.opened_labels(), reader.grid
    if labels is None:
        return []
    number = len(labels.grades)
    pixels, ignored, pieces = (np.zeros(number, dtype=np.int64) for _ in range(3))
    joins: list[list[np.ndarray]] = [[] for _ in range(number)]
    above = [np.empty(0, dtype=np.int64)] * number
    polygons = labels.source if isinstance(labels.source, LabelPolygons) else None
    for row in range(0, grid.height, _STRIP_ROWS):
        place = row, 0, min(_STRIP_ROWS, grid.height - row), grid.width
        grades, mask = graded(reader, *place), labels.read(*place)[0]
        for at in range(number):
            found = grades == LANDSLIDE + at
            pixels[at] += found.sum()
            ignored[at] += (found & (mask == IGNORE)).sum()
            if polygons is not None:
                continue
            marked, more = label_components(found, structure=EIGHT)
            marked = np.where(marked > 0, marked + pieces[at] - 1, -1)
            if row:
                joins[at].append(touching(above[at], marked[0]))
            pieces[at] += more
            above[at] = marked[-1]
    if polygons is not None:
        landslides = np.bincount(polygons.grade_of[polygons.inside()], minlength=LANDSLIDE + number)[LANDSLIDE:]
    else:
        landslides = np.array([_wholes(int(pieces[at]), joins[at]) for at in range(number)], dtype=np.int64)
    km2 = float(np.prod(grid.pixel_size)) / 1e6
    rows = zip(labels.grades, labels.weights, landslides.tolist(), (pixels * km2).tolist(), (ignored * km2).tolist(), strict=True)
    return [Tally(*row) for row in rows if row[2] or row[3]]


def _wholes(pieces: int, joins: list[np.ndarray]) -> int:
    """Number of landslides that pieces make which touch across strips."""
    edges = np.concatenate([np.empty((0, 2), dtype=np.int64), *joins])
    if not len(edges):
        return pieces
    graph = coo_array((np.ones(len(edges), dtype=np.int8), (edges[:, 0], edges[:, 1])), shape=(pieces, pieces))
    return int(connected_components(graph, directed=False)[0])
