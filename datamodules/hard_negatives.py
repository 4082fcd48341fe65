"""Hard negatives: background windows that look like landslides, and that training sees more often than chance would show them.

`terrain`: windows whose ground looks like scarps, found once from the elevation model. `mined`: windows in which the network itself sees
landslides, found anew after validations. Which pool a round of training draws from is a function of the round alone, so that a resumed
run draws from the same.
"""

import math
from collections.abc import Sequence
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt
import torch

from datamodules.errors import UserError
from datamodules.reading import SceneReader
from datamodules.terrain import LAYERS, local_relief, slope
from datamodules.windows import WindowIndex

HardNegativeSource = Literal["terrain", "mined"]

RELIEF_PIXELS: Final = 5
"""Radius of the local relief in a scarp score, in pixels: a few times what a break of the ground is wide."""

SCARP_QUANTILE: Final = 0.95
"""A scarp is a line, so a window full of them is no more than a few percent scarp; the maximum would be a single bad pixel."""

Array = npt.NDArray[Any]
IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]


def scarp_score(dem: torch.Tensor, pixel_size: tuple[float, float]) -> float:
    """How much the ground of a window looks like scarps: the 0.95 quantile over its pixels of sin(slope) |local relief|, in metres.

    A scarp is steep ground that stands out from what is around it: the upper edge above the mean of its neighbourhood, the foot
    below. Slope alone would take every even mountain side, relief alone every ridge. Relief over a disc of `RELIEF_PIXELS` stands
    where curvature could, because second differences of an elevation model that is coarser than the image show its grid.

    Args:
        dem: float (H, W), metres, NaN = no data.
        pixel_size: Metres (x, y).

    Returns:
        Not negative; NaN where the window has no elevation.
    """
    steep = torch.sin(torch.deg2rad(slope(dem, pixel_size)))
    values = (steep * local_relief(dem, pixel_size, radius_m=_relief_m(pixel_size)).abs()).numpy()
    known = values[np.isfinite(values)]
    return float(np.quantile(known, SCARP_QUANTILE)) if len(known) else math.nan


def _relief_m(pixel_size: tuple[float, float]) -> float:
    return RELIEF_PIXELS * max(pixel_size)


def scarp_scores(readers: Sequence[SceneReader], windows: WindowIndex, size: int) -> FloatArray:
    """`scarp_score` of each window; one window is in memory at a time.

    Args:
        readers: One a scene.
        windows: Windows of these scenes, sorted by scene.
        size: Pixels of a window along each axis.
    """
    scores = np.full(len(windows), np.nan)
    for number, reader in enumerate(readers):
        halo = LAYERS[f"local_relief:{_relief_m(reader.grid.pixel_size)}"].halo(reader.grid.pixel_size)
        for position in np.flatnonzero(windows.scene == number):
            row, column = int(windows.row[position]), int(windows.column[position])
            top, left = max(row - halo, 0), max(column - halo, 0)
            bottom, right = min(row + size + halo, reader.grid.height), min(column + size + halo, reader.grid.width)
            dem = torch.from_numpy(reader.dem(top, left, bottom - top, right - left))
            scores[position] = scarp_score(dem, reader.grid.pixel_size)
        reader.close()
    return scores


def hardest(scores: FloatArray, share: float) -> IntArray:
    """Positions of the highest scores, sorted: the share of those that are known, rounded up; of equal scores the first."""
    known = int(np.isfinite(scores).sum())
    order = np.argsort(-scores, kind="stable")  # NaN comes last
    return np.sort(order[: math.ceil(share * known)]).astype(np.int64)


class HardNegatives:
    """The pools that rounds of training draw hard negatives from.

    A pool that is found while a round runs is drawn from when the next begins: the order of the present one is dealt out already.

    Args:
        background: int64, positions of the windows without landslide.
        num_windows: Of all training windows.
        pool_share: Share of the scored windows that make a pool, in (0, 1].

    Raises:
        UserError: There is no background window.
    """

    def __init__(self, background: IntArray, num_windows: int, pool_share: float) -> None:
        if not len(background):
            raise UserError("but no training window is background", "set it to 0", field="data.hard_negative_share")
        self.background, self.num_windows, self.pool_share = background, num_windows, pool_share
        self._pools: list[tuple[int, IntArray]] = []

    def candidates(self, limit: int, seed: tuple[int, ...]) -> IntArray:
        """At most `limit` background windows, sorted: all of them where there are no more."""
        if len(self.background) <= limit:
            return self.background
        return np.sort(np.random.default_rng(seed).choice(self.background, limit, replace=False))

    def add_scarps(self, readers: Sequence[SceneReader], windows: WindowIndex, size: int) -> None:
        """Make the background windows whose ground looks most like scarps the pool of all rounds.

        Args:
            readers: One a scene.
            windows: All training windows.
            size: Pixels of a window along each axis.

        Raises:
            UserError: None of them has elevation.
        """
        scores = scarp_scores(readers, windows.take(self.background), size)
        if not np.isfinite(scores).any():
            raise UserError(
                "no training window without landslide has elevation",
                "add a dem to the scenes, or take mined",
                field="data.hard_negatives",
                value="terrain",
            )
        self._pools = [(0, self.background[hardest(scores, self.pool_share)])]

    def add(self, windows: IntArray, scores: FloatArray, *, batches_done: int, batches_per_round: int) -> IntArray:
        """Take the hardest of some windows as the pool from the next round on.

        Args:
            windows: int64 (N,), positions.
            scores: (N,), NaN = not known; where none is known the pool stays as it is.
            batches_done: Batches trained on.
            batches_per_round: Batches of a round.

        Returns:
            The chosen windows, int64.
        """
        chosen = windows[hardest(scores, self.pool_share)]
        if len(chosen):
            present, begun = divmod(batches_done, batches_per_round)
            running = [entry for entry in self._pools if entry[0] <= present][-1:] if begun else []
            self._pools = [*running, (present + bool(begun), chosen)]
        return chosen

    def at(self, number: int) -> IntArray:
        """Windows that a round draws hard negatives from; all background windows as long as no pool is known."""
        known = [pool for first, pool in self._pools if first <= number]
        return known[-1] if known else self.background

    def state_dict(self) -> dict[str, Any]:
        """Plain values for a checkpoint."""
        return {
            "num_windows": self.num_windows,
            "pools": [{"first_round": first, "windows": windows.tolist()} for first, windows in self._pools],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The inverse of `state_dict`.

        Raises:
            UserError: The checkpoint is of other training windows.
        """
        if state["num_windows"] != self.num_windows:
            raise UserError(
                f"the checkpoint's hard negatives are among {state['num_windows']} training windows, the data have {self.num_windows}",
                "resume with the data and the data options that the training began with",
                field="data.hard_negatives",
                value="mined",
            )
        self._pools = [(pool["first_round"], np.asarray(pool["windows"], dtype=np.int64)) for pool in state["pools"]]


def check_shares(hard_negative_share: float, landslide_share: float | None, pool_share: float) -> None:
    """Refuse shares that make no sense, before any file is opened.

    Raises:
        UserError: Out of range.
    """
    if not 0 <= hard_negative_share <= 1 - (landslide_share or 0) + 1e-9:
        raise UserError(
            f"is out of range: landslide_share is {landslide_share}, and together they must lie in [0, 1]",
            "lower one of them",
            field="data.hard_negative_share",
            value=hard_negative_share,
            exit_code=2,
        )
    if not 0 < pool_share <= 1:
        raise UserError("must lie in (0, 1]", "0.2 is the default", field="data.hard_negative_pool", value=pool_share, exit_code=2)
