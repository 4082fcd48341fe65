"""Peak memory of a tall scene against a short one of the same width, each in a process of its own."""

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
profile = dict(driver="GTiff", height=height, width=width, count=1, dtype="uint8", crs="EPSG:32648", tiled=True, compress="deflate", nodata=0)
with rasterio.open(path, "w", transform=from_origin(5e5, 4e6, 2, 2), **profile) as target:
    rows = np.random.default_rng(0).integers(0, 255, (512, width), dtype=np.uint8)
    for row in range(0, height, 512):
        count = min(512, height - row)
        target.write(rows[:count], 1, window=rasterio.windows.Window(0, row, width, count))
"""
MAP = """
import resource, sys
from pathlib import Path
import rasterio
from zoo import create_method
from zoo.mapping import checkpoints, map_scene, MapOptions
from zoo.segmentor import Segmentor

class Grey(Segmentor):
    def forward(self, image, dem, pixel_size):
        return (image - 128) / 32

path, height, width = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
module = create_method("deeplab", network={"encoder": "tu-test_efficientnet", "inputs": "image", "image_channels": 1, "decoder_channels": 16})
module.network.__class__ = Grey
checkpoints.load = lambda paths: [checkpoints.Checkpoint(Path("grey"), "0", "grey", module, 512, "cubic", (2.0, 2.0))]
result = map_scene("grey", path, out=path.with_name(f"map_{height}.tif"), options=MapOptions(batch_size=4, tile=512))
with rasterio.open(result.probability) as dataset:
    assert dataset.shape == (height, width)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
"""


def peak_mb(folder, height, width):
    """Of the process that maps; the scene is written by another, so that its memory does not count."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    for program in (WRITE, MAP):
        command = [sys.executable, "-c", program, str(folder / f"{height}.tif"), str(height), str(width)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    return float(done.stdout.splitlines()[-1])


@pytest.mark.slow
def test_memory_does_not_grow_with_the_height_of_the_scene(tmp_path):
    short, tall = peak_mb(tmp_path, 4_000, 4_000), peak_mb(tmp_path, 40_000, 4_000)
    assert tall < 1.1 * short, (short, tall)
    assert tall < 2_000
