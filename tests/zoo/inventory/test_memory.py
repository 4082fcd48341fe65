"""Peak memory of the inventory of a tall map against a short one, each in a process of its own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
WRITE = """
import sys
import numpy as np, rasterio
from rasterio.transform import from_origin
path, height, width = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
profile = dict(driver="GTiff", height=height, width=width, count=1, dtype="uint8", crs="EPSG:32648", tiled=True, compress="deflate", nodata=255)
with rasterio.open(path, "w", transform=from_origin(5e5, 4e6, 2, 2), **profile) as target:
    speckle = np.random.default_rng(0)
    for row in range(0, height, 500):
        rows = 254 * (speckle.random((500, width)) < 0.002).astype(np.uint8)
        if row == 500:
            rows[100:, 500:1500] = 254
        target.write(rows, 1, window=rasterio.windows.Window(0, row, width, 500))
    target.scales = [1 / 254]
"""
MAKE = """
import resource, sys
from zoo.inventory import InventoryOptions, write_inventory
result = write_inventory(sys.argv[1], sys.argv[1] + ".gpkg", options=InventoryOptions(threshold=0.5, min_area_m2=1000), say=lambda line: None)
assert result.landslides == 1, result
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
"""


def peak_mb(folder, height, width):
    """Of the process that makes the inventory."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    path = folder / f"{height}.tif"
    for program, more in ((WRITE, (str(height), str(width))), (MAKE, ())):
        done = subprocess.run(
            [sys.executable, "-c", program, str(path), *more], env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
    return float(done.stdout.splitlines()[-1])


@pytest.mark.slow
def test_memory_does_not_grow_with_the_height_of_the_map_but_for_its_speckle(tmp_path):
    short, tall = peak_mb(tmp_path, 3_000, 2_000), peak_mb(tmp_path, 30_000, 2_000)
    assert tall < 1.1 * short, (short, tall)  # speckle that is too small is counted (some 40 bytes each), and not outlined
