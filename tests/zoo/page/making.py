"""Maps and inventories on disk, as `zoo map` writes them, small or large."""

import numpy as np
import pyogrio.raw
import rasterio
import shapely
from affine import Affine

NO_DATA = 255
MARS = (
    'PROJCS["Valles",GEOGCS["Mars",DATUM["D_Mars",SPHEROID["Mars",3396190,169.894]],PRIMEM["Ref",0],UNIT["degree",0.0174532925199433]],'
    'PROJECTION["Transverse_Mercator"],PARAMETER["latitude_of_origin",-10],PARAMETER["central_meridian",290],PARAMETER["scale_factor",1],'
    'PARAMETER["false_easting",0],PARAMETER["false_northing",0],UNIT["metre",1],AXIS["x",EAST],AXIS["y",NORTH]]'
)
PLACE = Affine(10, 0, 5e5, 0, -10, 4e6)


def write_raster(path, values, *, crs="EPSG:32648", transform=PLACE, nodata=None, scale=1.0, tags=None):
    values = values if values.ndim == 3 else values[None]
    count, height, width = values.shape
    with rasterio.open(
        path, "w", "GTiff", count=count, height=height, width=width, dtype=values.dtype.name, crs=crs, transform=transform, nodata=nodata
    ) as file:
        file.write(values)
        file.scales = (scale,) * count
        file.update_tags(**(tags or {}))
    return path


def write_map(path, bytes_, **options):
    """A probability in steps of 1/254, 255 = no data."""
    return write_raster(path, bytes_.astype(np.uint8), nodata=NO_DATA, scale=1 / 254, **options)


def write_inventory(path, shapes, fields, crs="EPSG:32648", layer="landslides"):
    geometries = np.array([shapely.multipolygons([shape]) for shape in shapes], dtype=object)
    pyogrio.raw.write(
        path, shapely.to_wkb(geometries), list(fields.values()), list(fields), layer=layer, driver="GPKG", geometry_type="MultiPolygon", crs=crs
    )  # fmt: skip
    return path


def box(column, row, width, height, transform=PLACE):
    """A polygon along pixel edges."""
    at = transform
    return shapely.box(at.c + column * at.a, at.f + (row + height) * at.e, at.c + (column + width) * at.a, at.f + row * at.e)
