"""A healthy data set as practitioners have it, and the tools that spoil its first scene."""

import csv
from pathlib import Path

import numpy as np
import pyogrio
import rasterio
import rasterio.warp
import shapely
from affine import Affine
from scipy.ndimage import gaussian_filter

SIZE = 60
PIXEL_M = 10.0
UTM = "EPSG:32648"
NEXT_ZONE = "EPSG:32649"
"""Of the elevation models: another grid, 30 m in the neighbouring zone."""
ORIGIN = (500000.0, 4000000.0)
APART_M = 20_000.0
SCENES = {"s0": "train", "s1": "val", "s2": "test"}
BOUNDS = (ORIGIN[0], ORIGIN[1] - SIZE * PIXEL_M, ORIGIN[0] + SIZE * PIXEL_M, ORIGIN[1])
"""Left, bottom, right and top of scene s0."""


def place(number=0, pixel=PIXEL_M):
    """Geotransform of a scene."""
    return Affine(pixel, 0, ORIGIN[0] + number * APART_M, 0, -pixel, ORIGIN[1])


def write(path, values, crs=UTM, transform=None, **profile):
    """A GeoTIFF of (H, W) or (C, H, W), on the grid of scene s0."""
    values = np.asarray(values)
    values = values if values.ndim == 3 else values[None]
    shape = {"count": values.shape[0], "height": values.shape[1], "width": values.shape[2], "dtype": values.dtype.name}
    with rasterio.open(path, "w", "GTiff", **shape, crs=crs, transform=place() if transform is None else transform, **profile) as file:
        file.write(values)
    return path


def image(bands=3, dtype=np.uint8, shape=(SIZE, SIZE), seed=0):
    """Ground of many tones, (C, H, W), no pixel 0."""
    values = gaussian_filter(np.random.default_rng(seed).normal(size=(bands, *shape)), (0, 1, 1))
    return np.clip(128 + 120 * values, 1, 254).astype(dtype)


def mask(value=1, dtype=np.uint8):
    """A landslide of 15 x 20 pixels on background."""
    label = np.zeros((SIZE, SIZE), dtype=dtype)
    label[20:35, 25:45] = value
    return label


def slope(grid, crs, pixel, margin=300.0):
    """Elevations (H, W) of a rough slope under a scene, and their geotransform, in another coordinate system."""
    left, bottom, right, top = rasterio.warp.transform_bounds(UTM, crs, *grid)
    left, top = left - margin, top + margin
    height, width = int((top - bottom + margin) / pixel), int((right + margin - left) / pixel)
    rough = gaussian_filter(np.random.default_rng(3).normal(size=(height, width)), 2) * 20
    return (1200 + 14.0 * np.arange(height)[:, None] + rough).astype(np.float32), Affine(pixel, 0, left, 0, -pixel, top)


def elevations():
    """Elevations of scene s0 on their own grid, float32."""
    return slope(BOUNDS, NEXT_ZONE, 30.0)[0]


def write_dem(root, values=None, **profile):
    """The elevation model of scene s0, on its own grid unless told otherwise."""
    usual = elevations()
    profile = {"crs": NEXT_ZONE, "transform": slope(BOUNDS, NEXT_ZONE, 30.0)[1], **profile}
    return write(root / "s0/dem.tif", usual if values is None else values, **profile)


def landslides():
    """Outlines in scene s0, in its coordinate system."""
    x, y = ORIGIN
    return [shapely.box(x + 200, y - 400, x + 400, y - 200), shapely.Point(x + 450, y - 450).buffer(90)]


def write_vector(path, shapes, crs=UTM, kind="Polygon", certainty=None, **options):
    """A vector file of the kind that its suffix names."""
    fields = {} if certainty is None else {"sure": np.array(certainty, dtype=object)}
    wkb = np.array([None if shape is None else shapely.to_wkb(shape) for shape in shapes], dtype=object)
    pyogrio.raw.write(path, wkb, list(fields.values()), list(fields), geometry_type=kind, crs=crs, **options)
    return path


def rows(root):
    """The manifest as a header and dictionaries."""
    with (root / "scenes.csv").open() as file:
        reader = csv.DictReader(file)
        return list(reader.fieldnames), list(reader)


def state(root, scene="s0", **cells):
    """Set cells of one scene, adding columns that the manifest lacks."""
    header, scenes = rows(root)
    header += [column for column in cells if column not in header]
    for row in scenes:
        row.update(cells if row["scene"] == scene else {})
    with (root / "scenes.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, header, lineterminator="\n", restval="")
        writer.writeheader()
        writer.writerows(scenes)


def edit(root, old, new, count=-1):
    """Replace text of the manifest."""
    path = root / "scenes.csv"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, count))


def polygons(root, shapes=None, name="label.gpkg", **options):
    """Give scene s0 outlines for a label."""
    state(root, label=f"s0/{name}")
    return write_vector(root / "s0" / name, landslides() if shapes is None else shapes, **options)


def build(root: Path):
    """Three scenes 20 km apart: an image of 10 m, a 30 m elevation model in the next zone, a label raster."""
    lines = ["scene,image,dem,label,split,region"]
    for number, (name, split) in enumerate(SCENES.items()):
        folder, at = root / name, place(number)
        folder.mkdir()
        write(folder / "image.tif", image(seed=number), transform=at)
        write(folder / "label.tif", mask(), transform=at)
        bounds = (at.c, at.f - SIZE * PIXEL_M, at.c + SIZE * PIXEL_M, at.f)
        dem, transform = slope(bounds, NEXT_ZONE, 30.0)
        write(folder / "dem.tif", dem, NEXT_ZONE, transform)
        lines.append(f"{name},{name}/image.tif,{name}/dem.tif,{name}/label.tif,{split},")
    (root / "scenes.csv").write_text("\n".join(lines) + "\n")
    return root
