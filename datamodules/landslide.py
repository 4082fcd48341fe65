"""LandslideDataModule: scenes, windows, sampling, augmentation and statistics, composed for Lightning."""

import inspect
import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

import lightning as L
import numpy as np
import torch
from torch.utils.data import DataLoader

from datamodules.alignment import DemResampling
from datamodules.augmentation import Augmentation
from datamodules.batch import Batch
from datamodules.errors import UserError
from datamodules.reading import SceneReader
from datamodules.sampling import ShardSampler, TrainingSampler
from datamodules.scene import SPLITS, Scene, fingerprint, of_split, read_scenes
from datamodules.statistics import DataStatistics, data_statistics
from datamodules.windows import WindowDataset, WindowIndex, index_windows, stack

EVALUATED: Final = ("train", "val", "test")
_MIN_LANDSLIDE: Final = 0.005


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


class LandslideDataModule(L.LightningDataModule):
    """Windows of landslide scenes for training, validation, testing and prediction.

    Args:
        root: Folder with scenes.csv or {train,val,test}/{images,dem,masks}, or the path of a scenes.csv.
        tile_size: Pixels of a window along each axis.
        train_stride: Pixels between the places around which training windows are drawn; null = half a window.
        batch_size: Windows a step on each device.
        num_workers: Processes that read data; never changes what is read.
        cache_mb: Scenes are kept in memory, aligned, until they take this many MiB; the others are read window by window.
        samples_per_epoch: Training windows an epoch over all devices; null = as many as there are. Rounded up to whole batches.
        landslide_share: Share of training windows that hold landslides, in [0, 1]; null = as they come.
        image_channels: Bands that every image must have.
        halo: Pixels of elevation beyond the window, so that terrain layers have no rim.
        dem_resampling: How an elevation model on another grid is brought onto the image's.
        geometry: Augment training windows by flips, quarter turns, scaling and shifting.
        scale: Largest relative change of scale.
        shift: Largest shift as a share of the window.
        colour: Augment brightness and contrast of the image.
        colour_strength: Largest relative change of both.
        seed: Of sampling and augmentation; null = the global torch seed, so that `seed_everything` governs.
    """

    scenes: list[Scene]

    def __init__(
        self,
        root: str,
        *,
        tile_size: int = 128,
        train_stride: int | None = None,
        batch_size: int = 8,
        num_workers: int = 0,
        cache_mb: int = 512,
        samples_per_epoch: int | None = None,
        landslide_share: float | None = None,
        image_channels: int = 3,
        halo: int = 1,
        dem_resampling: DemResampling = "cubic",
        geometry: bool = True,
        scale: float = 0.1,
        shift: float = 0.05,
        colour: bool = True,
        colour_strength: float = 0.2,
        seed: int | None = None,
    ) -> None:
        super().__init__()
        self.root, self.tile_size, self.train_stride = root, tile_size, max(tile_size // 2, 1) if train_stride is None else train_stride
        self.batch_size, self.num_workers, self.cache_mb = batch_size, num_workers, cache_mb
        self.samples_per_epoch, self.landslide_share = samples_per_epoch, landslide_share
        self.image_channels, self.halo, self.dem_resampling = image_channels, halo, dem_resampling
        self.geometry, self.scale, self.shift = geometry, scale, shift
        self.colour, self.colour_strength, self.seed = colour, colour_strength, seed
        self._readers: dict[str, list[SceneReader]] = {}
        self._windows: dict[str, WindowIndex] = {}
        self._summary: dict[str, SplitSummary] = {}
        self._budget = cache_mb * 2**20
        self._check_options()

    def _check_options(self) -> None:
        """Refuse values that make no sense, before any file is opened."""
        least = {
            "tile_size": 1,
            "train_stride": 1,
            "batch_size": 1,
            "image_channels": 1,
            "num_workers": 0,
            "halo": 0,
            "cache_mb": 0,
            "seed": 0,
        }
        for name, smallest in least.items():
            value = getattr(self, name)
            if value is not None and value < smallest:
                raise UserError(f"is below {smallest}", "choose a larger number", field=f"data.{name}", value=value, exit_code=2)
        for name in ("landslide_share", "scale", "shift", "colour_strength"):
            value = getattr(self, name)
            if value is not None and not 0 <= value <= 1 - (name == "scale") / 2:
                raise UserError(
                    "is out of range", "choose a share from 0 to 1, a scale to 0.5", field=f"data.{name}", value=value, exit_code=2
                )
        if self.samples_per_epoch is not None and self.samples_per_epoch < 1:
            raise UserError(
                "is below 1", "set null for all windows", field="data.samples_per_epoch", value=self.samples_per_epoch, exit_code=2
            )

    def setup(self, stage: str | None = None) -> None:
        """Read the data set, check its files and list its windows; a split that is ready stays as it is.

        Before training all splits are made ready, so that a mistake in the test scenes shows before the training and not after it.
        """
        self.scenes = read_scenes(self.root)
        present = {scene.split for scene in self.scenes}
        required = {"fit": ("train", "val"), "validate": ("val",), "test": ("test",), "predict": (self._predicted,)}.get(
            stage or "", EVALUATED
        )
        for split in required:
            if split not in present:
                raise UserError("no scene is in this split", "assign some to it", file=self.root, field="split", value=split)
        wanted = [split for split in SPLITS if split in present] if stage in (None, "fit") else required
        for split in wanted:
            if split not in self._windows:
                self._make_ready(split)
        seed = torch.initial_seed() if self.seed is None else self.seed
        # Without `seed_everything` each process has a seed of its own, but all must deal from one deck.
        self._seed = self.trainer.strategy.broadcast(seed) if self.trainer else seed

    def _make_ready(self, split: str) -> None:
        """Open and check the scenes of a split and list its windows."""
        self._readers[split] = []
        for scene in of_split(self.scenes, split):
            reader = SceneReader(scene, self.image_channels, self.halo, self.dem_resampling)
            self._budget -= reader.keep(self._budget)
            self._readers[split].append(reader)
        windows = index_windows(self._readers[split], self.tile_size, self.tile_size, once=True)
        self._summary[split] = self._summarise(split, windows)
        if split == "train":
            windows = index_windows(self._readers[split], self.tile_size, self.train_stride, once=False)
            windows = windows.take(windows.valid > 0)
            if not len(windows):
                raise UserError(
                    "no training window has a labelled pixel", "check labels and nodata values", file=self.root, field="split", value=split
                )
        self._windows[split] = windows

    def _summarise(self, split: str, windows: WindowIndex) -> SplitSummary:
        """Area and prevalence of a split from windows that count each pixel once."""
        readers = self._readers[split]
        area = np.array([np.prod(reader.grid.pixel_size) for reader in readers])[windows.scene] * windows.valid * self.tile_size**2 / 1e6
        total, landslide = float(area.sum()), float((area * windows.landslide).sum())
        return SplitSummary(len(readers), len(windows), total, landslide / total if total else math.nan)

    @property
    def _predicted(self) -> str:
        """The split that is predicted: the test scenes where none is there for prediction alone."""
        return "predict" if of_split(self.scenes, "predict") else "test"

    @cached_property
    def statistics(self) -> DataStatistics:
        """Of the training scenes; after `setup`."""
        return data_statistics(self._readers["train"], self.image_channels, self.tile_size)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of what all scenes hold; after `setup`."""
        return fingerprint(self.scenes)

    @property
    def has_dem(self) -> bool:
        """Whether every scene has an elevation model; after `setup`."""
        return all(scene.dem is not None for scene in self.scenes)

    @property
    def smallest_pixel_m(self) -> float:
        """Smallest side of a pixel of any scene, metres; after `setup`."""
        return min(min(reader.grid.pixel_size) for readers in self._readers.values() for reader in readers)

    def settings(self) -> dict[str, Any]:
        """What decides which windows there are and how they are read, in plain values for a checkpoint."""
        unrelated = ("self", "root", "num_workers", "cache_mb")
        names = (name for name in inspect.signature(type(self).__init__).parameters if name not in unrelated)
        return {name: getattr(self, name) for name in names}

    def summary(self) -> dict[str, SplitSummary]:
        """What each split holds that `setup` has made ready."""
        return dict(self._summary)

    def train_dataloader(self) -> DataLoader[Any]:
        """Augmented windows at random offsets with the target share of landslides."""
        windows = self._windows["train"]
        augmentation = Augmentation(
            geometry=self.geometry,
            scale=self.scale,
            shift=self.shift,
            colour=self.colour,
            colour_strength=self.colour_strength,
            image_mean=self.statistics.image_mean,
            image_std=self.statistics.image_std,
        )
        dataset = WindowDataset(
            self._readers["train"], windows, size=self.tile_size, halo=self.halo, jitter=self.train_stride // 2, augmentation=augmentation
        )
        rank, world_size = self._place()
        sampler = TrainingSampler(
            windows.landslide >= _MIN_LANDSLIDE,
            num_samples=self.samples_per_epoch,
            landslide_share=self.landslide_share,
            seed=self._seed,
            batch_size=self.batch_size,
            rank=rank,
            world_size=world_size,
            batches_done=self._batches_done if self.trainer else None,
        )
        return self._loader(dataset, sampler)

    def training_sample(self, num_windows: int = 256) -> Iterator[Batch]:
        """Training windows without augmentation, evenly spread over the split: what terrain layers are measured on.

        Args:
            num_windows: At most so many.
        """
        windows = self._windows["train"]
        chosen = np.unique(np.linspace(0, len(windows) - 1, min(num_windows, len(windows))).astype(np.int64))
        dataset = WindowDataset(self._readers["train"], windows.take(chosen), size=self.tile_size, halo=self.halo)
        for start in range(0, len(dataset), self.batch_size):
            yield stack([dataset[position] for position in range(start, min(start + self.batch_size, len(dataset)))])

    def val_dataloader(self) -> DataLoader[Any]:
        """Windows that cover the validation scenes, each pixel once."""
        return self._evaluation_loader("val")

    def test_dataloader(self) -> DataLoader[Any]:
        """Windows that cover the test scenes, each pixel once."""
        return self._evaluation_loader("test")

    def predict_dataloader(self) -> DataLoader[Any]:
        """Windows of the scenes in split "predict", which need no label; of the test scenes where there are none."""
        return self._evaluation_loader(self._predicted)

    def _evaluation_loader(self, split: str) -> DataLoader[Any]:
        """All windows of a split, each on exactly one rank."""
        dataset = WindowDataset(self._readers[split], self._windows[split], size=self.tile_size, halo=self.halo)
        return self._loader(dataset, ShardSampler(len(dataset), *self._place()))

    def _batches_done(self) -> int:
        """Batches that this process has trained on, those before a resume included."""
        if self.trainer is None:
            return 0
        done = self.trainer.fit_loop.epoch_loop.batch_progress.total
        return getattr(done, "processed", done.completed)  # Lightning types the count of batches as its narrower base

    def _place(self) -> tuple[int, int]:
        """Rank and number of processes."""
        return (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)

    def _loader(self, dataset: WindowDataset, sampler: TrainingSampler | ShardSampler) -> DataLoader[Any]:
        """A loader of batches."""
        return DataLoader(
            dataset,
            batch_size=self.batch_size,
            sampler=sampler,
            num_workers=self.num_workers,
            collate_fn=stack,
            pin_memory=torch.cuda.is_available(),
            persistent_workers=self.num_workers > 0,
            prefetch_factor=4 if self.num_workers else None,
        )

    def teardown(self, stage: str | None = None) -> None:  # noqa: ARG002 - signature of Lightning
        """Close the files."""
        for readers in self._readers.values():
            for reader in readers:
                reader.close()
