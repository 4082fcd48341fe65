"""What a map costs beyond its network: time of `map_scene` over the pure forward time of the same tiles.

    python -m benchmarks.mapping_speed [--size 2048] [--tile 512] [--batch-size 4] [--encoder NAME] [--device cpu|cuda] [--precision float32|bf16]

Makes a scene of image and elevation on the disk, maps it with an untrained network (DeepLabV3+ on both), reading and writing included, and
runs the same network on as many batches of the same size that are in memory already, in turns. Prints seconds, ratio to the forward passes
(the median of the rounds' own ratios, since the two of a round see the same load) and km2/h, by wall clock and by processor time: on a
busy machine only the second is repeatable. Exit code 1 if the wall-clock ratio misses the bar (CPU 1.15, GPU 1.25).

With terratorch in the environment (it is no part of this project: install both in one of their own), its `tiled_inference` predicts the
same scene with the same network, tile, overlap and batch size, from memory to memory: what it would read and write is left out, and so is
loading the network, which for `map_scene` is within. Ratios are for as many tiles as each lays; the scene counts for km2/h, so a tiling
that needs more tiles shows there.
"""

import argparse
import importlib.util
import logging
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import lightning as L
import numpy as np
import rasterio
import torch
from rasterio.transform import from_origin
from torch import Tensor

from benchmarks.terrain_speed import PIXEL_M, elevation
from datamodules.batch import Batch
from datamodules.errors import exit_with
from zoo import create_method, load_checkpoint
from zoo.mapping import Ensemble, MapOptions, map_scene
from zoo.mapping.maps import Mapper
from zoo.mapping.tiles import Axis

BARS = {"cpu": 1.15, "cuda": 1.25}


@dataclass(frozen=True)
class Cost:
    """What some tiles cost.

    Args:
        tiles: Tiles that the network saw.
        wall: Seconds by the clock.
        processor: Seconds of processor time of all threads.
    """

    tiles: int
    wall: float
    processor: float

    def over(self, forward: "Cost") -> tuple[float, float]:
        """Ratio to the forward passes of as many tiles: wall clock, processor time."""
        share = forward.tiles / self.tiles
        return self.wall / forward.wall * share, self.processor / forward.processor * share


def main(arguments: Sequence[str]) -> int:
    """Measure, print and compare with the bar."""
    options = _options(arguments)
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        image, dem = write_scene(folder, options.size)
        checkpoint = write_checkpoint(folder, options.encoder)
        ensemble = Ensemble([load_checkpoint(checkpoint)], device=options.device, precision=options.precision)
        ways: dict[str, Callable[[], int]] = {
            "forward": _forward(ensemble, options),
            "map_scene": _map(checkpoint, image, dem, options),
        }
        if importlib.util.find_spec("terratorch"):
            ways["tiled_inference"] = _terratorch(ensemble, image, dem, options)
        else:
            print("terratorch is not in this environment: its tiled_inference is left out")
        rounds = [{name: _cost(action, options.device) for name, action in ways.items()} for _ in range(options.repeats)]
        loading = _cost(lambda: Mapper([checkpoint], MapOptions(device=options.device), say=_nothing).tile, options.device)
    return _report(rounds, loading, options)


def _options(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.mapping_speed", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--size", type=int, default=2048, help="pixels on each side of the scene")
    parser.add_argument("--tile", type=int, default=512)
    parser.add_argument("--overlap", type=float, default=0.25)
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--encoder", default="tu-tf_efficientnet_lite0")
    parser.add_argument("--device", choices=sorted(BARS), default="cpu")
    parser.add_argument("--precision", choices=("float32", "bf16"), default="float32")
    parser.add_argument("--repeats", type=int, default=3, help="rounds, of which the median counts")
    return parser.parse_args(list(arguments))


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
    trainer.save_checkpoint(folder / "network.ckpt", weights_only=False)
    return folder / "network.ckpt"


def _forward(ensemble: Ensemble, options: argparse.Namespace) -> Callable[[], int]:
    """The forward passes alone: rows of tiles in batches, as the map takes them."""
    axis = Axis.of(options.size, options.tile, options.overlap)
    side, halo = axis.size, ensemble.halo((PIXEL_M, PIXEL_M))
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

    def action() -> int:
        for size in sizes:
            ensemble(batches[size])
        return sum(sizes)

    return action


def _map(checkpoint: Path, image: Path, dem: Path, options: argparse.Namespace) -> Callable[[], int]:
    """The whole of a map, from files to files, and from a checkpoint that is yet to be loaded."""
    axis = Axis.of(options.size, options.tile, options.overlap)
    chosen = {name: getattr(options, name) for name in ("tile", "overlap", "batch_size", "device", "precision")}

    def action() -> int:
        with tempfile.TemporaryDirectory(dir=image.parent) as folder:
            out = Path(folder) / "map.tif"
            map_scene(checkpoint, image, dem, out=out, options=MapOptions(**chosen), say=_nothing)
        return len(axis.starts) ** 2

    return action


def _nothing(line: str) -> None:
    """Keep remarks off the table."""


def _terratorch(ensemble: Ensemble, image: Path, dem: Path, options: argparse.Namespace) -> Callable[[], int]:
    """The scene by terratorch, in memory; the network gets elevation without a halo, which it cannot give."""
    tiled_inference = importlib.import_module("terratorch.tasks.tiled_inference").tiled_inference
    layers: list[Tensor] = []
    for path in (image, dem):
        with rasterio.open(path) as raster:
            layers.append(torch.from_numpy(raster.read(out_dtype="float32")))
    scene = torch.cat(layers)[None]

    def action() -> int:
        tiles = 0

        def predict(values: Tensor) -> Tensor:
            nonlocal tiles
            tiles += len(values)
            nothing = torch.zeros(len(values), *values.shape[-2:], dtype=torch.uint8)
            pixel_size = torch.full((len(values), 2), PIXEL_M)
            return ensemble(Batch(image=values[:, :3], dem=values[:, 3:], mask=nothing, pixel_size=pixel_size, tile=[""] * len(values)))

        with torch.no_grad():
            stride = options.tile - round(options.overlap * options.tile)
            tiled_inference(predict, scene, crop=options.tile, stride=stride, batch_size=options.batch_size, verbose=False)
        return tiles

    return action


def _cost(action: Callable[[], int], device: str) -> Cost:
    """Run and measure."""
    wall, processor = time.perf_counter(), time.process_time()
    tiles = action()
    if device == "cuda":
        torch.cuda.synchronize()
    return Cost(tiles, time.perf_counter() - wall, time.process_time() - processor)


def _report(rounds: list[dict[str, Cost]], loading: Cost, options: argparse.Namespace) -> int:
    """Print a table of medians; 1 if the map misses the bar."""
    km2 = (options.size * PIXEL_M) ** 2 / 1e6
    print(
        f"{options.size} x {options.size} pixels of {PIXEL_M:g} m, tiles of {options.tile}, overlap {options.overlap:g}, {options.encoder},"
    )
    print(f"batches of {options.batch_size}, {options.device}, {torch.get_num_threads()} threads, medians of {options.repeats} rounds")
    print(f"{'':<16}{'tiles':>6}{'wall s':>9}{'ratio':>8}{'processor s':>13}{'ratio':>8}{'km2/h':>9}")
    ratios, processors = {}, {}
    for name in rounds[0]:
        costs = [costs[name] for costs in rounds]
        ratios[name] = [statistics.median(pair) for pair in zip(*(costs[name].over(costs["forward"]) for costs in rounds), strict=True)]
        wall, processor = (statistics.median(getattr(cost, kind) for cost in costs) for kind in ("wall", "processor"))
        processors[name] = processor
        spent = f"{wall:>9.2f}{ratios[name][0]:>8.3f}{processor:>13.2f}{ratios[name][1]:>8.3f}"
        print(f"{name:<16}{costs[0].tiles:>6}{spent}{km2 / wall * 3600:>9.1f}")
    print(
        f"bar for map_scene: {BARS[options.device]} by wall clock; within it {loading.processor:.2f} s of processor time load the checkpoint"
    )
    if "tiled_inference" in processors:
        share = processors["map_scene"] / processors["tiled_inference"]
        print(f"map_scene, from files to files, takes {share:.2f} of the processor time of tiled_inference for the scene")
    return int(ratios["map_scene"][0] > BARS[options.device])


if __name__ == "__main__":
    exit_with(main)
