"""Landslides of a map as vector layers with their attributes."""

from typing import Any

import numpy as np
import numpy.typing as npt
import shapely

from zoo.inventory.files import VectorLayer
from zoo.inventory.reference import Comparison, MatchRule
from zoo.inventory.source import MapReader
from zoo.inventory.survey import Survey

Array = npt.NDArray[Any]


def landslide_layers(source: MapReader, survey: Survey) -> list[VectorLayer]:
    """`landslides`, `crowns` and `toes`; see `zoo.inventory.attributes` for the attributes."""
    polygons, chosen, sums, ground = survey.polygons, survey.chosen, survey.sums, source.ground
    number, at = len(polygons), source.grid.transform
    areas, perimeters = ground.areas_and_perimeters(polygons, source.step)
    lengths, widths = ground.lengths_and_widths(polygons)
    (highest, crowns), (lowest, toes) = ((values[chosen], places[chosen]) for values, places in (sums.crowns, sums.toes))
    points = {}
    for name, places in (("crown", crowns), ("toe", toes)):
        row, column = np.divmod(places, source.grid.width)
        x, y = at.c + (column + 0.5) * at.a, at.f + (row + 0.5) * at.e
        points[name] = np.where(places < 0, np.nan, x), np.where(places < 0, np.nan, y)
    landslides = VectorLayer(
        "landslides",
        "MultiPolygon",
        polygons,
        {
            "id": np.arange(1, number + 1, dtype=np.int32),
            "area_m2": areas,
            "perimeter_m": perimeters,
            "probability_mean": sums.mean("probability")[chosen],
            "probability_max": sums.probability_max[chosen],
            "uncertainty_mean": sums.mean("uncertainty")[chosen],
            "slope_deg": sums.mean("slope_deg")[chosen],
            "aspect_deg": sums.aspect_deg()[chosen],
            "elevation_min_m": lowest,
            "elevation_max_m": highest,
            "elevation_range_m": highest - lowest,
            "length_m": lengths,
            "width_m": widths,
            "crown_x": points["crown"][0],
            "crown_y": points["crown"][1],
            "toe_x": points["toe"][0],
            "toe_y": points["toe"][1],
            "model": np.ma.masked_array(np.full(number, source.model or "", dtype=object), source.model is None),
            "threshold": np.full(number, source.threshold),
        },
    )
    layers = [landslides]
    for name, elevation in (("crown", highest), ("toe", lowest)):
        known = ~np.isnan(elevation)
        x, y = points[name]
        fields = {"id": landslides.fields["id"][known], "elevation_m": elevation[known]}
        layers.append(VectorLayer(f"{name}s", "Point", shapely.points(x[known], y[known]), fields))
    return layers


def compared_layers(
    source: MapReader, survey: Survey, landslides: VectorLayer, rule: MatchRule, min_area_m2: float
) -> tuple[list[VectorLayer], Comparison]:
    """`matched`, `missed` and `false`; see `zoo.inventory.reference` for the rules.

    Args:
        source: The map.
        survey: Its landslides, with a reference.
        landslides: Their layer.
        rule: When they match.
        min_area_m2: Known landslides under it are not missed.
    """
    known = survey.reference
    assert known is not None
    shapes = _as_multipolygons(known.shapes)
    known_m2 = source.ground.areas_and_perimeters(shapes, source.step)[0]
    found = known.compare(rule, survey.pixels, survey.chosen, known_m2 >= min_area_m2)
    more = {
        "reference_fid": np.ma.masked_array(known.fids[found.partner] if len(known.fids) else found.partner, found.partner < 0),
        "iou": found.iou,
        "covered": found.covered,
    }
    fields = {"reference_fid": known.fids.astype(np.int64), "area_m2": known_m2, "covered": found.known_covered}
    layers = [
        landslides.only("matched", found.matched, **more),
        VectorLayer("missed", "MultiPolygon", shapes, fields).only("missed", found.missed),
        landslides.only("false", ~found.matched, **more),
    ]
    return layers, found


def _as_multipolygons(shapes: Array) -> Array:
    """Each shape's polygons as one multipolygon; lines that mending has left of it go."""
    parts = [[part for part in shapely.get_parts(shapely.get_parts(shape)) if part.geom_type == "Polygon"] for shape in shapes]
    return np.array([shapely.multipolygons(of) for of in parts], dtype=object)
