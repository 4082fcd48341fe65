"""Counts that add: the form of all metrics of scenes and blocks.

A unit (scene or spatial block) gives counts, never ratios. Counts of units are summed, and scores are taken from the sum: so a pooled score
is that of the whole, and a bootstrap draws units again by weighting their vectors.
"""

import dataclasses
import functools
import math
import operator
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Self, TypeVar

import numpy as np
from numpy.typing import NDArray


def ratio(numerator: float, denominator: float) -> float:
    """A score whose denominator is empty does not exist; NaN says so where 0 or 1 would be an opinion."""
    return numerator / denominator if denominator else math.nan


def f1_score(precision: float, recall: float) -> float:
    """Harmonic mean of precision and recall; 0 where one of them is 0 and the other does not exist; NaN where neither exists."""
    if precision == 0 or recall == 0:
        return 0.0
    return 2 * precision * recall / (precision + recall)


@dataclass(frozen=True, eq=False)
class Counts:
    """Base of all counts: numbers, arrays or further `Counts` that add field by field, and a field `rules` that must be the same.

    Attributes:
        rules: What was counted, and how; never added.
    """

    rules: Any

    def __add__(self, other: Self) -> Self:
        """Counts of both units together.

        Raises:
            ValueError: The two were counted by different rules.
        """
        if type(other) is not type(self):
            return NotImplemented
        if self.rules != other.rules:
            raise ValueError(f"counts of different rules do not add: {self.rules} and {other.rules}")
        return dataclasses.replace(self, **{name: getattr(self, name) + getattr(other, name) for name in self._added()})

    @classmethod
    def _added(cls) -> list[str]:
        return [item.name for item in dataclasses.fields(cls) if item.name != "rules"]

    def vector(self) -> NDArray[np.float64]:
        """All counts in one row, float64 (N,), for storage and for sums over many units."""
        values = (getattr(self, name) for name in self._added())
        return np.concatenate([value.vector() if isinstance(value, Counts) else np.ravel(value).astype(np.float64) for value in values])

    def from_vector(self, vector: NDArray[np.float64]) -> Self:
        """Counts of the same rules with other numbers: the inverse of `vector`, also of a sum or weighted sum of vectors.

        Args:
            vector: float64 (N,).
        """
        values: dict[str, Any] = {}
        begin = 0
        for name in self._added():
            value = getattr(self, name)
            size = value.vector().size if isinstance(value, Counts) else np.size(value)
            part, begin = vector[begin : begin + size], begin + size
            values[name] = value.from_vector(part) if isinstance(value, Counts) else _shaped_like(value, part)
        return dataclasses.replace(self, **values)


def _shaped_like(value: Any, part: NDArray[np.float64]) -> Any:  # noqa: ANN401 - a number or an array
    if isinstance(value, np.ndarray):
        return part.reshape(value.shape).astype(value.dtype)
    return type(value)(part[0])


C = TypeVar("C", bound=Counts)


def pool(units: Iterable[C]) -> C:
    """Counts of all units together.

    Raises:
        ValueError: There is no unit, or two were counted by different rules.
    """
    counts = list(units)
    if not counts:
        raise ValueError("no units to pool")
    return functools.reduce(operator.add, counts)
