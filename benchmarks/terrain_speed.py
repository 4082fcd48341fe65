"""How fast terrain layers are against `gdaldem`: slope, aspect (sin, cos) and hillshade of one large elevation model.

    python -m benchmarks.terrain_speed [--size 4096] [--repeats 5] [--device cpu|cuda]

Runs `gdaldem slope`, `aspect` and `hillshade` one after the other on a GeoTIFF (reading and writing are part of its work), and
`terrain_layers` on the same elevations in memory, in turns, and prints the medians and their ratio: time of ours / time of gdaldem. Both
wall clock and processor time are given, because on a busy machine only the second is repeatable. Exit code 1 if the wall-clock ratio
misses the bar (CPU 0.7, GPU 0.02).
"""

import argparse
import os
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import rasterio
import torch
from rasterio.transform import from_origin
from torch import Tensor

from datamodules.errors import UserError, exit_with
from datamodules.terrain import terrain_layers

LAYERS = ("slope", "aspect_sin", "aspect_cos", "hillshade")
MODES = ("slope", "aspect", "hillshade")
PIXEL_M = 2.0
BARS = {"cpu": 0.7, "cuda": 0.02}


def elevation(size: int) -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
    """Hills of several wavelengths with a metre of roughness, (size, size)."""
    rng = np.random.default_rng(0)
    steps = np.arange(size, dtype=np.float32) * PIXEL_M
    hills = sum(
        height * np.sin(steps[:, None] * (2 * np.pi / wave)) * np.cos(steps[None, :] * (2 * np.pi / (1.3 * wave)))
        for wave, height in ((3000, 300), (400, 30), (60, 3))
    )
    return np.asarray(1500 + hills + rng.standard_normal((size, size)), dtype=np.float32)


def timed(action: Callable[[], object]) -> tuple[float, float]:
    """Wall-clock and processor seconds of an action, its child processes included."""
    before, start = os.times(), time.perf_counter()
    action()
    wall, after = time.perf_counter() - start, os.times()
    return wall, sum(after[:4]) - sum(before[:4])


def gdaldem(program: str, source: Path, folder: Path) -> None:
    """The three layers one after the other."""
    for mode in MODES:
        subprocess.run([program, mode, str(source), str(folder / f"{mode}.tif"), "-q"], check=True)  # noqa: S603 -- fixed arguments


def ours(dem: Tensor) -> Tensor:
    """The same layers; waits for the device."""
    layers = terrain_layers(dem, PIXEL_M, LAYERS)
    if layers.is_cuda:
        torch.cuda.synchronize()
    return layers


def main(arguments: Sequence[str]) -> int:
    """Measure, print and compare with the bar."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.terrain_speed", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--size", type=int, default=4096, help="pixels on each side")
    parser.add_argument("--repeats", type=int, default=5, help="rounds, of which the median counts")
    parser.add_argument("--device", choices=sorted(BARS), default="cpu")
    options = parser.parse_args(arguments)
    program = shutil.which("gdaldem")
    if program is None:
        raise UserError("gdaldem is not installed", "install the Debian package gdal-bin", exit_code=2)
    dem = elevation(options.size)
    tensor = torch.from_numpy(dem)[None, None].to(options.device)
    ours(tensor)  # the first call loads libraries and, on a GPU, kernels
    theirs_seconds, our_seconds = [], []
    with tempfile.TemporaryDirectory() as name:
        source = Path(name) / "dem.tif"
        profile = {"driver": "GTiff", "height": options.size, "width": options.size, "count": 1, "dtype": "float32", "nodata": -9999.0}
        with rasterio.open(source, "w", crs="EPSG:32613", transform=from_origin(5e5, 4e6, PIXEL_M, PIXEL_M), **profile) as raster:
            raster.write(dem, 1)
        for _ in range(options.repeats):
            theirs_seconds.append(timed(lambda: gdaldem(program, source, Path(name))))
            our_seconds.append(timed(lambda: ours(tensor)))
    ratios = []
    for kind, index in (("wall clock", 0), ("processor", 1)):
        theirs = statistics.median(seconds[index] for seconds in theirs_seconds)
        mine = statistics.median(seconds[index] for seconds in our_seconds)
        ratios.append(mine / theirs)
        print(f"{kind:10}  gdaldem {theirs:6.3f} s   terrain_layers {mine:6.3f} s   ratio {mine / theirs:.3f}")
    bar = BARS[options.device]
    print(
        f"{options.size} x {options.size}, {torch.get_num_threads()} threads, {options.device}: wall-clock ratio {ratios[0]:.3f}, bar {bar}"
    )
    return 0 if ratios[0] <= bar else 1


if __name__ == "__main__":
    exit_with(main)
