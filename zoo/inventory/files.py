"""Layers of an inventory as a GeoPackage and as GeoJSON."""

import sqlite3
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt
import pyogrio.errors
import pyogrio.raw
import shapely

Array = npt.NDArray[Any]
_OPTIONS: Final = {"VERSION": "1.2"}  # what every GDAL and QGIS at hand reads without a warning
_OWN_FIELDS: Final = {"model", "threshold", "area_m2", "probability_mean", "probability_max"}
_STYLE_TABLE: Final = """\
CREATE TABLE layer_styles (id INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL, f_table_catalog TEXT(256), f_table_schema TEXT(256),
f_table_name TEXT(256), f_geometry_column TEXT(256), styleName TEXT(30), styleQML TEXT, styleSLD TEXT, useAsDefault BOOLEAN,
description TEXT, owner TEXT(30), ui TEXT(30), update_time DATETIME DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ','now')))"""


@dataclass(frozen=True)
class VectorLayer:
    """Features of one kind.

    Args:
        name: Of the layer.
        kind: Of the geometries.
        geometries: Shapely geometries (N).
        fields: Values (N) by attribute: integers, floats (NaN = null), texts; masked ones are null.
    """

    name: str
    kind: Literal["MultiPolygon", "Point"]
    geometries: Array
    fields: Mapping[str, Array]

    def only(self, name: str, chosen: Array, **more: Array) -> "VectorLayer":
        """Some of the features as a layer of their own, with more attributes."""
        fields = {key: values[chosen] for key, values in {**self.fields, **more}.items()}
        return VectorLayer(name, self.kind, self.geometries[chosen], fields)


def write_geopackage(path: Path, layers: Sequence[VectorLayer], wkt: str, statements: Mapping[str, str], styles: Mapping[str, str]) -> None:
    """Write layers to a new GeoPackage.

    Args:
        path: The file.
        layers: In the order in which they are listed; a layer without features keeps its attributes.
        wkt: Their coordinate system; one without an EPSG code is stored whole.
        statements: Kept with each layer, such as the rules that it was made by.
        styles: QGIS style by layer, stored where QGIS looks for it.
    """
    for layer in layers:
        _write(
            path,
            layer,
            driver="GPKG",
            crs=wkt,
            layer_metadata=dict(statements),
            layer_options={"GEOMETRY_NAME": "geom"},
            dataset_options=_OPTIONS,
        )
    with closing(sqlite3.connect(path)) as database, database:
        database.execute(_STYLE_TABLE)
        database.execute(
            "INSERT INTO gpkg_contents (table_name, data_type, identifier, last_change)"
            " SELECT 'layer_styles', 'attributes', 'layer_styles', max(last_change) FROM gpkg_contents"
        )
        for name, style in styles.items():
            database.execute(
                "INSERT INTO layer_styles (f_table_catalog, f_table_schema, f_table_name, f_geometry_column, styleName, styleQML,"
                " useAsDefault) VALUES ('', '', ?, 'geom', ?, ?, 1)",
                (name, name, style),
            )


def write_geojson(path: Path, layer: VectorLayer, wkt: str, step: float) -> None:
    """Write a layer as GeoJSON by RFC 7946: WGS 84, seven decimals, right-hand rule.

    GDAL brings the coordinates to WGS 84 and cuts what crosses the antimeridian, as the standard asks.

    Args:
        path: The file.
        layer: Polygons.
        wkt: Their coordinate system.
        step: Most map units between two vertices, since a line that is straight in the map is not in degrees.
    """
    finer = VectorLayer(layer.name, layer.kind, shapely.segmentize(layer.geometries, step), layer.fields)
    _write(path, finer, driver="GeoJSON", crs=wkt, layer_options={"RFC7946": "YES"})


def is_inventory(path: Path) -> bool:
    """Whether a file is the landslides of an inventory as `write_geojson` writes them, by its attributes."""
    if not path.is_file():
        return False
    try:
        fields = pyogrio.raw.read(path, max_features=1, read_geometry=False)[0]["fields"]
    except (pyogrio.errors.DataSourceError, pyogrio.errors.DataLayerError):
        return False
    return set(fields) >= _OWN_FIELDS


def _write(path: Path, layer: VectorLayer, **options: Any) -> None:  # noqa: ANN401 - pyogrio's own
    """Write one layer."""
    values = list(layer.fields.values())
    pyogrio.raw.write(
        path,
        shapely.to_wkb(layer.geometries),
        [np.asarray(column) for column in values],
        list(layer.fields),
        [np.ma.getmaskarray(column) if np.ma.isMaskedArray(column) else None for column in values],
        layer=layer.name,
        geometry_type=layer.kind,
        **options,
    )
