"""Block bootstrap of pooled scores: how much a score would differ on other places of the same kind.

The units (scenes, or blocks of windows) are drawn with replacement; the confusion counts of the drawn ones are added up, and the
score is that of the sum: a pooled ratio, never a mean of ratios. Every run sees the same draws, so differences between runs are
paired. A draw is a vector of multinomial counts of the units, and all draws of all runs are one matrix product.

Seeds are averaged inside each draw: the interval is that of the mean score of *these* trained runs over other places. How far the
mean may move with other seeds is added by `Estimate.with_seeds`. Drawing the seeds themselves with replacement would be the plain
hierarchical bootstrap, but of three seeds it makes intervals that are far too narrow.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Literal

import numpy as np
from scipy import special

from benchmarks.statistics.seeds import SeedError

NUM_DRAWS: Final = 10_000
MIN_UNITS: Final = 20
"""Below this the bootstrap makes intervals that are too narrow to be shown."""
CHUNK_BYTES: Final = 16 * 2**20
"""Memory of the draws that are in work at a time."""
Floats = np.ndarray[Any, np.dtype[np.float64]]

POOLED: Final = {
    "iou_landslide": ((1, 0, 0), (1, 1, 1)),
    "f1": ((2, 0, 0), (2, 1, 1)),
    "precision": ((1, 0, 0), (1, 1, 0)),
    "recall": ((1, 0, 0), (1, 0, 1)),
}
"""Score -> how its numerator and its denominator are made of true positives, false positives and false negatives."""


def pooled_score(counts: Floats, metric: str) -> Floats:
    """A score of the landslide class.

    Args:
        counts: (..., 3) true positives, false positives, false negatives.
        metric: One of `POOLED`.

    Returns:
        (...) in [0, 1]; NaN where the denominator is empty.
    """
    numerator, denominator = (counts @ np.array(weights, np.float64) for weights in POOLED[metric])
    scores: Floats = np.divide(numerator, denominator, out=np.full(numerator.shape, math.nan), where=denominator > 0)
    return scores


@dataclass(frozen=True)
class Estimate:
    """A score, or a difference of two, with what the bootstrap made of it. Estimates of the same draws may be subtracted."""

    value: float
    draws: Floats
    """(num_draws,); NaN where a draw has no score."""
    left_out: Floats
    """(units,): the score without each unit, for the acceleration of BCa."""
    widened: bool = False
    """The draws are wide enough without `expanded_tails`."""

    def __sub__(self, other: "Estimate") -> "Estimate":
        """The paired difference."""
        return Estimate(self.value - other.value, self.draws - other.draws, self.left_out - other.left_out)

    def with_seeds(self, error: SeedError, *, rule: Literal["welch", "behrens-fisher"] = "welch", seed: int = 0) -> "Estimate":
        """The same with the error of a few seeds in each draw, for intervals of the method and not of these runs alone.

        Args:
            error: From `seed_error`.
            rule: How the two errors become one. `welch`, for intervals: Student's t with the degrees of freedom of Welch and Satterthwaite;
                they cover as often as they say. `behrens-fisher`, for p values: the sum of the draws and of an error of Student's t, whose
                tails are on the wide side and keep their level with two seeds and as far out as Holm asks for, where Welch's do not.
            seed: Of the order in which errors meet draws.
        """
        if error.standard_error == 0:
            return self
        # Evenly spaced quantiles in random order: the tails of t with two degrees of freedom are too long to leave to chance. The
        # stream is its own, since equal numbers would couple the error to the draws of the units.
        ranks = (np.random.default_rng([seed, 1]).permutation(len(self.draws)) + 0.5) / len(self.draws)
        if rule == "behrens-fisher":
            return replace(self, draws=self.draws + error.standard_error * special.stdtrit(error.freedom, ranks), widened=True)
        units = len(self.left_out)
        deviations = (self.draws - self.value) * (_expansion(units) if units > 1 else 1.0)
        places = float(np.var(deviations[~np.isnan(deviations)])) if not np.isnan(deviations).all() else math.nan
        variance, degrees = places + error.standard_error**2, error.standard_error**4 / error.freedom
        freedom = variance**2 / (degrees + (places**2 / (units - 1) if units > 1 else 0.0))
        # What is a normal deviate of the sum becomes the deviate of t of the same rank; skewness stays.
        normal = (deviations + error.standard_error * special.ndtri(ranks)) / math.sqrt(variance)
        students = -np.sign(normal) * special.stdtrit(freedom, special.ndtr(-np.abs(normal)))
        return replace(self, draws=self.value + math.sqrt(variance) * students, widened=True)

    def interval(
        self, level: float = 0.95, method: Literal["percentile", "bca"] = "percentile", *, expanded: bool = True
    ) -> tuple[float, float]:
        """Confidence interval.

        Args:
            level: Its nominal coverage.
            method: `bca` corrects for bias and skewness (Efron 1987), the acceleration from the jackknife over units.
            expanded: Make up for few units, see `expanded_tails`; False gives the textbook's interval.

        Returns:
            (low, high). A draw without a score counts against both ends; an end that falls on one does not exist and is NaN.
        """
        tails = np.array([(1 - level) / 2, (1 + level) / 2])
        if math.isnan(self.value):
            return math.nan, math.nan
        if expanded and not self.widened:
            tails = expanded_tails(tails, len(self.left_out))
        if method == "bca":
            tails = self._bca_tails(tails)
            if np.isnan(tails).any():
                return math.nan, math.nan
        absent = np.isnan(self.draws)
        with np.errstate(invalid="ignore"):  # between an infinite and a finite draw there is nothing to interpolate
            low = np.quantile(np.where(absent, -math.inf, self.draws), tails[0])
            high = np.quantile(np.where(absent, math.inf, self.draws), tails[1])
        return _finite(low), _finite(high)

    def _bca_tails(self, tails: Floats) -> Floats:
        drawn = self.draws[~np.isnan(self.draws)]
        if len(drawn) == 0 or np.isnan(self.left_out).any():
            return np.full(2, math.nan)
        below = ((drawn < self.value).mean() + (drawn <= self.value).mean()) / 2
        bias = special.ndtri(below)
        deviations = self.left_out.mean() - self.left_out
        squares = float((deviations**2).sum())
        acceleration = float((deviations**3).sum()) / (6 * squares**1.5) if squares > 0 else 0.0
        if not math.isfinite(bias):
            return np.full(2, math.nan)
        shifted = bias + special.ndtri(tails)
        return np.asarray(special.ndtr(bias + shifted / (1 - acceleration * shifted)), np.float64)

    def p_value(self) -> float:
        """Two-sided p of the hypothesis that the value is 0, from the share of draws on the other side of it.

        One is added to share and number of draws: a p of 0 cannot be had from finitely many. The inverse of the expanded percentile
        interval: below 0.05 where that leaves out 0. NaN where the value does not exist.
        """
        if math.isnan(self.value):
            return math.nan
        absent = np.isnan(self.draws)
        sides = [int(((self.draws <= 0) | absent).sum()), int(((self.draws >= 0) | absent).sum())]
        share, units = (1 + min(sides)) / (1 + len(self.draws)), len(self.left_out)
        if units > 1 and share < 1 and not self.widened:
            share = float(special.stdtr(units - 1, special.ndtri(share) / _expansion(units)))
        return min(1.0, 2 * share)


@dataclass(frozen=True)
class Resampled:
    """Confusion counts of several runs, and their sums under the same draws of units."""

    counts: Floats
    """(runs, units, 3)."""
    draws: Floats
    """(num_draws, runs, 3)."""

    def estimate(self, metric: str, runs: Sequence[int]) -> Estimate:
        """The mean of a score over some runs (the seeds of a method), taken inside each draw.

        Args:
            metric: One of `POOLED`.
            runs: Their indices.
        """
        counts = self.counts[list(runs)]
        totals = counts.sum(1)
        return Estimate(
            value=float(pooled_score(totals, metric).mean()),
            draws=pooled_score(self.draws[:, list(runs)], metric).mean(1),
            left_out=pooled_score(totals[:, None] - counts, metric).mean(0),
        )


def expanded_tails(tails: Floats, units: int) -> Floats:
    """Tails further out, so that an interval of few units covers as often as it says (Hesterberg 2015, "expanded percentile").

    The bootstrap's spread is that of the plug-in variance, short by sqrt(1 - 1/n), and its quantiles are those of a normal where Student's
    t with n - 1 degrees of freedom belongs: for 28 units the ends of a 95 % interval move from 2.5 and 97.5 % to 1.8 and 98.2 %.
    """
    return np.asarray(special.ndtr(_expansion(units) * special.stdtrit(units - 1, tails)), np.float64) if units > 1 else tails


def _expansion(units: int) -> float:
    return math.sqrt(units / (units - 1))


def resample(counts: np.ndarray[Any, Any], *, num_draws: int = NUM_DRAWS, seed: int = 0) -> Resampled:
    """Draw units with replacement, the same ones for all runs.

    Args:
        counts: (runs, units, 3) true positives, false positives, false negatives of each unit; exact up to sums of 2^53.
        num_draws: Number of draws.
        seed: Of the draws; they depend on it and on the number of units alone.

    Raises:
        ValueError: There is no unit, or counts are negative or of another shape.
    """
    if counts.ndim != 3 or counts.shape[2] != 3 or counts.shape[1] == 0:
        raise ValueError(f"counts must be (runs, units, 3) with at least one unit, not {counts.shape}")
    if (counts < 0).any():
        raise ValueError("counts cannot be negative")
    runs, units, _ = counts.shape
    flat = np.ascontiguousarray(counts.transpose(1, 0, 2).reshape(units, runs * 3), np.float64)
    generator = np.random.default_rng([seed, 0])
    drawn = np.empty((num_draws, runs * 3))
    chunk = max(1, CHUNK_BYTES // (8 * units))
    for start in range(0, num_draws, chunk):
        size = min(chunk, num_draws - start)
        # Counting uniform draws gives multinomial counts several times faster than a generator of these does.
        picks = generator.integers(0, units, (size, units)) + np.arange(size)[:, None] * units
        times = np.bincount(picks.ravel(), minlength=size * units).reshape(size, units)
        drawn[start : start + size] = times.astype(np.float64) @ flat
    return Resampled(np.asarray(counts, np.float64), drawn.reshape(num_draws, runs, 3))


def _finite(value: float) -> float:
    return float(value) if math.isfinite(value) else math.nan
