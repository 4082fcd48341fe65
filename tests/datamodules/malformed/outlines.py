"""Mistakes in landslide polygons; cases as in `manifests`."""

import json
import math
import struct

import numpy as np
import shapely

from tests.datamodules.malformed.healthy import ORIGIN, landslides, polygons, state, write_vector

X, Y = ORIGIN
CROSSED = [shapely.Polygon([(X + 200, Y - 200), (X + 400, Y - 400), (X + 400, Y - 200), (X + 200, Y - 400)]), landslides()[1]]


def outlines(shapes=None, **options):
    """Polygons for a label."""
    return lambda root: polygons(root, shapes, **options)


def shapefile_without(suffix):
    """One of the files is left behind."""

    def spoil(root):
        polygons(root, name="label.shp")
        (root / f"s0/label{suffix}").unlink()

    return spoil


def cut(name):
    """A vector file of which half is missing."""

    def spoil(root):
        path = polygons(root, name=name)
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])

    return spoil


def two_layers(root):
    """A GeoPackage of two layers."""
    write_vector(polygons(root, layer="mapped"), landslides(), layer="checked", append=True)


def graded(certainties, field):
    """Polygons with certainties, and the column that names their attribute."""

    def spoil(root):
        polygons(root, certainty=certainties)
        state(root, certainty_field=field)

    return spoil


def geojson_without_system(root):
    """Metres in a GeoJSON that names no system, which hence is in degrees."""
    path = polygons(root, name="label.geojson")
    collection = json.loads(path.read_text())
    del collection["crs"]
    path.write_text(json.dumps(collection))


def strange_number(value):
    """A coordinate that is no number, as no writer accepts it."""

    def spoil(root):
        path = polygons(root, name="label.shp")
        path.write_bytes(path.read_bytes().replace(struct.pack("<d", X + 200), struct.pack("<d", value)))

    return spoil


def no_vector(root):
    """Outlines of a kind that is not read."""
    (root / "s0/label.kml").write_text("<kml/>")
    state(root, label="s0/label.kml")


OUTLINES = {
    "healthy polygons": (outlines(), 0, []),
    "self-intersecting": (outlines(CROSSED), 0, ["label.gpkg: 1 of 2 polygons are invalid, such as self-intersecting", "were repaired"]),
    "no .shx": (shapefile_without(".shx"), 1, ["label.shp: label: its .shx file is missing", "copy all files"]),
    "no .prj": (shapefile_without(".prj"), 1, ["label.shp: label crs: has no coordinate system", "ogr2ogr -a_srs"]),
    "no .dbf": (shapefile_without(".dbf"), 0, []),
    "Shapefile truncated": (cut("label.shp"), 1, ["label.shp: label: is truncated", "copy the Shapefile anew"]),
    "GeoPackage truncated": (cut("label.gpkg"), 1, ["label.gpkg: label: cannot be read as polygons", "GeoPackage, Shapefile or GeoJSON"]),
    "GeoJSON truncated": (cut("label.geojson"), 1, ["label.geojson: label: cannot be read as polygons", "give a GeoPackage"]),
    "GeoJSON without system": (geojson_without_system, 1, ["label crs = 'EPSG:4326': its coordinates (500200.0", "GeoJSON that names none"]),
    "KML": (no_vector, 1, ["label.kml: cannot be opened as a raster", "as .gpkg, .shp or .geojson"]),
    "no system": (outlines(crs=None), 1, ["label.gpkg: label crs: has no coordinate system", "ogr2ogr -a_srs"]),
    "wrong zone": (outlines(crs="EPSG:32610"), 1, ["label.gpkg: label = (", "does not overlap the image", "coordinate systems are right"]),
    "x for y": (outlines([shapely.transform(shape, np.fliplr) for shape in landslides()]), 1, ["does not overlap the image", "systems are right"]),
    "coordinate of NaN": (strange_number(math.nan), 1, ["1 polygons with coordinates that are no numbers, the first at place 1", "draw them"]),
    "coordinate of infinity": (strange_number(math.inf), 1, ["1 polygons with coordinates that are no numbers", "draw them anew"]),
    "no feature": (outlines([]), 0, ["the label layer holds no polygon", "label_layer"]),
    "two layers": (two_layers, 1, ["label.gpkg: label: holds the layers mapped, checked", "label_layer"]),
    "points": (outlines([shape.centroid for shape in landslides()], kind="Point"), 1, ["holds no polygon", "not points or lines"]),
    "lines": (outlines([shape.exterior for shape in landslides()], kind="LineString"), 1, ["holds no polygon", "not points or lines"]),
    "a point among polygons": (
        outlines([landslides()[0], landslides()[1].centroid], kind="Unknown"), 0, ["1 of 2 features are no polygons, and were left out"]),
    "feature without geometry": (outlines([*landslides(), None]), 0, ["1 of 3 features are no polygons, and were left out"]),
    "polygon below a pixel": (
        outlines([shapely.Point(X + 300, Y - 300).buffer(0.5)]), 0, ["1 polygons reach into the image, and none holds the centre", "--all-touched"]),
    "certainty of no column": (graded(["certain", "possible"], "grade"), 1, ["certainty_field = 'grade': is no attribute", "which has sure"]),
    "certainty of no weight": (graded(["certain", "maybe"], "sure"), 1, ["'maybe' has no weight", "give each a number in (0, 1] or ignore"]),
    "certainty of nothing": (graded(["certain", None], "sure"), 1, ["(empty) (1), certain (1)", "give each a number"]),
}  # fmt: skip
