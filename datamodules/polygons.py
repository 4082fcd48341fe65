"""Labels from landslide polygons (GeoPackage, Shapefile, GeoJSON), drawn on the image grid window by window.

A pixel is landslide when its centre lies inside a polygon (`all_touched=False`): areas then stay true on average, where counting
every touched pixel widens each landslide by half a pixel, but keeps those that are thinner than one.
"""

from collections import Counter
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyogrio
import pyogrio.errors
import pyogrio.raw
import rasterio.features
import shapely
from pyproj.exceptions import ProjError

from datamodules.classes import BACKGROUND, IGNORE, LANDSLIDE
from datamodules.errors import UserError
from datamodules.grid import Grid, transformer
from datamodules.label_rules import DEFAULT_RULES, MAX_GRADES, NO_COLUMNS, LabelColumns, LabelRules

Array = npt.NDArray[Any]
VECTOR_SUFFIXES: Final = frozenset({".gpkg", ".shp", ".geojson", ".json", ".fgb"})
_SHAPEFILE: Final = frozenset({".shp", ".shx", ".dbf", ".prj", ".cpg"})


class LabelPolygons:
    """Landslide polygons as grades of landslide of one image, uint8: 0 background, 1 and up landslide, 255 beyond the image.

    Args:
        path: Vector file.
        grid: Grid of the image.
        columns: What scenes.csv says of it: layer, and attribute with the certainty.
        rules: What holds for the data set.

    Attributes:
        grades: Certainty of each grade, from grade 1 on; "" where none is stated. Where polygons overlap, the first of them wins.
        grade_of: int (N), grade of each polygon.
        fids: int64 (N), feature id of each polygon in its file.
        repaired: Number of polygons that were made valid, such as one whose outline crosses itself.
        left_out: Number of features that are points, lines or nothing.

    Raises:
        UserError: Not readable, several layers and none named, no such attribute, a certainty without a weight, no coordinate system,
            no polygons, or none near the image; a Shapefile without its index or cut off; coordinates that are no numbers.
    """

    def __init__(self, path: Path, grid: Grid, columns: LabelColumns = NO_COLUMNS, rules: LabelRules = DEFAULT_RULES) -> None:
        self._grid, self._all_touched = grid, rules.all_touched
        for name in ("landslide_values", "ignore_values"):
            if getattr(columns, name):
                raise UserError(
                    "is for rasters, but the label holds polygons", "leave it empty", file=path, field=name, value=getattr(columns, name)
                )
        crs, fids, given, certainties = _features(path, columns)
        with np.errstate(invalid="ignore"):  # coordinates that are no numbers are reported below
            given = shapely.from_wkb(given)
        strange = np.unique(shapely.get_coordinates(given, return_index=True)[1][~np.isfinite(shapely.get_coordinates(given)).all(axis=1)])
        if len(strange):
            raise UserError(
                f"holds {len(strange)} polygons with coordinates that are no numbers, the first at place {strange[0] + 1}",
                "draw them anew, or remove them",
                file=path,
                field="label",
            )
        areas = shapely.get_dimensions(given) == 2
        if len(given) and not areas.any():
            raise UserError("holds no polygon", "give the outlines of landslides, not points or lines", file=path, field="label")
        self.left_out, self.repaired = int((~areas).sum()), int((~shapely.is_valid(given[areas])).sum())
        shapes, certainties, self.fids = shapely.make_valid(given[areas]), certainties[areas], fids[areas]
        self.grades = rules.ordered(Counter(certainties.tolist()), columns.certainty_field or None, path)
        if len(self.grades) > MAX_GRADES:
            raise UserError("holds more than 200 certainties", "name another attribute", file=path, field="certainty_field")
        self.grade_of = np.array([LANDSLIDE + self.grades.index(name) for name in certainties.tolist()], dtype=np.uint8)
        try:
            to_image = transformer(crs, grid.crs.to_wkt())
            self._shapes = shapely.transform(shapes, lambda points: np.column_stack(to_image.transform(points[:, 0], points[:, 1])))
        except ProjError as error:
            raise UserError("cannot be brought into the image's coordinate system", "check both", file=path, field="label crs") from error
        if not np.isfinite(shapely.get_coordinates(self._shapes)).all():
            extent = tuple(round(float(bound), 1) for bound in shapely.total_bounds(shapes))
            raise UserError(
                f"its coordinates {extent} are none of its system, or none near the image",
                "assign the right system with `ogr2ogr -a_srs EPSG:CODE`; GeoJSON that names none is in degrees",
                file=path,
                field="label crs",
                value=str(crs)[:60],
            )
        # An inventory without a landslide in this scene is an answer; one of another place is a mistake.
        if len(self._shapes) and not shapely.box(*grid.bounds).intersects(shapely.box(*shapely.total_bounds(self._shapes))):
            extent = tuple(round(float(bound), 1) for bound in shapely.total_bounds(self._shapes))
            raise UserError(
                "does not overlap the image",
                "check that both show the same place and that the coordinate systems are right",
                file=path,
                field="label",
                value=extent,
            )
        self._tree = shapely.STRtree(self._shapes)

    @property
    def shapes(self) -> Array:
        """The polygons in the coordinate system of the image, in the order of the file: shapely geometries (N)."""
        return np.asarray(self._shapes)

    def inside(self) -> Array:
        """Positions of the polygons that reach into the image, int (M)."""
        return np.sort(self._tree.query(shapely.box(*self._grid.bounds), predicate="intersects"))

    def read(self, row: int, column: int, height: int, width: int) -> Array:
        """Grades of a window whose upper left pixel is (row, column) of the image, uint8 (height, width)."""
        grid = self._grid
        transform = grid.transform_at(row, column)
        left, top = transform.c, transform.f
        window = shapely.box(left, top + transform.e * height, left + transform.a * width, top)
        near = self._tree.query(window)
        near = near[np.argsort(-self.grade_of[near].astype(np.int64), kind="stable")]  # what is drawn last wins
        label = np.zeros((height, width), dtype=np.uint8)
        if len(near):
            drawn = rasterio.features.rasterize(
                zip(self._shapes[near], self.grade_of[near].tolist(), strict=True),
                out=label,
                transform=transform,
                fill=BACKGROUND,
                all_touched=self._all_touched,
            )
            label = np.asarray(drawn)
        inside = np.s_[max(-row, 0) : max(grid.height - row, 0), max(-column, 0) : max(grid.width - column, 0)]
        labels = np.full_like(label, IGNORE)
        labels[inside] = label[inside]
        return labels

    def close(self) -> None:
        """Nothing stays open; here so that polygons and rasters can stand for each other."""


def _require_whole_shapefile(path: Path) -> None:
    """Refuse a Shapefile without its index, and one that is shorter than it says, of which GDAL reads what is left without a word."""
    if not any(path.with_suffix(ending).is_file() for ending in (".shx", ".SHX")):
        raise UserError("its .shx file is missing", "copy all files of the Shapefile, or give a GeoPackage", file=path, field="label")
    with path.open("rb") as stream:
        stated = 2 * int.from_bytes(stream.read(28)[24:])  # in words of 16 bits
    if not stated or path.stat().st_size < stated:
        raise UserError("is truncated", "copy the Shapefile anew", file=path, field="label")


def files_of(path: Path) -> list[Path]:
    """The file and those beside it that hold a part of it: of a shapefile, of a GeoPackage that is being written."""
    if path.suffix.lower() == ".shp":
        return sorted(file for file in path.parent.iterdir() if file.stem == path.stem and file.suffix.lower() in _SHAPEFILE)
    return [file for file in (path, path.with_name(path.name + "-wal")) if file.exists()]


def _features(path: Path, columns: LabelColumns) -> tuple[Any, Array, Array, Array]:
    """Coordinate system, feature ids, geometries as WKB and certainties in lower case of one layer of a vector file."""
    if path.suffix.lower() == ".shp":
        _require_whole_shapefile(path)
    try:
        # Tables without geometry, such as the styles that QGIS keeps in a GeoPackage, hold no landslides.
        layers = [str(name) for name, kind in pyogrio.list_layers(path) if kind is not None]
        layer = _layer(path, columns.label_layer, layers)
        fields = [str(name) for name in pyogrio.read_info(path, layer=layer)["fields"]]
        attribute = columns.certainty_field
        if attribute and attribute not in fields:
            raise UserError(
                f"is no attribute of layer {layer}, which has {', '.join(fields) or 'none'}",
                "correct the column of scenes.csv",
                file=path,
                field="certainty_field",
                value=attribute,
            )
        meta, fids, geometries, values = pyogrio.raw.read(path, layer=layer, columns=[attribute] if attribute else [], return_fids=True)
    except (pyogrio.errors.DataSourceError, pyogrio.errors.DataLayerError) as error:
        raise UserError("cannot be read as polygons", "give a GeoPackage, Shapefile or GeoJSON", file=path, field="label") from error
    if meta["crs"] is None:
        raise UserError("has no coordinate system", "assign it with `ogr2ogr -a_srs EPSG:CODE`", file=path, field="label crs")
    certainties = [_certainty(value) for value in values[0].tolist()] if attribute else [""] * len(geometries)
    return meta["crs"], fids, geometries, np.array(certainties, dtype=object)


def _layer(path: Path, named: str, layers: list[str]) -> str:
    """The layer that is named, or the only one."""
    if named and named not in layers:
        raise UserError(
            f"is no layer; the file has {', '.join(layers) or 'none'}",
            "correct the column of scenes.csv, or --reference-layer",
            file=path,
            field="label_layer",
            value=named,
        )
    if not named and len(layers) > 1:
        raise UserError(
            f"holds the layers {', '.join(layers)}",
            "name that of the landslides: column label_layer of scenes.csv, or --reference-layer of an inventory",
            file=path,
            field="label",
        )
    if not layers:
        raise UserError("holds no layer with geometries", "give the outlines of landslides", file=path, field="label")
    return named or layers[0]


def _certainty(value: object) -> str:
    """An attribute as text in lower case; "" where there is none."""
    if value is None or value != value:  # noqa: PLR0124 - NaN, as a missing number is read
        return ""
    return f"{value:g}" if isinstance(value, float) else str(value).strip().casefold()
