"""What a map costs beyond its network: wall time of `map_scene` over the pure forward time of the same tiles.

    python -m benchmarks.mapping_speed [--size 2048] [--tile 512] [--batch-size 4] [--encoder NAME] [--device cpu|cuda] [--precision float32|bf16]

Makes a scene of image and elevation on the disk, maps it with an untrained network (DeepLabV3+ on both), reading and writing included, and
runs the same network on as many batches of the same size that are in memory already, in turns. Prints the medians, their ratio and km2/h.
Exit code 1 if the ratio misses the bar (CPU 1.15, GPU 1.25).
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import lightning as L
import numpy as np
import rasterio
import torch
from rasterio.transform import from_origin

from benchmarks.terrain_speed import PIXEL_M, elevation
from datamodules.batch import Batch
from datamodules.errors import exit_with
from zoo import create_method, load_checkpoint
from zoo.mapping import Ensemble, MapOptions, map_scene
from zoo.mapping.tiles import Axis

BARS = {"cpu": 1.15, "cuda": 1.25}


def write_scene(folder: Path, size: int) -> tuple[Path, Path]:
    """An image of noise and an elevation model of hills, `size` pixels each way."""
    profile = {"driver": "GTiff", "height": size, "width": size, "crs": "EPSG:32613", "tiled": True, "compress": "deflate"}
    place = from_origin(5e5, 4e6, PIXEL_M, PIXEL_M)
    image = np.random.default_rng(0).integers(1, 255, (3, size, size), dtype=np.uint8)
    for name, values in (("image", image), ("dem", elevation(size)[None])):
        with rasterio.open(folder / f"{name}.tif", "w", count=len(values), dtype=values.dtype, transform=place, **profile) as raster:
            raster.write(values)
    return folder / "image.tif", folder / "dem.tif"


def write_checkpoint(folder: Path, encoder: str) -> Path:
    """An untrained network as a checkpoint."""
    module = create_method("deeplab", network={"encoder": encoder, "weights": None, "inputs": "both"})
    trainer = L.Trainer(logger=False, enable_checkpointing=False, accelerator="cpu", enable_progress_bar=False)
    trainer.strategy.connect(module)
    trainer.save_checkpoint(folder / "network.ckpt")
    return folder / "network.ckpt"


def forward_seconds(checkpoint: Path, options: argparse.Namespace) -> tuple[float, int]:
    """Seconds for the forward passes alone, and the number of tiles: rows of tiles in batches, as the map takes them."""
    axis = Axis.of(options.size, options.tile, options.overlap)
    side, halo = axis.size, 1
    ensemble = Ensemble([load_checkpoint(checkpoint)], device=options.device, precision=options.precision)
    full, rest = divmod(len(axis.starts), options.batch_size)
    sizes = ([options.batch_size] * full + [rest] * bool(rest)) * len(axis.starts)
    batches = {
        size: Batch(
            image=torch.rand(size, 3, side, side) * 255,
            dem=torch.rand(size, 1, side + 2 * halo, side + 2 * halo) * 10,
            mask=torch.zeros(size, side, side, dtype=torch.uint8),
            pixel_size=torch.full((size, 2), PIXEL_M),
            tile=[""] * size,
        )
        for size in set(sizes)
    }
    ensemble(batches[sizes[0]]).cpu()  # the first call loads libraries and, on a GPU, kernels
    start = time.perf_counter()
    for size in sizes:
        last = ensemble(batches[size])
    last.cpu()  # waits for the device
    return time.perf_counter() - start, sum(sizes)


def main(arguments: Sequence[str]) -> int:
    """Measure, print and compare with the bar."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.mapping_speed", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--size", type=int, default=2048, help="pixels on each side of the scene")
    parser.add_argument("--tile", type=int, default=512)
    parser.add_argument("--overlap", type=float, default=0.25)
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--encoder", default="tu-tf_efficientnet_lite0")
    parser.add_argument("--device", choices=sorted(BARS), default="cpu")
    parser.add_argument("--precision", choices=("float32", "bf16"), default="float32")
    parser.add_argument("--repeats", type=int, default=3, help="rounds, of which the median counts")
    options = parser.parse_args(arguments)
    forwards, maps, speeds = [], [], []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        image, dem = write_scene(folder, options.size)
        checkpoint = write_checkpoint(folder, options.encoder)
        how = MapOptions(
            tile=options.tile,
            overlap=options.overlap,
            batch_size=options.batch_size,
            device=options.device,
            precision=options.precision,
        )
        for number in range(options.repeats):
            seconds, tiles = forward_seconds(checkpoint, options)
            result = map_scene(checkpoint, image, dem, out=folder / f"map_{number}.tif", options=how, say=lambda line: None)  # noqa: ARG005
            forwards.append(seconds)
            maps.append(result.seconds)
            speeds.append(result.km2_per_hour)
    ratio, bar = statistics.median(maps) / statistics.median(forwards), BARS[options.device]
    print(f"{tiles} tiles of {options.tile}: forward {statistics.median(forwards):.2f} s, map {statistics.median(maps):.2f} s")
    print(f"ratio {ratio:.3f} (bar {bar}), {statistics.median(speeds):,.0f} km2/h at {PIXEL_M:g} m, {torch.get_num_threads()} threads")
    return 0 if ratio <= bar else 1


if __name__ == "__main__":
    exit_with(main)
