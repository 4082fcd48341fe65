"""Mean and spread over seeds, and how many seeds a difference would need."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from scipy import special  # lighter to import than scipy.stats by far, and planning imports this

MAX_SEEDS: Final = 10_000
"""Where the search for a number of seeds ends; nobody trains that many."""


@dataclass(frozen=True)
class Spread:
    """Mean, standard deviation and interquartile mean of one score over runs that differ in their seed only.

    `std` is the sample standard deviation (n - 1), NaN for a single run. `iqm` is the mean of the middle half of the runs, a quarter
    (rounded down) cut off at each end, as in Agarwal et al. 2021 (arXiv 2108.13264); below four runs nothing is cut off, and it is the
    mean. A score that does not exist for one of the runs has no mean: averaging the others would hide the run that predicted nothing.
    """

    mean: float
    std: float
    num: int
    iqm: float


def spread(values: Sequence[float]) -> Spread:
    """Mean and spread over seeds.

    Example:
        >>> spread([1.0, 3.0])
        Spread(mean=2.0, std=1.4142135623730951, num=2, iqm=2.0)
    """
    if len(values) == 0 or any(math.isnan(value) for value in values):
        return Spread(math.nan, math.nan, len(values), math.nan)
    cut = len(values) // 4
    middle = sorted(values)[cut : len(values) - cut]
    std = statistics.stdev(values) if len(values) > 1 else math.nan
    return Spread(statistics.fmean(values), std, len(values), statistics.fmean(middle))


@dataclass(frozen=True)
class SeedError:
    """How far a mean over a few seeds, or a difference of two such means, may lie from that over all seeds.

    The error over `standard_error` follows Student's t with `freedom` degrees of freedom.
    """

    standard_error: float
    freedom: float


def seed_error(*samples: Sequence[float]) -> SeedError | None:
    """The error of the mean of one sample of seeds, or of the difference of two means (Welch, who lets variances differ).

    Args:
        samples: One or two; each the scores of one method, one a seed.

    Returns:
        None where it is unknown: a sample has fewer than two seeds, or a score does not exist.
    """
    spreads = [spread(sample) for sample in samples]
    if any(math.isnan(item.std) for item in spreads):
        return None
    parts = [(item.std**2 / item.num, item.num - 1) for item in spreads]
    variance = sum(part for part, _ in parts)
    # Welch-Satterthwaite; equal scores of all seeds have no error, whatever the degrees of freedom.
    freedom = variance**2 / sum(part**2 / degrees for part, degrees in parts) if variance > 0 else math.inf
    return SeedError(math.sqrt(variance), freedom)


def pooled_std(samples: Sequence[Sequence[float]]) -> float:
    """The standard deviation over seeds that all methods are taken to share: sqrt(sum (n_i - 1) s_i^2 / sum (n_i - 1)).

    Returns:
        NaN if no sample has two seeds; samples with one seed or without a score tell nothing and are left out.
    """
    spreads = [item for item in map(spread, samples) if not math.isnan(item.std)]
    freedom = sum(item.num - 1 for item in spreads)
    return math.sqrt(sum((item.num - 1) * item.std**2 for item in spreads) / freedom) if freedom else math.nan


def seeds_needed(std: float, difference: float = 0.01, *, power: float = 0.8, alpha: float = 0.05) -> int | None:
    """Seeds of each of two methods with which a two-sided two-sample t test finds a true difference.

    The smallest n with P(|T| > t(1 - alpha / 2; 2 n - 2)) >= power, T noncentral t with 2 n - 2 degrees of freedom and noncentrality
    difference / (std sqrt(2 / n)). It is about seeds alone: whether other places would show the same is for the bootstrap to say.

    Args:
        std: Of the score over seeds, in the unit of the score; see `pooled_std`.
        difference: That shall be found; 0.01 is one point of IoU.
        power: Probability of finding it.
        alpha: Probability of finding one where there is none.

    Returns:
        At least 2; None where it is unknown (`std` NaN) or above `MAX_SEEDS`.
    """
    if math.isnan(std):
        return None
    if std == 0:
        return 2

    def enough(num: int) -> bool:
        freedom = 2 * num - 2
        # The other tail is below 1e-6 wherever the power is not far below 0.8.
        critical = special.stdtrit(freedom, 1 - alpha / 2)
        return bool(1 - special.nctdtr(freedom, difference / (std * math.sqrt(2 / num)), critical) >= power)

    high = 2
    while not enough(high):
        if high >= MAX_SEEDS:
            return None
        high *= 2
    low = high // 2
    while high - low > 1:  # `low` seeds are too few, `high` are enough; power grows with the number
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return max(high, 2)
