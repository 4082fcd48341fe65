"""Maps on disk as `zoo map` leaves them, and small stand-ins."""

from pathlib import Path

import numpy as np
import pyogrio.raw
import rasterio
import shapely
from rasterio.transform import from_origin
from scipy import ndimage

from zoo.inventory.outlines import Components, Outlines

UTM = "EPSG:32648"
PLACE = from_origin(500_000, 4_000_000, 2, 2)
PIXELS = rasterio.Affine.identity()
EIGHT = np.ones((3, 3))


def write_raster(path: Path, values, *, nodata=None, crs=UTM, transform=PLACE, tags=None) -> Path:
    height, width = values.shape
    profile = {"driver": "GTiff", "count": 1, "height": height, "width": width, "dtype": values.dtype, "nodata": nodata}
    with rasterio.open(path, "w", crs=crs, transform=transform, **profile) as target:
        target.write(values, 1)
        target.update_tags(**(tags or {}))
    return path


def write_map(folder: Path, probability, *, uncertainty=None, threshold=0.5, **place) -> Path:
    """Probability float32 with NaN = no data, its class raster and perhaps an uncertainty, as one map."""
    folder.mkdir(parents=True, exist_ok=True)
    probability = np.asarray(probability, dtype=np.float32)
    tags = {"ZOO_THRESHOLD": str(threshold), "ZOO_FINGERPRINT": "one map", "ZOO_MODEL_SHA256": "abc123"}
    classes = np.where(np.isnan(probability), 255, probability >= threshold).astype(np.uint8)
    write_raster(folder / "prob_class.tif", classes, nodata=255, tags=tags, **place)
    if uncertainty is not None:
        write_raster(folder / "prob_uncertainty.tif", np.asarray(uncertainty, dtype=np.float32), nodata=np.nan, tags=tags, **place)
    return write_raster(folder / "prob.tif", probability, nodata=np.nan, tags=tags, **place)


def blobs(shape=(120, 160), *, sigma=4, seed=0):
    """Smooth probabilities that cross 0.5 in many places."""
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).random(shape), sigma)
    return ndimage.zoom((noise - noise.mean()) / (6 * noise.std()) + 0.45, 1).clip(0, 1)


def outlined(landslide, band_rows, transform=PIXELS):
    """Component of each pixel (from 1) and the polygon of each component, by bands of some rows."""
    height = len(landslide)
    bands = [slice(row, min(row + band_rows, height)) for row in range(0, height, band_rows)]
    components = Components(lambda rows: landslide[rows], bands)
    outlines = Outlines(len(components.pixels))
    numbers = []
    for rows in bands:
        numbers.append(components.read(rows, landslide[rows]))
        outlines.add(rows.start, numbers[-1])
    return np.concatenate(numbers), outlines.polygons(transform)


def read_layer(path: Path, layer=None):
    """Geometries, and values by attribute."""
    meta, _, geometries, values = pyogrio.raw.read(path, layer=layer)
    return shapely.from_wkb(geometries), dict(zip(meta["fields"], values, strict=True))


def write_polygons(path: Path, polygons, crs=UTM, driver="GPKG") -> Path:
    pyogrio.raw.write(path, shapely.to_wkb(np.array(polygons, dtype=object)), [], [], driver=driver, geometry_type="Unknown", crs=crs)
    return path
