"""Landslides of an inventory as outlines in the frame of a page, and as rows of its table."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyogrio
import pyogrio.errors
import pyogrio.raw
import rasterio
import shapely
from pyproj.exceptions import ProjError
from rasterio.errors import CRSError

from datamodules.errors import UserError
from datamodules.grid import Grid, same_crs, transformer
from zoo.page.frame import Frame

Array = npt.NDArray[Any]
LAYER: Final = "landslides"
_UNITS: Final = {"m2": "m²", "km2": "km²", "m": "m", "km": "km", "deg": "°"}
_MOST_ROWS: Final = 3000
_MOST_TEXT: Final = 1_500_000
_TOLERANCE: Final = 0.5


@dataclass(frozen=True)
class Landslides:
    """What a page shows of an inventory.

    Args:
        columns: Name and unit ("" = none) of each attribute that differs between landslides.
        rows: Its values, a list a landslide: numbers, texts, None.
        paths: Outline of each, as SVG path data in units of the frame.
        boxes: Left, top, right and bottom of each, likewise.
        common: Attributes that are the same for all, by name.
        total: Landslides of the inventory; the page shows the largest.
    """

    columns: list[tuple[str, str]]
    rows: list[list[object]]
    paths: list[str]
    boxes: list[list[float]]
    common: dict[str, object]
    total: int


def read_landslides(path: Path, frame: Frame) -> Landslides:
    """Read the layer `landslides`, or the only one with polygons.

    Args:
        path: GeoPackage, or another vector file.
        frame: Of the page.

    Raises:
        UserError: Not readable, no or several layers of polygons and none called `landslides`, or a coordinate system that does not fit.
    """
    meta, geometries, values = _read(path)
    shapes = shapely.from_wkb(geometries)
    drawn = np.flatnonzero(~shapely.is_missing(shapes) & ~shapely.is_empty(shapes))
    places = shapely.transform(_on_grid(shapes[drawn], meta["crs"], frame.grid, path), frame.place)
    total = len(drawn)
    if total > _MOST_ROWS:
        largest = np.sort(np.argsort(-shapely.area(places), kind="stable")[:_MOST_ROWS])
        drawn, places = drawn[largest], places[largest]
    columns = {str(name): [_plain(value) for value in column[drawn].tolist()] for name, column in zip(meta["fields"], values, strict=True)}
    common = {name: column[0] for name, column in columns.items() if len(column) > 1 and all(value == column[0] for value in column)}
    shown = {name: column for name, column in columns.items() if name not in common}
    rows = [list(row) for row in zip(*shown.values(), strict=True)] if shown else [[] for _ in drawn]
    boxes = np.round(shapely.bounds(places), 1).tolist()
    return Landslides([(name, unit_of(name)) for name in shown], rows, outlines(places), boxes, common, total)


def unit_of(name: str) -> str:
    """Unit that the name of an attribute ends with: `area_m2` is in m²; "" where it ends with none."""
    return _UNITS.get(name.rpartition("_")[2], "") if "_" in name else ""


def outlines(places: Array, most: int = _MOST_TEXT) -> list[str]:
    """Outlines as SVG path data, one decimal of a unit; simplified by half a unit, and further until all together are short enough.

    Args:
        places: Polygons in units of a frame, shapely geometries (N).
        most: Characters.
    """
    tolerance = _TOLERANCE
    while True:
        paths = [_path(shape) for shape in shapely.simplify(places, tolerance)]
        if sum(map(len, paths)) <= most or tolerance > 1e6:
            return paths
        tolerance *= 2


def _path(shape: shapely.Geometry) -> str:
    """All rings of a polygon; holes are holes by the even-odd rule."""
    parts = []
    for ring in shapely.get_rings(shapely.get_parts(shape)):
        points = shapely.get_coordinates(ring)[:-1]
        parts.append("M" + " ".join(f"{x:.1f} {y:.1f}".replace(".0", "") for x, y in points.tolist()) + "Z")
    return "".join(parts)


def _plain(value: object) -> object:
    """A value as JSON knows it."""
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float):
        return value if np.isfinite(value) else None
    return str(value)


def _on_grid(shapes: Array, crs: str | None, grid: Grid, path: Path) -> Array:
    """Polygons in the coordinate system of the map."""
    if crs is None:
        raise UserError("has no coordinate system", "assign it with `ogr2ogr -a_srs EPSG:CODE`", file=path, field="inventory crs")
    try:
        if same_crs(rasterio.crs.CRS.from_user_input(crs), grid.crs):
            return shapes
        to_map = transformer(crs, grid.crs.to_wkt())
        return np.asarray(shapely.transform(shapes, lambda at: np.column_stack(to_map.transform(at[:, 0], at[:, 1], errcheck=True))))
    except (ProjError, CRSError) as error:
        raise UserError("cannot be brought into the map's coordinate system", "check both", file=path, field="inventory crs") from error


def _read(path: Path) -> tuple[dict[str, Any], Array, list[Array]]:
    """Description, geometries as WKB and attributes of the landslides."""
    try:
        layers = [str(name) for name, kind in pyogrio.list_layers(path) if kind is not None and "Polygon" in kind]
        if LAYER not in layers and len(layers) != 1:
            raise UserError(
                f"has the layers of polygons {', '.join(layers)}" if layers else "has no layer of polygons",
                f"call that of the landslides {LAYER}",
                file=path,
                field="inventory",
            )
        meta, _, geometries, values = pyogrio.raw.read(path, layer=LAYER if LAYER in layers else layers[0])
    except (pyogrio.errors.DataSourceError, pyogrio.errors.DataLayerError) as error:
        raise UserError("cannot be read as polygons", "give an inventory of `zoo map`", file=path, field="inventory") from error
    return meta, geometries, values
