"""Small scenes as GeoTIFFs whose layers are known in closed form, and what the data module makes of them."""

import csv

import numpy as np
import rasterio
import torch
from affine import Affine

from datamodules.landslide import LandslideDataModule
from datamodules.scene import COLUMNS

UTM = "EPSG:32648"
ORIGIN = 500000.0, 4000000.0
THREE = list(enumerate(("train", "val", "test")))


def write(path, array, *, pixel=2.0, origin=ORIGIN, crs=UTM, nodata=None, **options):
    array = np.asarray(array)
    array = array if array.ndim == 3 else array[None]
    path.parent.mkdir(parents=True, exist_ok=True)
    transform = options.pop("transform", Affine(pixel, 0, origin[0], 0, -pixel, origin[1]))
    profile = {"driver": "GTiff", "count": len(array), "height": array.shape[1], "width": array.shape[2], "dtype": array.dtype.name}
    with rasterio.open(path, "w", **profile, crs=crs, transform=transform, nodata=nodata, **options) as file:
        file.write(array)


def manifest(root, rows):
    with (root / "scenes.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        writer.writerows(rows)


def make_scene(root, name, height=70, width=90, seed=0, **image_options):
    """Random image, a tilted plane on an 8 m grid 10 pixels wider than the image, one square landslide in the upper left."""
    generator = np.random.default_rng(seed)
    write(root / name / "image.tif", generator.integers(1, 255, (3, height, width), dtype=np.uint8), **image_options)
    rows, columns = height // 4 + 20, width // 4 + 20
    x = ORIGIN[0] - 80 + 8 * (np.arange(columns) + 0.5)
    y = ORIGIN[1] + 80 - 8 * (np.arange(rows) + 0.5)
    plane = 0.3 * (x - ORIGIN[0])[None] + 0.4 * (y - ORIGIN[1])[:, None] + 1000
    write(root / name / "dem.tif", plane.astype(np.float32), pixel=8.0, origin=(ORIGIN[0] - 80, ORIGIN[1] + 80), nodata=-9999)
    label = np.zeros((height, width), dtype=np.uint8)
    label[:16, :16] = 1
    write(root / name / "label.tif", label)
    return [name, f"{name}/image.tif", f"{name}/dem.tif", f"{name}/label.tif"]


def data_of(root, **options):
    return LandslideDataModule(str(root), **{"tile_size": 32, "batch_size": 4, "seed": 3, **options})


def stream(data, epoch=0):
    data.setup("fit")
    loader = data.train_dataloader()
    loader.sampler.set_epoch(epoch)
    return list(loader)


def equal(one, other):
    return len(one) == len(other) and all(
        a["tile"] == b["tile"]
        and all(torch.equal(a[key].nan_to_num(-1), b[key].nan_to_num(-1)) for key in ("image", "dem", "mask", "pixel_size"))
        for a, b in zip(one, other, strict=True)
    )
