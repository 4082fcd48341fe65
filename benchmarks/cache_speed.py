"""How fast windows come from aligned layers (data.cache_dir), against bare rasterio reads of the same windows.

`python -m benchmarks.cache_speed --image A --dem B --label C` brings one scene onto its grid as tiled files, then draws random windows
without augmentation: as windows (arrays of all layers), as batches (joined and made float), and by rasterio alone from the same files,
all open. The bar is for windows, which is what rasterio gives too; batches are printed beside them. Rates are
windows a second of processor time in one process, the best of some rounds taken in turn, because other processes only ever make a round
slower. `--warped` adds what the same windows cost without the cache. With torchgeo in the environment (it is no part of this
project: install both in one of their own), its RandomGeoSampler draws as many from (image & DEM) & mask.
"""

import argparse
import importlib.util
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import torch
from rasterio.windows import Window
from torch.utils.data import DataLoader

from datamodules.aligned import NOT_ALIGNED, AlignedFiles
from datamodules.aligned_cache import AlignedCache
from datamodules.errors import exit_with
from datamodules.reading import SceneReader
from datamodules.scene import Scene
from datamodules.windows import WindowDataset, WindowIndex, stack

BAR, TORCHGEO_BAR = 0.6, 10.0
_BATCH, _HALO = 8, 1  # as the data module has them


def main(arguments: Sequence[str]) -> int:
    """Measure and print.

    Returns:
        1 if a ratio is below its bar, else 0.
    """
    parser = argparse.ArgumentParser(prog="python -m benchmarks.cache_speed", description=str(__doc__).split("\n\n", maxsplit=1)[0])
    for role in ("image", "dem", "label"):
        parser.add_argument(f"--{role}", type=Path, required=True, help=f"{role} of the scene")
    parser.add_argument("--tile-size", type=int, default=128, help="pixels of a window (default: %(default)s)")
    parser.add_argument("--windows", type=int, default=512, help="windows a round (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="rounds; the best one counts (default: %(default)s)")
    parser.add_argument("--warped", action="store_true", help="measure reading from the sources too")
    options = parser.parse_args(list(arguments))
    torch.set_num_threads(1)
    scene = Scene("scene", options.image, options.dem, options.label, "train")
    with tempfile.TemporaryDirectory() as folder:
        cache = AlignedCache(Path(folder) / "cache", Path(folder) / "data", margin=_HALO, dem_resampling="cubic", untiled=True)
        own = cache.files([scene])[scene.name]
        return _measure(scene, _tiled(scene, own), own, options)


def _tiled(scene: Scene, files: AlignedFiles) -> list[Path]:
    """Files of the three layers: aligned ones, and sources that are tiled on the grid as they are."""
    pairs = ((files.image, scene.image), (files.dem, scene.dem), (files.label, scene.label))
    return [path for path in (aligned or source for aligned, source in pairs) if path is not None]


def _measure(scene: Scene, files: Sequence[Path], aligned: AlignedFiles, options: argparse.Namespace) -> int:
    """Time the ways in turn."""
    size, number = options.tile_size, options.windows
    with closing(SceneReader(scene, None, _HALO, "cubic", aligned=aligned)) as reader:
        places = _places(reader, size, number)
        opened = [rasterio.open(path) for path in files]
        dataset = WindowDataset([reader], places, size=size, halo=_HALO)
        ways: dict[str, Callable[[], object]] = {
            "bare rasterio": lambda: _bare(opened, places, size),
            "cache, windows": lambda: [dataset[position] is None for position in range(number)],
            "cache, batches": lambda: _consume(_loader(dataset)),
        }
        plain = SceneReader(scene, None, _HALO, "cubic", aligned=NOT_ALIGNED)
        if options.warped:
            ways["sources, batches"] = lambda: _consume(_loader(WindowDataset([plain], places, size=size, halo=_HALO)))
        if importlib.util.find_spec("torchgeo"):
            ways["torchgeo"] = lambda: _consume(_torchgeo(scene, size, number))
        seconds = _best(ways, options.rounds)
        plain.close()
        for file in opened:
            file.close()
    print(f"{number} random windows of {size} x {size}, windows a second of processor time, best of {options.rounds} rounds")
    for name, best in seconds.items():
        print(f"  {name:<16}{number / best:10.0f}")
    ratio, joined = (seconds["bare rasterio"] / seconds[f"cache, {what}"] for what in ("windows", "batches"))
    print(f"  {'windows / bare':<16}{ratio:10.2f}   (bar: {BAR})")
    print(f"  {'batches / bare':<16}{joined:10.2f}")
    fast = ratio >= BAR
    if "torchgeo" in seconds:
        gain = seconds["torchgeo"] / seconds["cache, batches"]
        print(f"  {'cache / torchgeo':<16}{gain:10.1f}   (bar: {TORCHGEO_BAR:g})")
        fast &= gain >= TORCHGEO_BAR
    return int(not fast)


def _places(reader: SceneReader, size: int, number: int) -> WindowIndex:
    """Windows at random places within the scene."""
    generator = np.random.default_rng(0)
    row, column = (generator.integers(0, max(length - size, 0) + 1, number) for length in (reader.grid.height, reader.grid.width))
    nothing, share = np.zeros(number, dtype=np.int32), np.ones(number, dtype=np.float32)
    return WindowIndex(nothing, row.astype(np.int32), column.astype(np.int32), nothing, nothing, share, share)


def _bare(files: Sequence[Any], places: WindowIndex, size: int) -> None:
    """Read the windows from open files, as they are."""
    for row, column in zip(places.row.tolist(), places.column.tolist(), strict=True):
        window = Window(column, row, size, size)
        for file in files:
            file.read(window=window)


def _loader(dataset: WindowDataset) -> DataLoader[Any]:
    """The windows as batches, without augmentation."""
    return DataLoader(dataset, batch_size=_BATCH, collate_fn=stack)


def _torchgeo(scene: Scene, size: int, number: int) -> DataLoader[Any]:
    """As many windows by torchgeo, from the scene's own files."""
    datasets = importlib.import_module("torchgeo.datasets")
    samplers = importlib.import_module("torchgeo.samplers")

    def layer(path: Path | None, *, is_image: bool) -> Any:  # noqa: ANN401 - a data set of torchgeo
        # Each file by its own name: a folder may hold the three of them.
        assert path is not None
        kind = type("Layer", (datasets.RasterDataset,), {"filename_glob": path.name, "is_image": is_image})
        return kind(paths=str(path.parent))

    joined = (layer(scene.image, is_image=True) & layer(scene.dem, is_image=True)) & layer(scene.label, is_image=False)
    sampler = samplers.RandomGeoSampler(joined, size=size, length=number)
    return DataLoader(joined, batch_size=_BATCH, sampler=sampler, collate_fn=datasets.stack_samples)


def _consume(loader: DataLoader[Any]) -> None:
    """Draw all batches."""
    for _ in loader:
        pass


def _best(ways: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Processor seconds of the fastest round of each way; the rounds of all take turns."""
    best = dict.fromkeys(ways, float("inf"))
    for _ in range(rounds):
        for name, action in ways.items():
            start = time.process_time()
            action()
            best[name] = min(best[name], time.process_time() - start)
    return best


if __name__ == "__main__":
    exit_with(main, sys.argv[1:])
