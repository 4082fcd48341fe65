"""Mean and spread over seeds."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Spread:
    """Mean and standard deviation of one score over runs that differ in their seed only.

    `std` is the sample standard deviation (n - 1), NaN for a single run. A score that does not exist for one of the runs has no mean:
    averaging the others would hide the run that predicted nothing.
    """

    mean: float
    std: float
    num: int


def spread(values: Sequence[float]) -> Spread:
    """Mean and spread over seeds.

    Example:
        >>> spread([1.0, 3.0])
        Spread(mean=2.0, std=1.4142135623730951, num=2)
    """
    if not values or any(math.isnan(value) for value in values):
        return Spread(math.nan, math.nan, len(values))
    return Spread(statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else math.nan, len(values))
