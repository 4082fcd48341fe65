"""Whole test scenes: predicted in blended tiles as `zoo map` does, then scored with their outlines and objects in view.

The border of a tile is nobody's landslide border: a landslide that spans tiles is one object, and its outline is its own. The score
histograms are cut from the blended map by the evaluation windows, each pixel once, so that bootstrap units stay what they are; for a scene
that is one tile they are those of its window.
"""

import math
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.pictures import with_tiles_of
from benchmarks.tiles import Tile, pick
from datamodules.alignment import NO_IMAGE
from datamodules.classes import IGNORE
from datamodules.landslide import LandslideDataModule
from datamodules.reading import SceneReader
from datamodules.scene import of_split
from datamodules.windows import fresh, positions
from zoo.mapping.prediction import Predictor, predict_scene
from zoo.metrics.counts import pool
from zoo.metrics.pixels import NUM_BINS, score_histogram
from zoo.metrics.scene import SceneCounts, SceneRules, scene_scores

OVERLAP: Final = 0.25
"""Of neighbouring tiles: the default of `zoo map`."""
_OF_SCENES: Final = ("boundary_", "object", "panoptic_", "segmentation_", "recognition_")

Array = NDArray[Any]
SceneParts = tuple[dict[str, Array], list[SceneCounts], float, dict[str, Tile]]
"""Of one process: histograms, counts, seconds, tiles."""


@dataclass(frozen=True)
class SceneResults:
    """What the test scenes gave.

    Args:
        histograms: Window -> score histogram, int64 (2, 256).
        scores: Of outlines and objects, pooled over scenes; names of `BoundaryCounts.scores` and `ObjectCounts.scores`.
        km2: Area of the scenes.
        seconds: Reading and predicting them took, on the slowest process.
        tiles: Those to be looked at, by name; see `benchmarks.tiles`.
    """

    histograms: dict[str, Array]
    scores: dict[str, float]
    km2: float
    seconds: float
    tiles: dict[str, Tile]


def evaluate_scenes(
    predictor: Predictor, data: LandslideDataModule, threshold: float, work: Path, *, split: str = "test", pictures: bool = True
) -> SceneResults:
    """Predict and score the scenes of a split, shared out over the processes of a run.

    Memory does not grow with a scene: its map and label lie on disk, 5 bytes a pixel, while it is scored.

    Args:
        predictor: What gives probabilities: a network, or a rule of thumb.
        data: After `setup`; tiles have its `tile_size`.
        threshold: Decision threshold, from validation.
        work: Folder for temporary files.
        split: Which scenes.
        pictures: Keep a few tiles to be looked at.

    Returns:
        The same on all processes.
    """
    scenes, (rank, world_size) = of_split(data.scenes, split), _place()
    readers = [SceneReader(scene, data.image_channels, data.halo, data.dem_resampling, data.label_rules) for scene in scenes]
    pixel_m = tuple(max(_rounded(reader.grid.pixel_size[axis]) for reader in readers) for axis in (0, 1))
    for reader in readers:
        reader.close()
    rules = SceneRules.by_pixels((pixel_m[0], pixel_m[1]), threshold)
    histograms: dict[str, Array] = {}
    counts: list[SceneCounts] = []
    tiles: dict[str, Tile] = {}
    seconds = 0.0
    for reader in readers[rank::world_size]:
        with closing(reader), _predicted(predictor, data, reader, work) as (probability, label, took):
            seconds += took
            histograms |= _by_windows(reader.scene.name, probability, label, data.tile_size)
            counts.append(scene_scores(probability, label, reader.grid.pixel_size, rules))
            if pictures:
                tiles = with_tiles_of(tiles, reader, probability, label, data.tile_size)
    if world_size > 1:
        parts: list[SceneParts] = [({}, [], 0.0, {}) for _ in range(world_size)]
        torch.distributed.all_gather_object(parts, (histograms, counts, seconds, tiles))
        histograms = {window: histogram for part, *_ in parts for window, histogram in part.items()}
        counts = [count for _, part, *_ in parts for count in part]
        seconds = max(part for _, _, part, _ in parts)
        tiles = pick(item for *_, part in parts for item in part.items())
    scores = {name: score for name, score in pool(counts).scores().items() if name.startswith(_OF_SCENES)}
    km2 = sum(reader.grid.height * reader.grid.width * math.prod(reader.grid.pixel_size) for reader in readers) / 1e6
    return SceneResults(dict(sorted(histograms.items())), scores, km2, seconds, tiles)


def _place() -> tuple[int, int]:
    """Rank and number of processes."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return torch.distributed.get_rank(), torch.distributed.get_world_size()
    return 0, 1


def _rounded(size_m: float) -> float:
    """Three digits: tiles of one data set differ by millimetres, and distances stand in the names of scores."""
    return float(f"{size_m:.3g}")


@contextmanager
def _predicted(predictor: Predictor, data: LandslideDataModule, reader: SceneReader, work: Path) -> Iterator[tuple[Array, Array, float]]:
    """Probability, float32 (H, W), and label, uint8 (H, W) of 0, 1, 255, of a scene: memory maps of files that are gone afterwards.

    Beside them the seconds that the prediction took.
    """
    shape = reader.grid.height, reader.grid.width
    with TemporaryDirectory(prefix="scene-", dir=work) as folder:
        probability: Array = np.lib.format.open_memmap(Path(folder) / "probability.npy", "w+", np.float32, shape)
        label: Array = np.lib.format.open_memmap(Path(folder) / "label.npy", "w+", np.uint8, shape)
        began = time.perf_counter()
        reader.keep(data.cache_mb * 2**20)  # tiles overlap, and an elevation model that is warped tile by tile takes longer than a network
        with closing(
            predict_scene(predictor, reader, tile=data.tile_size, overlap=OVERLAP, batch_size=data.batch_size, drop=data.drop)
        ) as bands:
            for band in bands:
                probability[band.row : band.row + len(band.probability)] = band.probability
        seconds = time.perf_counter() - began
        # Only now: one thread alone may read from a reader.
        step = max(data.tile_size, 1)
        for row in range(0, shape[0], step):
            mask = reader.layers(row, 0, min(step, shape[0] - row), shape[1]).mask
            label[row : row + step] = np.where(mask == NO_IMAGE, IGNORE, mask)
        reader.forget()
        yield probability, label, seconds


def _by_windows(scene: str, probability: Array, label: Array, size: int) -> dict[str, Array]:
    """Score histograms of the evaluation windows of a scene, under their names in a data set."""
    histograms = {}
    rows, columns = (positions(length, size, size) for length in label.shape)
    for row, skip_rows in zip(rows, fresh(rows, size), strict=True):
        for column, skip_columns in zip(columns, fresh(columns, size), strict=True):
            part = np.s_[row + skip_rows : row + size, column + skip_columns : column + size]
            chances, labels = torch.tensor(probability[part]), torch.tensor(label[part])
            histograms[f"{scene}:{row}:{column}"] = score_histogram(chances[None], labels[None])[0].numpy().reshape(2, NUM_BINS)
    return histograms
