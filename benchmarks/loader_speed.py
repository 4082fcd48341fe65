"""How long the loader takes for a window, against the work that nobody can avoid.

Unavoidable are bare rasterio reads of the same windows (image, elevation model, label) and the bare albumentations calls on them.
`python -m benchmarks.loader_speed [--root DATA]` prints both parts, the loader and the ratio, as processor time of one process and
the best of some rounds, because other processes only ever make a round slower. The data module keeps small scenes in memory;
`--cache-mb 0` makes it read every window from the files.
"""

import argparse
import math
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import albumentations
import cv2
import numpy as np
import rasterio
import torch
from rasterio.windows import Window, from_bounds
from rasterio.windows import bounds as window_bounds
from torch.utils.data import DataLoader

from datamodules.classes import IGNORE
from datamodules.errors import UserError, exit_with
from datamodules.landslide import LandslideDataModule

BAR = 1.3


def main(arguments: Sequence[str]) -> int:
    """Measure and print.

    Returns:
        1 if the ratio is above the bar, else 0.
    """
    parser = argparse.ArgumentParser(prog="python -m benchmarks.loader_speed", description=str(__doc__).split("\n\n", maxsplit=1)[0])
    parser.add_argument("--root", help="data set with raster labels (default: synthetic scenes in a temporary folder)")
    parser.add_argument("--scenes", type=int, default=8, help="synthetic scenes, at least 3 (default: %(default)s)")
    parser.add_argument("--tile-size", type=int, default=128, help="pixels of a window (default: %(default)s)")
    parser.add_argument("--windows", type=int, default=512, help="windows a round (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="rounds; the best one counts (default: %(default)s)")
    parser.add_argument("--num-workers", type=int, default=1, help="workers of the second measurement (default: %(default)s)")
    parser.add_argument("--cache-mb", type=int, default=None, help="as data.cache_mb (default: that of the data module)")
    options = parser.parse_args(list(arguments))
    with tempfile.TemporaryDirectory() as folder:
        root = options.root
        if root is None:
            from datamodules.synthetic import synthesize  # noqa: PLC0415 - not needed with --root

            root = str(Path(folder) / "scenes")
            synthesize(Path(root), scenes=options.scenes, seed=0, size=1024)
        return _measure(root, options)


def _measure(root: str, options: argparse.Namespace) -> int:
    """Time the parts on one data set."""
    cache = {} if options.cache_mb is None else {"cache_mb": options.cache_mb}
    settings: dict[str, Any] = {"tile_size": options.tile_size, "samples_per_epoch": options.windows, "seed": 0, **cache}
    # OpenCV would spread a window over all cores, and processor time would count what it waits there.
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    data = LandslideDataModule(root, **settings)
    data.setup("fit")
    loader = data.train_dataloader()
    places = [tile.rsplit(":", 2) for batch in loader for tile in batch["tile"]]
    reading, windows = _bare_reading(data, places, options.tile_size)
    read = _best(reading, options.rounds)
    augmented = _best(lambda: _bare_augmentation(data, windows), options.rounds)
    own = _best(lambda: _consume(loader), options.rounds)
    count = len(places)
    print(
        f"{count} training windows of {options.tile_size} x {options.tile_size} from {root}, milliseconds a window, best of {options.rounds}"
    )
    for name, seconds in (
        ("bare rasterio reads", read),
        ("bare albumentations", augmented),
        ("their sum", read + augmented),
        ("loader", own),
    ):
        print(f"  {name:<22}{seconds / count * 1e3:8.3f}")
    ratio = own / (read + augmented)
    print(f"  {'loader / sum':<22}{ratio:8.2f}   (bar: {BAR})")
    if options.num_workers:
        several = LandslideDataModule(root, num_workers=options.num_workers, **settings)
        several.setup("fit")
        worker_loader = several.train_dataloader()
        _consume(worker_loader)  # starts the workers
        own = _best(lambda: _consume(worker_loader), options.rounds, time.perf_counter)
        print(f"  with {options.num_workers} worker(s)      {own / count * 1e3:8.3f}   wall clock, arrival in the main process included")
    return int(ratio > BAR)


def _best(action: Callable[[], object], rounds: int, clock: Callable[[], float] = time.process_time) -> float:
    """Seconds of the fastest round."""
    times = []
    for _ in range(rounds):
        start = clock()
        action()
        times.append(clock() - start)
    return min(times)


def _consume(loader: DataLoader[Any]) -> None:
    """Draw one epoch."""
    for _ in loader:
        pass


def _bare_reading(data: LandslideDataModule, places: list[list[str]], size: int) -> tuple[Callable[[], object], list[tuple[Any, Any, Any]]]:
    """A function that reads the windows from open files, the elevation on its own grid; and windows of full size to augment."""
    files: dict[str, tuple[Any, Any, Any]] = {}
    for scene in data.scenes:
        if scene.label is None or scene.dem is None or scene.label.suffix not in (".tif", ".tiff"):
            raise UserError("needs an elevation model and a raster label", "measure on other data", field="scene", value=scene.name)
        if scene.split == "train":
            files[scene.name] = (rasterio.open(scene.image), rasterio.open(scene.dem), rasterio.open(scene.label))
    jobs = []
    for name, row, column in places:
        image, dem, label = files[name]
        window = Window(int(column), int(row), size, size)
        own = from_bounds(*window_bounds(window, image.transform), dem.transform).round_offsets().round_lengths()
        jobs.append((image, dem, label, window, own))

    def read() -> None:
        for image, dem, label, window, own in jobs:
            image.read(window=window)
            dem.read(1, window=own)
            label.read(1, window=window)

    windows = []
    for image, _, label, window, _ in jobs:
        pixels = np.ascontiguousarray(image.read(window=window, boundless=True, fill_value=0).transpose(1, 2, 0))
        ramp = np.add.outer(np.arange(size, dtype=np.float32), np.arange(size, dtype=np.float32))[..., None]
        windows.append((pixels, ramp, label.read(1, window=window, boundless=True, fill_value=255)))
    return read, windows


def _bare_augmentation(data: LandslideDataModule, windows: list[tuple[Any, Any, Any]]) -> None:
    """The pipelines alone, on windows without halo or surroundings."""
    geometry, colour = _pipelines(data)
    for seed, (image, dem, mask) in enumerate(windows):
        geometry.set_random_seed(seed)
        changed = geometry(image=image, dem=dem, mask=mask)
        colour.set_random_seed(seed)
        colour(image=changed["image"])


def _pipelines(data: LandslideDataModule) -> tuple[Any, Any]:
    """The same transforms as those of the data module, composed as albumentations documents it."""
    span = (-data.shift, data.shift)
    affine = albumentations.Affine(
        scale=(1 - data.scale, 1 + data.scale),
        translate_percent={"x": span, "y": span},
        keep_ratio=True,
        fill=math.nan,
        fill_mask=IGNORE,
        p=1.0,
    )
    geometry = albumentations.Compose([albumentations.D4(p=1.0), affine], additional_targets={"dem": "image"})
    strength = data.colour_strength
    return geometry, albumentations.Compose([albumentations.RandomBrightnessContrast(strength, strength, p=0.8)])


if __name__ == "__main__":
    exit_with(main, sys.argv[1:])
