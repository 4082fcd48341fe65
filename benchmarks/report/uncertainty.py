"""Rows -> how sure their scores are, and their differences to a baseline."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np

from benchmarks.report.rows import Report, Row, Tested
from benchmarks.statistics import (
    MIN_UNITS,
    Estimate,
    FoldTest,
    Resampled,
    corrected_t_test,
    pooled_score,
    pooled_std,
    resample,
    seed_error,
    seeds_needed,
)


@dataclass(frozen=True)
class Difference:
    """A row minus another, on the same draws of the same units."""

    units: int
    blocks: Estimate
    """Of these trained runs: other places, the same seeds."""
    methods: Estimate | None
    """Of the methods: other places and other seeds; None where a row has a single seed. Its interval covers as often as it says."""
    cautious: Estimate | None
    """The same on the wide side, for the p value: a claim must not be made too often, also with two seeds and after Holm."""
    folds: FoldTest | None
    """Where there are folds: the corrected t test over them."""
    seeds_for_a_point: int | None
    """Seeds of each row with which a true difference of 0.01 would be found."""

    @property
    def p_value(self) -> float:
        """Of the methods being equal: over folds where there are any, else over blocks and seeds; NaN where neither can be had."""
        if self.folds is not None:
            return self.folds.p_value
        return math.nan if self.cautious is None else self.cautious.p_value()


class Uncertainty:
    """Bootstrap of all rows of a report. Rows that were tested on the same tiles share their draws."""

    def __init__(self, rows: Sequence[Row]) -> None:
        self._rows = {row.spec.name: row for row in rows}
        self._resampled: dict[frozenset[tuple[int | None, str]], tuple[Resampled, dict[str, range]]] = {}
        groups: dict[frozenset[tuple[int | None, str]], list[tuple[str, Tested]]] = {}
        for row in rows:
            if row.tested is not None and row.tested.seeds and row.tested.counts.shape[1] >= MIN_UNITS:
                groups.setdefault(row.tested.tiles, []).append((row.spec.name, row.tested))
        for tiles, members in groups.items():
            runs, start = {}, 0
            for name, tested in members:
                runs[name] = range(start, start + len(tested.seeds))
                start += len(tested.seeds)
            self._resampled[tiles] = resample(np.concatenate([tested.counts for _, tested in members])), runs
        self.estimate = cache(self._estimate)

    def _estimate(self, name: str, metric: str) -> Estimate | None:
        """The mean score of a row over its seeds; None where there are too few units."""
        for resampled, runs in self._resampled.values():
            if name in runs:
                return resampled.estimate(metric, runs[name])
        return None

    def method_estimate(self, name: str, metric: str) -> Estimate | None:
        """The same with the error of having few seeds; None with a single one."""
        estimate, error = self.estimate(name, metric), seed_error(self.seed_scores(name, metric))
        return None if estimate is None or error is None else estimate.with_seeds(error)

    def seed_scores(self, name: str, metric: str) -> list[float]:
        """One pooled score a seed."""
        tested = self._rows[name].tested
        return [] if tested is None else [float(score) for score in pooled_score(tested.counts.sum(1).astype(np.float64), metric)]

    def difference(self, name: str, baseline: str, metric: str = "iou_landslide") -> Difference | str:
        """A row minus another.

        Returns:
            In words why there is none, where the two cannot be compared.
        """
        first, second = (self._rows[row].tested for row in (name, baseline))
        for row, tested in ((name, first), (baseline, second)):
            if tested is None:
                return f"{row!r} has no finished run"
            if not tested.seeds:
                return f"no seed of {row!r} was tested on all its folds"
        assert first is not None
        assert second is not None
        if first.tiles != second.tiles:
            return f"{name!r} and {baseline!r} were tested on other tiles"
        units = first.counts.shape[1]
        one, other = self.estimate(name, metric), self.estimate(baseline, metric)
        if one is None or other is None:
            return f"the test has {units} unit(s), and fewer than {MIN_UNITS} tell nothing of other places"
        # A reference trains nothing, so that no seed can move it.
        scores = [self.seed_scores(row, metric) for row in (name, baseline) if not self._rows[row].spec.is_reference]
        error = seed_error(*scores)
        blocks = one - other
        return Difference(
            units=units,
            blocks=blocks,
            methods=None if error is None else blocks.with_seeds(error),
            cautious=None if error is None else blocks.with_seeds(error, rule="behrens-fisher"),
            folds=self._over_folds(self._rows[name], self._rows[baseline], metric),
            seeds_for_a_point=seeds_needed(pooled_std(scores)),
        )

    @staticmethod
    def _over_folds(first: Row, second: Row, metric: str) -> FoldTest | None:
        scores = [_fold_scores(row, metric) for row in (first, second)]
        common = sorted(scores[0].keys() & scores[1].keys())
        if len(common) < 2:
            return None
        portions = [record.data["splits"] for record in first.finished if record.spec.get("fold") in common]
        share = float(np.mean([splits["test"]["windows"] / splits["train"]["windows"] for splits in portions]))
        return corrected_t_test([scores[0][fold] - scores[1][fold] for fold in common], test_share=share)


def _fold_scores(row: Row, metric: str) -> dict[int, float]:
    """Fold -> mean over its seeds; empty without folds."""
    values: dict[int, list[float]] = {}
    for record in row.finished:
        fold = record.spec.get("fold")
        if fold is not None:
            values.setdefault(fold, []).append(record.metrics["test"].get(metric, math.nan))
    return {fold: float(np.mean(scores)) for fold, scores in values.items()}


def uncertainty(report: Report) -> Uncertainty:
    """Of all rows of a report, references included."""
    return Uncertainty([*report.references, *report.rows])
