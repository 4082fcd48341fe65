"""Tests beside the bootstrap: many comparisons at once, and scores of folds."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import special


def holm(p_values: Sequence[float]) -> list[float]:
    """P values corrected for being several (Holm 1979): below alpha with probability alpha at most for *any* true null hypothesis.

    Args:
        p_values: NaN for a comparison that could not be made; it does not count.

    Returns:
        In the given order: the k-th smallest of m times (m - k + 1), never below a smaller one's, at most 1.

    Example:
        >>> holm([0.01, 0.04, 0.03])
        [0.03, 0.06, 0.06]
    """
    order = sorted((value, index) for index, value in enumerate(p_values) if not math.isnan(value))
    corrected = [math.nan] * len(p_values)
    largest = 0.0
    for rank, (value, index) in enumerate(order):
        largest = max(largest, min(1.0, value * (len(order) - rank)))
        corrected[index] = largest
    return corrected


@dataclass(frozen=True)
class FoldTest:
    """Difference of two methods over folds."""

    mean: float
    standard_error: float
    freedom: int
    p_value: float

    def interval(self, level: float = 0.95) -> tuple[float, float]:
        """Student's interval of the difference."""
        half = float(special.stdtrit(self.freedom, (1 + level) / 2)) * self.standard_error
        return self.mean - half, self.mean + half


def corrected_t_test(differences: Sequence[float], *, test_share: float) -> FoldTest:
    """Corrected resampled t test of Nadeau and Bengio (2003): folds share training data, hence are no independent samples.

    t = mean / sqrt((1 / J + n_test / n_train) s^2) with J - 1 degrees of freedom.

    Args:
        differences: One a fold (mean over the seeds of the fold).
        test_share: n_test / n_train, 1 / (J - 1) for plain k folds.

    Returns:
        NaN everywhere for fewer than two folds or a missing difference; p is 1 where all differences are 0.

    Raises:
        ValueError: `test_share` is not positive.
    """
    if not test_share > 0:
        raise ValueError(f"n_test / n_train must be positive, not {test_share}")
    values = np.asarray(differences, np.float64)
    if len(values) < 2 or np.isnan(values).any():
        return FoldTest(math.nan, math.nan, max(len(values) - 1, 0), math.nan)
    mean = float(values.mean())
    error = math.sqrt((1 / len(values) + test_share) * float(values.var(ddof=1)))
    if error == 0:
        return FoldTest(mean, 0.0, len(values) - 1, 1.0 if mean == 0 else 0.0)
    return FoldTest(mean, error, len(values) - 1, float(2 * special.stdtr(len(values) - 1, -abs(mean) / error)))
