"""What a method gains over its own baseline, and how that compares with what its paper states.

Seeds are the unit: with folds, the folds of a seed are averaged first, and a seed that lacks one takes no part. An interval is that of
Student's t for the mean over seeds, 95 %; it says what another seed would change, not what other ground would.
"""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from benchmarks.report.published import Group, Value, load_published
from benchmarks.report.rows import Report, Row, fold_and_seed
from benchmarks.report.tables import NOTHING, number, to_markdown

SCORES: Final = {"P": "precision", "R": "recall", "F1": "f1", "IoU": "iou_landslide", "mIoU": "miou"}
"""Column -> score that gains are told of."""
SIDE_BY_SIDE: Final = ["paper", "measured row", "score", "published", "measured", "seeds", "difference"]


@dataclass(frozen=True)
class Estimate:
    """A mean over seeds and half the width of its interval, NaN for fewer than two seeds."""

    mean: float
    half_width: float
    seeds: int


def estimate(values: Sequence[float]) -> Estimate:
    """Mean and 95 % interval of Student's t.

    Args:
        values: One a seed.

    Example:
        >>> estimate([0.5, 0.6, 0.7])
        Estimate(mean=0.6, half_width=0.24841377118377852, seeds=3)
    """
    if not values or any(math.isnan(value) for value in values):
        return Estimate(math.nan, math.nan, len(values))
    mean, count = statistics.fmean(values), len(values)
    if count < 2:
        return Estimate(mean, math.nan, count)
    from scipy.special import stdtrit  # noqa: PLC0415 - reports without baselines do without it

    return Estimate(mean, float(stdtrit(count - 1, 0.975)) * statistics.stdev(values) / math.sqrt(count), count)


def by_seed(row: Row, name: str) -> dict[int | None, float]:
    """A score of each seed that has all of its folds, averaged over them."""
    folds = {fold for fold, _ in row.planned}
    found: dict[int | None, dict[int | None, float]] = {}
    for record in row.finished:
        fold, seed = fold_and_seed(record)
        found.setdefault(seed, {})[fold] = record.metrics["test"].get(name, math.nan)
    return {seed: statistics.fmean(values.values()) for seed, values in found.items() if values.keys() >= folds}


def gain(row: Row, baseline: Row, name: str) -> Estimate:
    """Difference of a score to the baseline, seed by seed."""
    mine, theirs = by_seed(row, name), by_seed(baseline, name)
    return estimate([mine[seed] - theirs[seed] for seed in mine if seed in theirs])


def gains_table(report: Report) -> tuple[list[str], list[list[str]]]:
    """Header and lines of the gains over the own baselines, of rows that have a seed with theirs; no lines where the suite names none."""
    rows, baselines = {row.spec.name: row for row in report.rows}, report.suite.baselines()
    lines = []
    for name, baseline in baselines.items():
        gains = [gain(rows[name], rows[baseline], score) for score in SCORES.values()]
        if max(one.seeds for one in gains):
            lines.append([name, baseline, str(min(one.seeds for one in gains)), *(_signed(one) for one in gains)])
    return ["name", "own baseline", "seeds", *SCORES], lines


def declared_set(report: Report) -> str | None:
    """Test set of the papers that the suite, or else each of its records, declares the data to be."""
    if report.suite.data.published_set is not None:
        return report.suite.data.published_set
    declared = {record.spec.get("published_set") for record in report.records}
    return declared.pop() if len(declared) == 1 else None


def declared_group(report: Report) -> Group | None:
    """Published rows of the test set that the data were declared to be."""
    declared = declared_set(report)
    return next((group for group in load_published().groups if group.set and group.set == declared), None)


def side_by_side_table(report: Report, group: Group) -> tuple[list[str], list[list[str]]]:
    """Header and lines: published, measured, difference."""
    lines = _side_by_side(report, group)
    return SIDE_BY_SIDE, [[f"{cell.strip('*')} (derived)" if cell.startswith("*") else cell for cell in line] for line in lines]


def gains_markdown(report: Report) -> str:
    """Gains over the own baseline; where the data are declared to be a test set of the papers, published numbers beside measured ones."""
    header, lines = gains_table(report)
    parts = []
    if lines:
        parts += [
            "## Gains in each score over the same baseline\n",
            "Mean difference of the same seeds and its 95 % interval over seeds (Student's t).\n",
        ]
        parts.append(to_markdown(header, lines, left=2))
    group = declared_group(report)
    if group is not None:
        parts += [
            "## Published and measured\n",
            f"The data were declared to be `{group.set}`, the {group.title}. Measured: mean over seeds; difference: measured - published, with the",
            "95 % interval of the measured mean over seeds (Student's t). No interval of the published number is known. *Italic*: derived from",
            "stated numbers, not published.\n",
            to_markdown(SIDE_BY_SIDE, _side_by_side(report, group), left=3),
        ]
        pairs = _published_gains(report, group)
        if pairs:
            parts += ["Gain over the baseline, as published and as measured against the own baseline:\n"]
            parts.append(to_markdown(["paper", "measured row", "score", "published gain", "measured gain"], pairs, left=3))
    return "\n".join(parts) + ("\n" if parts else "")


def _side_by_side(report: Report, group: Group) -> list[list[str]]:
    lines = []
    for published in group.rows:
        for row in _rows_of(report, published.ours):
            for column, name in _columns(published.values):
                value, measured = published.values[name], estimate(list(by_seed(row, name).values()))
                difference = Estimate(measured.mean - value.number, measured.half_width, measured.seeds)
                cells = [_stated(value), number(measured.mean), str(measured.seeds), _signed(difference)]
                lines.append([published.method, row.spec.name, column, *cells])
    return lines


def _published_gains(report: Report, group: Group) -> list[list[str]]:
    """The first row of a group is the baseline of the others."""
    first, *others = group.rows
    rows, baselines = {row.spec.name: row for row in report.rows}, report.suite.baselines()
    lines = []
    for published in others:
        for row in _rows_of(report, published.ours):
            baseline = rows.get(baselines.get(row.spec.name, ""))
            for column, name in _columns(published.values):
                if name in first.values and baseline is not None:
                    stated = published.values[name].number - first.values[name].number
                    lines.append([published.method, row.spec.name, column, f"{stated:+.3f}", _signed(gain(row, baseline, name))])
    return lines


def _rows_of(report: Report, method: str) -> list[Row]:
    """Our rows of a method; of a baseline's, those that other rows name as their baseline for a method of the same group."""
    rows = [row for row in report.rows if row.spec.method == method]
    named = set(report.suite.baselines().values())
    return [row for row in rows if row.spec.name in named] or rows if method == "deeplab" else rows


def _columns(values: Mapping[str, Value]) -> list[tuple[str, str]]:
    return [(column, name) for column, name in SCORES.items() if name in values]


def _stated(value: Value) -> str:
    text = value.text.replace("~", "≈ ")
    return text if value.mark == "stated" else f"*{text}*"


def _signed(one: Estimate) -> str:
    if math.isnan(one.mean):
        return NOTHING
    interval = "" if math.isnan(one.half_width) else f" [{one.mean - one.half_width:+.3f}, {one.mean + one.half_width:+.3f}]"
    return f"{one.mean:+.3f}{interval}"
