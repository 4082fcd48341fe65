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
_BACKGROUND, _LANDSLIDE, _HARD, _ANY = 0, 1, 2, 3
_LARGEST_SEED = 2**31 - 1


class TrainingSampler(Sampler[tuple[int, int]]):
    """Draws windows with target shares of landslide windows and of hard negatives.

    A round (an epoch) is whole batches on all ranks: `num_samples` is rounded up to a multiple of `batch_size * world_size`. Within a class
    windows are drawn without replacement until it is exhausted, then anew; the landslide windows are spread evenly over the
    epoch, and at random within a step. Hard negatives are spread evenly over the other items: their share is met in each epoch to within
    one item, and in each step to within two. They are drawn apart from the rest, whose background may hold them too.

    Args:
        landslide: bool (N,), which windows hold landslides.
        num_samples: Items an epoch over all ranks; None = N.
        landslide_share: Share of items from landslide windows in [0, 1], met in each epoch up to rounding; None = as they come.
        seed: Of the run.
        batch_size: Of one rank.
        rank, world_size: This process among all.
        batches_done: Gives the number of batches that each rank has trained on; None = whole epochs as `set_epoch` counts them.
        hard_negative_share: Share of items that are hard negatives, in [0, 1 - landslide_share].
        hard_negatives: Gives, for an epoch, the windows that they are drawn from, int64 (M,), M > 0; a function of the epoch alone.

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
        hard_negative_share: float = 0.0,
        hard_negatives: Callable[[int], IntArray] | None = None,
    ) -> None:
        super().__init__()
        self._batches_done = batches_done
        self.hard_negative_share, self._hard_negatives = hard_negative_share, hard_negatives
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
        kinds = self._kinds()
        # Within a step the order is random, or a rank could get all landslides.
        if (kinds != _ANY).any():
            kinds = generator.permuted(kinds.reshape(-1, self._step), axis=1).ravel()
        background, landslide = self._classes
        members = {_ANY: np.sort(np.concatenate(self._classes)), _BACKGROUND: background, _LANDSLIDE: landslide}
        if self._hard_negatives is not None:
            members[_HARD] = self._hard_negatives(epoch)
        windows = np.empty(self.total, dtype=np.int64)
        for kind, choice in members.items():
            places = kinds == kind
            windows[places] = _draw(choice, int(places.sum()), generator)
        return windows, generator.integers(0, _LARGEST_SEED, size=self.total)

    def _kinds(self) -> npt.NDArray[np.int8]:
        """Of which kind each item of an epoch is, before steps are shuffled; each kind at even distances."""
        kinds = np.full(self.total, _ANY, dtype=np.int8)
        if self.landslide_share is not None:
            kinds[:] = _BACKGROUND
            kinds[_due(self.total, self.landslide_share)] = _LANDSLIDE
        if self._hard_negatives is not None and self.hard_negative_share:
            others = np.flatnonzero(kinds != _LANDSLIDE)
            share = min(self.hard_negative_share / (1 - (self.landslide_share or 0)), 1.0)
            kinds[others[_due(len(others), share)]] = _HARD
        return kinds


def _due(count: int, share: float) -> npt.NDArray[np.bool_]:
    """Which of `count` places fall due at even distances: bool (count,), share times count of them, rounded."""
    due = np.floor(np.arange(1, count + 1) * share + 0.5).astype(np.int64)
    falls: npt.NDArray[np.bool_] = np.diff(due, prepend=0) > 0
    return falls


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
        self._leaves_ranks_empty = 0 < size < world_size

    def __len__(self) -> int:
        if self._leaves_ranks_empty:
            # Lightning (2.6) skips the evaluation on a rank of length 0, where the others wait for it. Without a length, which all ranks
            # must lack alike, each goes through its windows, be they none, and gathers with the others.
            raise TypeError("with fewer windows than ranks a shard has no length")
        return len(self._positions)

    def __iter__(self) -> Iterator[int]:
        return iter(self._positions)
