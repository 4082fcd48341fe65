"""Scenes -> windows: where they lie, what they hold, and reading one with its halo.

Evaluation windows cover each pixel of a scene exactly once: windows at the far edges are shifted inward, and pixels that the
neighbour before has already counted are 255 in the mask. Scenes smaller than a window are padded with NaN and 255.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import Dataset

from datamodules.alignment import NO_IMAGE
from datamodules.augmentation import Augmentation, crop
from datamodules.batch import Batch
from datamodules.classes import IGNORE, LANDSLIDE
from datamodules.rasters import streaming
from datamodules.reading import Layers, SceneReader

_STRIP_ROWS: Final = 256
_MAX_OPEN_SCENES: Final = 64
_GOLDEN_RATIO: Final = 0x9E3779B97F4A7C15  # 2**64 / golden ratio, odd: Fibonacci hashing (Knuth, TAOCP 6.4)

Array = npt.NDArray[Any]
Modality = Literal["image", "dem"]


def positions(length: int, size: int, stride: int) -> list[int]:
    """First pixels of windows along one axis: every `stride`, the last shifted inward; [0] where `length <= size`."""
    if length <= size:
        return [0]
    starts = list(range(0, length - size, stride))
    return [*starts, length - size]


def fresh(starts: Sequence[int], size: int) -> list[int]:
    """How many first pixels of each window the windows before it have already covered."""
    return [0, *(max(0, before + size - start) for before, start in pairwise(starts))]


@dataclass(frozen=True)
class WindowIndex:
    """Windows of a list of scenes, one entry a window.

    Args:
        scene: int32, position of the scene in the list.
        row, column: int32, upper left pixel.
        skip_rows, skip_columns: int32, first rows and columns that a neighbour counts.
        valid: float32, share of pixels with a label and image data.
        landslide: float32, share of landslide among the valid pixels.
    """

    scene: Array
    row: Array
    column: Array
    skip_rows: Array
    skip_columns: Array
    valid: Array
    landslide: Array

    def __len__(self) -> int:
        return len(self.scene)

    def take(self, keep: Array) -> "WindowIndex":
        """The windows that `keep` (bool or positions) selects."""
        return WindowIndex(**{name: getattr(self, name)[keep] for name in self.__dataclass_fields__})


@streaming()
def index_windows(readers: Sequence[SceneReader], size: int, stride: int, *, once: bool) -> WindowIndex:
    """List windows and count what they hold, strip by strip, so that memory does not grow with the height of a scene.

    Args:
        readers: One a scene.
        size: Pixels of a window along each axis.
        stride: Pixels from one window to the next.
        once: For evaluation: each pixel counts in one window only.
    """
    parts: list[tuple[Array, ...]] = []
    for number, reader in enumerate(readers):
        rows, columns = positions(reader.grid.height, size, stride), positions(reader.grid.width, size, stride)
        skip_rows, skip_columns = (fresh(rows, size), fresh(columns, size)) if once else ([0] * len(rows), [0] * len(columns))
        for row, skip in zip(rows, skip_rows, strict=True):
            valid, landslide = _count_strip(reader, row + skip, min(size, reader.grid.height - row) - skip)
            first = np.asarray(columns) + np.asarray(skip_columns)
            last = np.minimum(np.asarray(columns) + size, reader.grid.width)
            num_valid, num_landslide = valid[last] - valid[first], landslide[last] - landslide[first]
            shape = len(columns)
            parts.append(
                (
                    np.full(shape, number),
                    np.full(shape, row),
                    np.asarray(columns),
                    np.full(shape, skip),
                    np.asarray(skip_columns),
                    num_valid / size**2,
                    num_landslide / np.maximum(num_valid, 1),
                )
            )
        reader.close()
    joined = [np.concatenate(column) if parts else np.empty(0) for column in zip(*parts, strict=True)] or [np.empty(0)] * 7
    return WindowIndex(*(column.astype(np.int32) for column in joined[:5]), *(column.astype(np.float32) for column in joined[5:]))


def _count_strip(reader: SceneReader, row: int, height: int) -> tuple[Array, Array]:
    """Valid and landslide pixels of a strip, summed from the left: int64 (width + 1) each."""
    width = reader.grid.width
    valid, landslide = np.zeros(width, dtype=np.int64), np.zeros(width, dtype=np.int64)
    for first in range(row, row + height, _STRIP_ROWS):
        part = min(_STRIP_ROWS, row + height - first)
        label = reader.label(first, 0, part, width)
        missing = reader.image(first, 0, part, width)[1]
        if missing is not None:
            label[missing] = IGNORE
        valid += (label != IGNORE).sum(axis=0)
        landslide += (label == LANDSLIDE).sum(axis=0)
    return np.concatenate([[0], valid.cumsum()]), np.concatenate([[0], landslide.cumsum()])


@dataclass(frozen=True)
class SplitSummary:
    """What one split holds, for records and tables.

    Args:
        scenes: Number of scenes.
        windows: Number of windows that cover each pixel once.
        km2: Area with a label and image data.
        prevalence: Share of landslide in it; NaN where nothing is labelled.
    """

    scenes: int
    windows: int
    km2: float
    prevalence: float


def summarise(readers: Sequence[SceneReader], windows: WindowIndex, size: int) -> SplitSummary:
    """Area and prevalence of scenes from windows that count each pixel once.

    Args:
        readers: One a scene.
        windows: Of all of them.
        size: Pixels of a window along each axis.
    """
    area = np.array([np.prod(reader.grid.pixel_size) for reader in readers])[windows.scene] * windows.valid * size**2 / 1e6
    total, landslide = float(area.sum()), float((area * windows.landslide).sum())
    return SplitSummary(len(readers), len(windows), total, landslide / total if total else math.nan)


class WindowDataset(Dataset[dict[str, Any]]):
    """Windows as samples, which `stack` makes a batch.

    An item is asked for by position (evaluation) or by (position, item seed) (training): the seed alone decides the offset of the
    window and its augmentation, so that a stream does not depend on the number of workers.

    Args:
        readers: One a scene.
        index: Their windows.
        size: Pixels of a window along each axis.
        halo: Pixels of elevation beyond the window on each side.
        jitter: Largest offset in pixels by which a training window leaves its place in the index.
        augmentation: Applied to training items.
    """

    def __init__(
        self,
        readers: Sequence[SceneReader],
        index: WindowIndex,
        *,
        size: int,
        halo: int,
        jitter: int = 0,
        augmentation: Augmentation | None = None,
    ) -> None:
        self.readers, self.index = list(readers), index
        self.size, self.halo, self.jitter, self.augmentation = size, halo, jitter, augmentation

        self.weighted = augmentation is not None and any(reader.weighted for reader in self.readers)
        self._open: dict[int, None] = {}  # scenes by last use, since a process may have only so many files open

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, item: int | tuple[int, int]) -> dict[str, Any]:
        if isinstance(item, tuple):
            return self._training_sample(*item)
        return self._evaluation_sample(item)

    def _place(self, position: int) -> tuple[SceneReader, int, int]:
        """Reader and upper left pixel of a window."""
        number = int(self.index.scene[position])
        self._open.pop(number, None)
        self._open[number] = None
        if len(self._open) > _MAX_OPEN_SCENES:
            oldest = next(iter(self._open))
            self._open.pop(oldest)
            self.readers[oldest].close()
        return self.readers[number], int(self.index.row[position]), int(self.index.column[position])

    def _training_sample(self, position: int, seed: int) -> dict[str, Any]:
        """A window near its place in the index, augmented; all layers are read with the halo, so that geometry acts on one size."""
        reader, row, column = self._place(position)
        if self.jitter and not reader.scene.one_window:
            span = 2 * self.jitter + 1
            bits = seed * _GOLDEN_RATIO % 2**64 >> 24  # forty well mixed bits, in less time than a generator takes to start
            row += (bits >> 20) * span // 2**20 - self.jitter
            column += (bits % 2**20) * span // 2**20 - self.jitter
            row = min(max(row, 0), max(reader.grid.height - self.size, 0))
            column = min(max(column, 0), max(reader.grid.width - self.size, 0))
        halo, wide = self.halo, self.size + 2 * self.halo
        layers, pixel_size = reader.layers(row - halo, column - halo, wide, wide), reader.grid.pixel_size
        if self.augmentation is not None:
            layers = replace(layers, image=np.ascontiguousarray(layers.image))  # OpenCV moves pixels, not bands
            layers, pixel_size = self.augmentation(layers, pixel_size, seed, halo)
        else:
            layers = Layers(crop(layers.image, halo), layers.dem, crop(layers.mask, halo))
        sample = _sample(layers, pixel_size, f"{reader.scene.name}:{row}:{column}")
        if self.weighted:  # in every window of a data set or in none, so that all batches have the same keys
            sample["weight"] = _weight(layers)
        return sample

    def _evaluation_sample(self, position: int) -> dict[str, Any]:
        """A window as it is."""
        reader, row, column = self._place(position)
        size, halo = self.size, self.halo
        layers = reader.layers(row, column, size, size, halo)
        counted = layers.mask
        rows, columns = int(self.index.skip_rows[position]), int(self.index.skip_columns[position])
        for part in (np.s_[:rows], np.s_[:, :columns]) if rows or columns else ():
            counted[part][counted[part] != NO_IMAGE] = IGNORE
        return _sample(Layers(layers.image, layers.dem, counted), reader.grid.pixel_size, f"{reader.scene.name}:{row}:{column}")


def _sample(layers: Layers, pixel_size: tuple[float, float], tile: str) -> dict[str, Any]:
    """One window before it joins a batch: image (H, W, C) as read, mask with 254 where the image has no data."""
    return {"image": layers.image, "dem": layers.dem, "mask": layers.mask, "pixel_size": pixel_size, "tile": tile}


def _weight(layers: Layers) -> Array:
    """Loss weight of each pixel, float32 (H, W), 0 where nothing counts."""
    weight = np.ones(layers.mask.shape, dtype=np.float32) if layers.weight is None else layers.weight
    return np.where(layers.mask >= NO_IMAGE, np.float32(0), weight)


def stack(samples: Sequence[dict[str, Any]], drop: Modality | None = None) -> Batch:
    """Samples to a batch; images become float here and not earlier, so that four times the bytes are written once.

    Args:
        samples: From a `WindowDataset`.
        drop: Modality to be NaN everywhere; labels stay as they are.
    """
    height, width, channels = samples[0]["image"].shape
    image = np.empty((len(samples), channels, height, width), dtype=np.float32)
    for window, sample in zip(image, samples, strict=True):
        window[...] = np.ascontiguousarray(sample["image"].transpose(2, 0, 1))  # NumPy widens bytes in half of torch's time
    mask = np.stack([sample["mask"] for sample in samples])
    missing = mask == NO_IMAGE
    if missing.any():
        np.copyto(image, np.nan, where=missing[:, None])
        mask[missing] = IGNORE
    dem = np.stack([sample["dem"] for sample in samples])[:, None]
    if drop is not None:
        (image if drop == "image" else dem).fill(np.nan)
    batch = Batch(
        image=torch.from_numpy(image),
        dem=torch.from_numpy(dem),
        mask=torch.from_numpy(mask),
        pixel_size=torch.tensor([sample["pixel_size"] for sample in samples], dtype=torch.float32),
        tile=[sample["tile"] for sample in samples],
    )
    if "weight" in samples[0]:
        batch["weight"] = torch.from_numpy(np.stack([sample["weight"] for sample in samples]))
    return batch
