"""LandslideDataModule: scenes, windows, sampling, augmentation and statistics, composed for Lightning."""

import inspect
import math
from collections.abc import Iterator, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Final

import lightning as L
import numpy as np
import torch
from torch.utils.data import DataLoader

from datamodules.aligned import NOT_ALIGNED, AlignedFiles
from datamodules.aligned_cache import AlignedCache
from datamodules.alignment import DemResampling
from datamodules.augmentation import Augmentation
from datamodules.batch import Batch
from datamodules.errors import UserError
from datamodules.hard_negatives import HardNegatives, HardNegativeSource, IntArray, check_shares
from datamodules.label_rules import CERTAINTY, LabelRules, Weight
from datamodules.labels import refuse_unstated_ignore
from datamodules.overrides import regridded, require_regrid
from datamodules.reading import SceneReader
from datamodules.sampling import ShardSampler, TrainingSampler
from datamodules.scene import SPLITS, Scene, fingerprint, of_split, read_scenes
from datamodules.statistics import DataStatistics, data_statistics
from datamodules.windows import Modality, SplitSummary, WindowDataset, WindowIndex, index_windows, stack, summarise

EVALUATED: Final = ("train", "val", "test")
_MIN_LANDSLIDE: Final = 0.005


class LandslideDataModule(L.LightningDataModule):
    """Windows of landslide scenes for training, validation, testing and prediction.

    Args:
        root: Folder with scenes.csv or {train,val,test}/{images,dem,masks}, or the path of a scenes.csv.
        tile_size: Pixels of a window along each axis.
        train_stride: Pixels between the places around which training windows are drawn; null = half a window.
        batch_size: Windows a step on each device.
        num_workers: Processes that read data; never changes what is read.
        cache_mb: Scenes are kept in memory, aligned, until they take this many MiB; the others are read window by window.
        cache_dir: Folder, outside of the data, in which layers that must be warped or drawn are kept as tiled files on the image grid, made
            once; null = they are computed anew for each window.
        cache_untiled: Keep there also what lies on the grid in files that are slow to read by windows (strips, PNG, JPEG).
        samples_per_epoch: Training windows an epoch over all devices; null = as many as there are. Rounded up to whole batches.
        landslide_share: Share of training windows that hold landslides, in [0, 1]; null = as they come.
        hard_negative_share: Share of training windows drawn from hard negatives, background windows that look like landslides; with
            `landslide_share` at most 1, and the rest of the background as it comes.
        hard_negatives: `terrain`: those whose ground looks most like scarps, see `datamodules.hard_negatives.scarp_score`; needs an
            elevation model. `mined`: those in which the network sees most landslide, found anew after validations.
        hard_negative_pool: Share of the scored background windows that are hard negatives, in (0, 1].
        mining_windows: Most windows that are scored each time when hard negatives are mined, drawn anew each time.
        mining_every: Validations from one mining to the next.
        image_channels: Bands that every image must have.
        halo: Pixels of elevation beyond the window, so that terrain layers have no rim.
        dem_resampling: How an elevation model on another grid is brought onto the image's.
        regrid: Of images in degrees, in a stretching projection or rotated, where scenes.csv states nothing: refuse, reproject (a virtual
            north-up grid in metres, UTM where the image is in degrees), or a system for that grid such as EPSG:32645.
        landslide_values: Values of label rasters that are landslide, such as 255 or "1;2", or with certainties "1=certain;2=possible";
            null = 1. The column of scenes.csv comes first.
        ignore_values: Values of label rasters that count for nothing, such as "3;255"; null = 255.
        all_touched: Draw label polygons on every pixel that they touch; else on those whose centre lies inside.
        certainty: Loss weight in (0, 1], or `ignore`, of each certainty of landslides; null = certain 1, probable 1, possible ignore.
        boundary_ignore_m: Metres; pixels with one of the other class within this distance, between centres, are ignored, in evaluation too.
        geometry: Augment training windows by flips, quarter turns, scaling and shifting.
        scale: Largest relative change of scale.
        shift: Largest shift as a share of the window.
        colour: Augment brightness and contrast of the image.
        colour_strength: Largest relative change of both.
        drop: Leave this modality out everywhere, as if the data had none: `dem` or `image`, for a network trained with
            `network.dem_dropout` or `network.image_dropout`.
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
        cache_dir: str | None = None,
        cache_untiled: bool = False,
        samples_per_epoch: int | None = None,
        landslide_share: float | None = None,
        hard_negative_share: float = 0.0,
        hard_negatives: HardNegativeSource = "terrain",
        hard_negative_pool: float = 0.2,
        mining_windows: int = 512,
        mining_every: int = 1,
        image_channels: int = 3,
        halo: int = 1,
        dem_resampling: DemResampling = "cubic",
        regrid: str = "refuse",
        landslide_values: str | int | None = None,
        ignore_values: str | int | None = None,
        all_touched: bool = False,
        certainty: dict[str, Weight] | None = None,
        boundary_ignore_m: float = 0.0,
        geometry: bool = True,
        scale: float = 0.1,
        shift: float = 0.05,
        colour: bool = True,
        colour_strength: float = 0.2,
        drop: Modality | None = None,
        seed: int | None = None,
    ) -> None:
        super().__init__()
        self.root, self.tile_size, self.train_stride = root, tile_size, max(tile_size // 2, 1) if train_stride is None else train_stride
        self.batch_size, self.num_workers, self.cache_mb = batch_size, num_workers, cache_mb
        self.cache_dir, self.cache_untiled = cache_dir, cache_untiled
        self.samples_per_epoch, self.landslide_share = samples_per_epoch, landslide_share
        self.hard_negative_share, self.hard_negatives, self.hard_negative_pool = hard_negative_share, hard_negatives, hard_negative_pool
        self.mining_windows, self.mining_every, self.drop = mining_windows, mining_every, drop
        self.image_channels, self.halo, self.dem_resampling = image_channels, halo, dem_resampling
        self.regrid = regrid
        self.geometry, self.scale, self.shift = geometry, scale, shift
        self.colour, self.colour_strength, self.seed = colour, colour_strength, seed
        self.landslide_values, self.ignore_values, self.all_touched = landslide_values, ignore_values, all_touched
        self.label_rules = LabelRules(
            landslide_values, ignore_values, all_touched, CERTAINTY if certainty is None else certainty, boundary_ignore_m
        )
        self.certainty, self.boundary_ignore_m = dict(self.label_rules.certainty), boundary_ignore_m
        self._readers: dict[str, list[SceneReader]] = {}
        self._windows: dict[str, WindowIndex] = {}
        self._summary: dict[str, SplitSummary] = {}
        self.hard_negative_pools: HardNegatives | None = None
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
            "mining_windows": 1,
            "mining_every": 1,
            "seed": 0,
        }
        for name, smallest in least.items():
            value = getattr(self, name)
            if value is not None and value < smallest:
                raise UserError(f"is below {smallest}", "choose a larger number", field=f"data.{name}", value=value, exit_code=2)
        for name in ("landslide_share", "hard_negative_share", "scale", "shift", "colour_strength"):
            value = getattr(self, name)
            if value is not None and not 0 <= value <= 1 - (name == "scale") / 2:
                raise UserError(
                    "is out of range", "choose a share from 0 to 1, a scale to 0.5", field=f"data.{name}", value=value, exit_code=2
                )
        check_shares(self.hard_negative_share, self.landslide_share, self.hard_negative_pool)
        try:
            require_regrid(self.regrid)
        except ValueError as error:
            raise UserError("cannot be used", str(error), field="data.regrid", value=self.regrid, exit_code=2) from error
        if self.samples_per_epoch is not None and self.samples_per_epoch < 1:
            raise UserError(
                "is below 1", "set null for all windows", field="data.samples_per_epoch", value=self.samples_per_epoch, exit_code=2
            )

    def prepare_data(self) -> None:
        """Make the aligned layers in one process, so that others find them."""
        if self.cache_dir is not None:
            wanted = self._wanted(self.trainer.state.fn if self.trainer else None)
            self._aligned([scene for split in wanted for scene in of_split(self.scenes, split)])

    def setup(self, stage: str | None = None) -> None:
        """Read the data set, check its files and list its windows; a split that is ready stays as it is.

        Before training all splits are made ready, so that a mistake in the test scenes shows before the training and not after it.
        """
        new = [split for split in self._wanted(stage) if split not in self._windows]
        for split in new:
            self._make_ready(split)
        if not any(self._windows[split].landslide.any() for split in new):
            refuse_unstated_ignore([reader for split in new for reader in self._readers[split]])
        seed = torch.initial_seed() if self.seed is None else self.seed
        # Without `seed_everything` each process has a seed of its own, but all must deal from one deck.
        self.sampling_seed = self.trainer.strategy.broadcast(seed) if self.trainer else seed

    def _wanted(self, stage: str | None) -> list[str]:
        """Read which scenes there are, and tell the splits that a stage needs."""
        self.scenes = regridded(read_scenes(self.root), self.regrid)
        present = {scene.split for scene in self.scenes}
        required = {"fit": ("train", "val"), "validate": ("val",), "test": ("test",), "predict": (self._predicted,)}.get(
            stage or "", EVALUATED
        )
        for split in required:
            if split not in present:
                raise UserError("no scene is in this split", "assign some to it", file=self.root, field="split", value=split)
        return [split for split in SPLITS if split in present] if stage in (None, "fit") else list(required)

    def _aligned(self, scenes: Sequence[Scene]) -> dict[str, AlignedFiles]:
        """Aligned layers of some scenes, made where they are missing; none without a cache."""
        if self.cache_dir is None:
            return dict.fromkeys((scene.name for scene in scenes), NOT_ALIGNED)
        how: dict[str, Any] = {"margin": self.halo, "dem_resampling": self.dem_resampling, "rules": self.label_rules}
        return AlignedCache(Path(self.cache_dir), Path(self.root), untiled=self.cache_untiled, **how).files(scenes)

    def _make_ready(self, split: str) -> None:
        """Open and check the scenes of a split and list its windows."""
        self._readers[split] = []
        scenes = of_split(self.scenes, split)
        aligned = self._aligned(scenes)
        for scene in scenes:
            reader = SceneReader(scene, self.image_channels, self.halo, self.dem_resampling, self.label_rules, aligned[scene.name])
            self._budget -= reader.keep(self._budget)
            self._readers[split].append(reader)
        windows = index_windows(self._readers[split], self.tile_size, self.tile_size, once=True)
        self._summary[split] = summarise(self._readers[split], windows, self.tile_size)
        if split == "train":
            windows = index_windows(self._readers[split], self.tile_size, self.train_stride, once=False)
            windows = windows.take(windows.valid > 0)
            if not len(windows):
                raise UserError(
                    "no training window has a labelled pixel", "check labels and nodata values", file=self.root, field="split", value=split
                )
            if self.hard_negative_share:
                background = np.flatnonzero(windows.landslide < _MIN_LANDSLIDE)
                self.hard_negative_pools = HardNegatives(background, len(windows), self.hard_negative_pool)
                if self.hard_negatives == "terrain":
                    self.hard_negative_pools.add_scarps(self._readers["train"], windows, self.tile_size)
        self._windows[split] = windows

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
        return self.drop != "dem" and all(scene.dem is not None for scene in self.scenes)

    @property
    def trains_with_dem(self) -> bool:
        """Whether any training scene has an elevation model; after `setup`."""
        return self.drop != "dem" and any(scene.dem is not None for scene in of_split(self.scenes, "train"))

    @property
    def has_image(self) -> bool:
        """Whether images are shown."""
        return self.drop != "image"

    @property
    def smallest_pixel_m(self) -> float:
        """Smallest side of a pixel of any scene, metres; after `setup`."""
        return min(min(reader.grid.pixel_size) for readers in self._readers.values() for reader in readers)

    @property
    def training_pixel_m(self) -> tuple[float, float] | None:
        """Smallest and largest side of a pixel of the training scenes, metres; None before `setup` has opened them."""
        sides = [side for reader in self._readers.get("train", ()) for side in reader.grid.pixel_size]
        return (min(sides), max(sides)) if sides else None

    def settings(self) -> dict[str, Any]:
        """What decides which windows there are and how they are read, in plain values for a checkpoint."""
        unrelated = ("self", "root", "num_workers", "cache_mb", "cache_dir", "cache_untiled")
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
            seed=self.sampling_seed,
            batch_size=self.batch_size,
            rank=rank,
            world_size=world_size,
            batches_done=self.batches_done if self.trainer else None,
            hard_negative_share=self.hard_negative_share,
            hard_negatives=self.hard_negative_pools.at if self.hard_negative_pools else None,
        )
        return self._loader(dataset, sampler)

    def training_sample(self, num_windows: int = 256) -> Iterator[Batch]:
        """Training windows without augmentation, evenly spread over the split: what terrain layers are measured on.

        Args:
            num_windows: At most so many.
        """
        num = len(self._windows["train"])
        return self.training_windows(np.unique(np.linspace(0, num - 1, min(num_windows, num)).astype(np.int64)))

    def training_windows(self, chosen: IntArray) -> Iterator[Batch]:
        """Training windows without augmentation, at their places in the index.

        Args:
            chosen: int64 (N,), positions among the training windows.
        """
        dataset = WindowDataset(self._readers["train"], self._windows["train"].take(chosen), size=self.tile_size, halo=self.halo)
        for start in range(0, len(dataset), self.batch_size):
            yield stack([dataset[position] for position in range(start, min(start + self.batch_size, len(dataset)))], self.drop)

    @property
    def batches_per_round(self) -> int:
        """Batches of one rank that make an epoch of the training sampler; after `setup`."""
        return math.ceil((self.samples_per_epoch or len(self._windows["train"])) / (self.batch_size * self._place()[1]))

    @property
    def is_mined(self) -> bool:
        """Whether hard negatives are to be mined, see `zoo.mining`."""
        return self.hard_negative_share > 0 and self.hard_negatives == "mined"

    def state_dict(self) -> dict[str, Any]:
        """Hard negatives that were mined, so that a resumed training draws from the same."""
        return self.hard_negative_pools.state_dict() if self.is_mined and self.hard_negative_pools else {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """The inverse of `state_dict`; after `setup`."""
        if self.is_mined and self.hard_negative_pools:
            self.hard_negative_pools.load_state_dict(state_dict)

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

    def batches_done(self) -> int:
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
            collate_fn=partial(stack, drop=self.drop),
            pin_memory=torch.cuda.is_available(),
            persistent_workers=self.num_workers > 0,
            prefetch_factor=4 if self.num_workers else None,
        )

    def teardown(self, stage: str | None = None) -> None:  # noqa: ARG002 - signature of Lightning
        """Close the files."""
        for readers in self._readers.values():
            for reader in readers:
                reader.close()
