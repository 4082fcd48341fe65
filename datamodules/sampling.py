"""The order in which windows are trained on and evaluated: a pure function of (seed, round), dealt out over ranks.

Training draws from one endless stream of rounds. Where an iteration starts is asked of the trainer, as the number of batches that it has
really trained on: Lightning's own count of epochs is off by one after a resume, and its sampler epochs with it.

A training item is (window, item seed). Neither depends on the number of workers, and the union over ranks is the stream of one
process, so that a run is the same run wherever it runs.
"""

import math
from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt
from torch.utils.data import Sampler

from datamodules.errors import UserError

IntArray = npt.NDArray[np.int64]
_LARGEST_SEED = 2**31 - 1


class TrainingSampler(Sampler[tuple[int, int]]):
    """Draws windows with a target share of landslide windows.

    A round (an epoch) is whole batches on all ranks: `num_samples` is rounded up to a multiple of `batch_size * world_size`. Within a class
    windows are drawn without replacement until it is exhausted, then anew; the landslide windows are spread evenly over the
    epoch, and at random within a step.

    Args:
        landslide: bool (N,), which windows hold landslides.
        num_samples: Items an epoch over all ranks; None = N.
        landslide_share: Share of items from landslide windows in [0, 1], met in each epoch up to rounding; None = as they come.
        seed: Of the run.
        batch_size: Of one rank.
        rank, world_size: This process among all.
        batches_done: Gives the number of batches that each rank has trained on; None = whole epochs as `set_epoch` counts them.

    Raises:
        UserError: The share asks for a class of which there is no window.
    """

    def __init__(
        self,
        landslide: npt.NDArray[np.bool_],
        *,
        num_samples: int | None,
        landslide_share: float | None,
        seed: int,
        batch_size: int,
        rank: int = 0,
        world_size: int = 1,
        batches_done: Callable[[], int] | None = None,
    ) -> None:
        super().__init__()
        self._batches_done = batches_done
        self._classes = np.flatnonzero(~landslide), np.flatnonzero(landslide)
        step = batch_size * world_size
        self.total = math.ceil((num_samples or len(landslide)) / step) * step
        self.landslide_share, self.seed, self.epoch = landslide_share, seed, 0
        self.rank, self.world_size, self._step = rank, world_size, step
        if landslide_share is not None:
            for kind, members, wanted in zip(
                ("background", "landslide"), self._classes, (1 - landslide_share, landslide_share), strict=True
            ):
                if wanted > 0 and not len(members):
                    raise UserError(
                        f"but no training window is {kind}",
                        "set it to null for the natural share",
                        field="landslide_share",
                        value=landslide_share,
                    )

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose order comes next, where no trainer says how many batches are done."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.total // self.world_size

    def __iter__(self) -> Iterator[tuple[int, int]]:
        start = self.epoch * self.total if self._batches_done is None else self._batches_done() * self._step
        first, offset = divmod(start, self.total)
        parts = [self.order(first), self.order(first + 1)] if offset else [self.order(first)]
        windows, seeds = (
            np.concatenate(column)[offset : offset + self.total][self.rank :: self.world_size] for column in zip(*parts, strict=True)
        )
        return iter(list(zip(windows.tolist(), seeds.tolist(), strict=True)))

    def order(self, epoch: int) -> tuple[IntArray, IntArray]:
        """Windows and item seeds of one epoch over all ranks, int64 (total,) each."""
        generator = np.random.default_rng((self.seed, epoch))
        if self.landslide_share is None:
            windows = _draw(np.sort(np.concatenate(self._classes)), self.total, generator)
        else:
            # Landslides fall due at even distances; the order within a step is random, or a rank could get all of them.
            due = np.floor(np.arange(1, self.total + 1) * self.landslide_share + 0.5).astype(np.int64)
            is_landslide = np.diff(due, prepend=0) > 0
            is_landslide = generator.permuted(is_landslide.reshape(-1, self._step), axis=1).ravel()
            windows = np.empty(self.total, dtype=np.int64)
            for members, places in zip(self._classes, (~is_landslide, is_landslide), strict=True):
                windows[places] = _draw(members, int(places.sum()), generator)
        return windows, generator.integers(0, _LARGEST_SEED, size=self.total)


def _draw(members: IntArray, count: int, generator: np.random.Generator) -> IntArray:
    """`count` members, without replacement until they are exhausted."""
    if not count:
        return np.empty(0, dtype=np.int64)
    rounds = [generator.permutation(members) for _ in range(math.ceil(count / len(members)))]
    return np.concatenate(rounds)[:count].astype(np.int64)


class ShardSampler(Sampler[int]):
    """Every window exactly once, on exactly one rank: nothing is repeated to even out the ranks, and a rank may stay empty.

    Args:
        size: Number of windows.
        rank, world_size: This process among all.
    """

    def __init__(self, size: int, rank: int = 0, world_size: int = 1) -> None:
        super().__init__()
        self._positions = range(rank, size, world_size)

    def __len__(self) -> int:
        return len(self._positions)

    def __iter__(self) -> Iterator[int]:
        return iter(self._positions)
