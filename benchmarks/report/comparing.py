"""Is A better than B, by how much, how sure: in words and as a table."""

import math
from dataclasses import dataclass
from typing import Final

from benchmarks.composing import near
from benchmarks.report.intervals import interval_cell, p_cell, score_interval, signed
from benchmarks.report.rows import Report, Row
from benchmarks.report.tables import NOTHING, number
from benchmarks.report.uncertainty import Difference, uncertainty
from benchmarks.statistics import spread
from datamodules.errors import UserError

TITLES: Final = {"iou_landslide": "IoU", "f1": "F1", "precision": "precision", "recall": "recall"}
"""Score -> its name in sentences; of the landslide class each."""
ALPHA: Final = 0.05


@dataclass(frozen=True)
class Side:
    """One of the two rows."""

    name: str
    seeds: tuple[str, ...]
    scores: tuple[float, ...]
    """One a seed."""
    blocks: tuple[float, float]
    methods: tuple[float, float]
    """NaN with a single seed."""


@dataclass(frozen=True)
class Comparison:
    """A minus B."""

    metric: str
    first: Side
    second: Side
    difference: Difference

    @property
    def method_interval(self) -> tuple[float, float]:
        """Of the methods, as the p value: over folds where there are any."""
        if self.difference.folds is not None:
            return self.difference.folds.interval()
        return (math.nan, math.nan) if self.difference.methods is None else self.difference.methods.interval()


def compare(report: Report, first: str, second: str, metric: str = "iou_landslide") -> Comparison:
    """Compare two rows of a report.

    Args:
        report: With histograms.
        first: Name of a row, a reference included.
        second: Of another.
        metric: One of `TITLES`.

    Raises:
        UserError: No such row, or the two cannot be compared; says why.
    """
    rows = {row.spec.name: row for row in [*report.references, *report.rows]}
    for field, name in (("A", first), ("B", second)):
        if name not in rows:
            raise UserError(f"the suite {report.suite.name} has no such row", near(name, list(rows)), field=field, value=name, exit_code=2)
    if first == second:
        raise UserError("is compared with itself", "name two rows", field="B", value=second, exit_code=2)
    if metric not in TITLES:
        raise UserError("no such score", near(metric, list(TITLES)), field="--metric", value=metric, exit_code=2)
    known = uncertainty(report)
    difference = known.difference(first, second, metric)
    if isinstance(difference, str):
        raise UserError(difference, f"`zoo-bench status {report.suite.name}` shows the runs; `blocks:` of the suite says what a unit is")
    if math.isnan(difference.blocks.value):
        raise UserError(f"{TITLES[metric]} does not exist for each seed of both", "a run predicted nothing; compare by --metric f1")

    def side(row: Row) -> Side:
        blocks, methods = known.estimate(row.spec.name, metric), known.method_estimate(row.spec.name, metric)
        assert row.tested is not None
        assert blocks is not None
        return Side(
            name=row.spec.name,
            seeds=tuple(NOTHING if seed is None else str(seed) for seed in row.tested.seeds),
            scores=tuple(known.seed_scores(row.spec.name, metric)),
            blocks=blocks.interval(method="bca"),
            methods=(math.nan, math.nan) if methods is None else methods.interval(),
        )

    return Comparison(metric, side(rows[first]), side(rows[second]), difference)


def verdict(found: Comparison) -> str:
    """The answer in one sentence, and in a second one what would change it."""
    difference, score = found.difference, TITLES[found.metric]
    first, second, points = found.first.name, found.second.name, 100 * difference.blocks.value
    base = f"{difference.units} units"
    if difference.folds is not None:
        base = f"{difference.folds.freedom + 1} folds"
    base += f", {len(found.first.scores)} and {len(found.second.scores)} seeds"
    if math.isnan(difference.p_value):
        return (
            f"Whether {first} is better than {second} cannot be told from a single seed: these runs differ by {signed(points, 1)} points of "
            f"{score} (95 % interval over places {_points(difference.blocks.interval(method='bca'))}; {base})."
        )
    sure = f"A − B: 95 % interval {_points(found.method_interval)}, p {_p(difference.p_value)}; {base}"
    if difference.p_value < ALPHA:
        word = "better" if points > 0 else "worse"
        return f"{first} is {word} than {second} by {abs(points):.1f} points of {score} ({sure})."
    sentence = f"It is not shown that {first} and {second} differ: {signed(points, 1)} points of {score} ({sure})."
    low, high = found.method_interval
    if difference.folds is None and (low > 0 or high < 0):
        sentence += " The interval leaves out 0, but with so few seeds p is stricter (Behrens and Fisher), and it decides."
    low, high = difference.blocks.interval(method="bca")
    if low > 0 or high < 0:
        interval = _points((low, high))
        sentence += f" These very runs do differ over places (95 % interval {interval}); with other seeds that may turn."
    return sentence


def comparison_tables(found: Comparison) -> list[tuple[str, list[str], list[list[str]]]]:
    """Title, header and lines: each seed, then intervals."""
    sides, score = (found.first, found.second), TITLES[found.metric]
    seeds = sorted(
        {seed for side in sides for seed in side.seeds}, key=lambda seed: (not seed.isdigit(), int(seed) if seed.isdigit() else 0)
    )
    each = [[side.name, *(number(dict(zip(side.seeds, side.scores, strict=True)).get(seed, math.nan)) for seed in seeds)] for side in sides]
    lines = []
    for side in sides:
        over = spread(side.scores)
        cells = [number(over.mean), number(over.std), number(over.iqm), score_interval(side.blocks), score_interval(side.methods)]
        lines.append([side.name, *cells])
    difference = found.difference
    blocks = interval_cell(difference.blocks.interval(method="bca"), sign=True)
    methods = NOTHING if difference.methods is None else interval_cell(difference.methods.interval(), sign=True)
    lines.append(["A − B", signed(difference.blocks.value), NOTHING, NOTHING, blocks, methods])
    header = ["", score, "std", "IQM", "95 % (blocks)", "95 % (blocks and seeds)"]
    needed = NOTHING if difference.seeds_for_a_point is None else str(difference.seeds_for_a_point)
    facts = [
        ["p, equal methods" + (" (folds, Nadeau-Bengio)" if difference.folds is not None else ""), p_cell(difference.p_value)],
        ["p, these runs over places", p_cell(difference.blocks.p_value())],
        ["seeds of each that a difference of one point would need", needed],
    ]
    return [
        (f"{score} of each seed", ["seed", *seeds], each),
        ("Mean over seeds", header, lines),
        ("How sure", ["", ""], facts),
    ]


def _points(interval: tuple[float, float]) -> str:
    return " to ".join(signed(100 * end, 1) for end in interval)


def _p(value: float) -> str:
    return "< 0.001" if value < 0.001 else f"= {value:.3f}"
