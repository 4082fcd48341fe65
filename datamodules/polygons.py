"""Labels from landslide polygons (GeoPackage, Shapefile, GeoJSON), drawn on the image grid window by window.

A pixel is landslide when its centre lies inside a polygon (`all_touched=False`): areas then stay true on average, where counting
every touched pixel would widen each landslide by half a pixel. All polygons count alike.
"""

from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyogrio.errors
import pyogrio.raw
import pyproj
import rasterio.features
import shapely
from pyproj.exceptions import ProjError

from datamodules.batch import BACKGROUND, IGNORE, LANDSLIDE
from datamodules.errors import UserError
from datamodules.grid import Grid

VECTOR_SUFFIXES: Final = frozenset({".gpkg", ".shp", ".geojson", ".json", ".fgb"})


class LabelPolygons:
    """Landslide polygons as labels of one image, uint8: 0 and 1, 255 beyond the image.

    Args:
        path: Vector file; its first layer is read.
        grid: Grid of the image.

    Raises:
        UserError: Not readable, no coordinate system, no polygons, or none near the image.
    """

    def __init__(self, path: Path, grid: Grid) -> None:
        self._grid = grid
        try:
            meta, _, geometries, _ = pyogrio.raw.read(path, columns=[])
        except (pyogrio.errors.DataSourceError, pyogrio.errors.DataLayerError) as error:
            raise UserError("cannot be read as polygons", "give a GeoPackage, Shapefile or GeoJSON", file=path, field="label") from error
        if meta["crs"] is None:
            raise UserError("has no coordinate system", "assign it with `ogr2ogr -a_srs EPSG:CODE`", file=path, field="label crs")
        shapes = shapely.make_valid(shapely.from_wkb(geometries))
        dimensions = shapely.get_dimensions(shapes)
        if len(shapes) and not (dimensions == 2).any():
            raise UserError("holds no polygon", "give the outlines of landslides, not points or lines", file=path, field="label")
        shapes = shapes[dimensions == 2]
        try:
            source, target = pyproj.CRS.from_user_input(meta["crs"]), pyproj.CRS.from_wkt(grid.crs.to_wkt())
            transformer = pyproj.Transformer.from_crs(source, target, always_xy=True)
            self._shapes = shapely.transform(shapes, lambda points: np.column_stack(transformer.transform(points[:, 0], points[:, 1])))
        except ProjError as error:
            raise UserError("cannot be brought into the image's coordinate system", "check both", file=path, field="label crs") from error
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
    def shapes(self) -> npt.NDArray[Any]:
        """The polygons in the coordinate system of the image, in the order of the file: shapely geometries (N)."""
        return np.asarray(self._shapes)

    def read(self, row: int, column: int, height: int, width: int) -> npt.NDArray[Any]:
        """Labels of a window whose upper left pixel is (row, column) of the image, uint8 (height, width)."""
        grid = self._grid
        transform = grid.transform_at(row, column)
        left, top = transform.c, transform.f
        window = shapely.box(left, top + transform.e * height, left + transform.a * width, top)
        near = self._shapes[self._tree.query(window)]
        label = np.zeros((height, width), dtype=np.uint8)
        if len(near):
            drawn = rasterio.features.rasterize(
                near, out=label, transform=transform, default_value=LANDSLIDE, fill=BACKGROUND, all_touched=False
            )
            label = np.asarray(drawn)
        inside = np.s_[max(-row, 0) : max(grid.height - row, 0), max(-column, 0) : max(grid.width - column, 0)]
        labels = np.full_like(label, IGNORE)
        labels[inside] = label[inside]
        return labels

    def close(self) -> None:
        """Nothing stays open; here so that polygons and rasters can stand for each other."""
