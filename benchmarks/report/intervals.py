"""Uncertainty -> tables: each row by itself, and its gain over the baseline that the suite names."""

import math
from typing import Final

from benchmarks.report.rows import Report
from benchmarks.report.tables import NOTHING, number, to_markdown
from benchmarks.report.uncertainty import Difference, Uncertainty
from benchmarks.statistics import MIN_UNITS, holm, spread
from benchmarks.statistics.bootstrap import NUM_DRAWS

METRIC: Final = "iou_landslide"
OTHERS: Final = {"F1": "f1", "P": "precision", "R": "recall"}

EXPLANATION: Final = """\
Units: {units}, {blocks}.
"Blocks" is what the test places leave open: {draws} draws of units, the same ones for all rows and seeds; each draw pools the counts
of its units and averages over the seeds (BCa interval). It is about the runs that were trained. "Blocks and seeds" adds how far the
mean of so few seeds may lie from that of all seeds (Welch's t; percentile interval), and is about the method. IQM is the mean of
the middle half of the seeds; of fewer than four it is the mean of all.
"""
GAINS_EXPLANATION: Final = """\
A gain is the IoU minus that of the baseline on the same draws. p is two-sided, for equal methods, from the draws of blocks and seeds by the
rule of Behrens and Fisher, which is stricter than the interval so that it keeps its level with few seeds: an interval may leave out 0
where p is above 0.05, and then the gain is not shown. Where there are folds, p is that of the corrected t test of Nadeau and Bengio. It is
then corrected by Holm for all rows of this table; from a single seed nothing follows for a method. The last column is the number of seeds
of each row with which a t test finds a true difference of one point of IoU (power 0.8, alpha 0.05).
"""


def signed(value: float, digits: int = 3) -> str:
    """With its sign, in the field's typography."""
    return NOTHING if math.isnan(value) else f"{value:+.{digits}f}".replace("-", "−")


def interval_cell(interval: tuple[float, float], *, sign: bool = False) -> str:
    """Two ends; a dash where one does not exist."""
    if any(math.isnan(end) for end in interval):
        return NOTHING
    return " to ".join(signed(end) if sign else number(end) for end in interval)


def score_interval(interval: tuple[float, float]) -> str:
    """Of a score, which cannot leave [0, 1]."""
    return interval_cell((max(interval[0], 0.0), min(interval[1], 1.0)))  # in this order NaN stays NaN


def p_cell(value: float) -> str:
    """Three digits; what is smaller says so."""
    return NOTHING if math.isnan(value) else "< 0.001" if value < 0.001 else f"{value:.3f}"


def intervals_table(report: Report, known: Uncertainty) -> tuple[list[str], list[list[str]]]:
    """Header and lines: seeds and intervals of each row."""
    lines = []
    for row in [*report.references, *report.rows]:
        estimates = {metric: known.estimate(row.spec.name, metric) for metric in (METRIC, *OTHERS.values())}
        if row.tested is None:
            continue
        method = known.method_estimate(row.spec.name, METRIC)
        over_seeds = spread(known.seed_scores(row.spec.name, METRIC))
        blocks = [NOTHING if item is None else score_interval(item.interval(method="bca")) for item in estimates.values()]
        lines.append(
            [
                row.spec.name.replace("_", " ") if row.spec.is_reference else row.spec.name,
                NOTHING if row.spec.is_reference else str(over_seeds.num),
                number(over_seeds.mean),
                number(over_seeds.std),
                number(over_seeds.iqm),
                blocks[0],
                NOTHING if method is None else score_interval(method.interval()),
                *blocks[1:],
            ]
        )
    blocked = [f"{name} 95 % (blocks)" for name in OTHERS]
    return ["name", "seeds", "IoU", "std", "IQM", "IoU 95 % (blocks)", "IoU 95 % (blocks and seeds)", *blocked], lines


def gains_table(report: Report, known: Uncertainty) -> tuple[list[str], list[list[str]], list[str]]:
    """Header, lines, and in words which gains there are none of and why."""
    pairs = report.suite.baselines()
    rows = {row.spec.name: row for row in report.rows}
    found: dict[str, Difference] = {}
    without = []
    for name, baseline in pairs.items():
        if name in rows and baseline in rows and rows[name].finished:
            difference = known.difference(name, baseline)
            if isinstance(difference, str):
                without.append(difference)
            else:
                found[name] = difference
    corrected = holm([difference.p_value for difference in found.values()])
    lines = [
        [
            name,
            pairs[name],
            signed(difference.blocks.value),
            interval_cell(difference.blocks.interval(method="bca"), sign=True),
            NOTHING if difference.methods is None else interval_cell(difference.methods.interval(), sign=True),
            p_cell(difference.p_value),
            p_cell(p_holm),
            NOTHING if difference.seeds_for_a_point is None else str(difference.seeds_for_a_point),
        ]
        for (name, difference), p_holm in zip(found.items(), corrected, strict=True)
    ]
    header = ["name", "baseline", "gain in IoU", "95 % (blocks)", "95 % (blocks and seeds)", "p", "p (Holm)", "seeds for 0.01"]
    return header, lines, without


def intervals_markdown(report: Report, known: Uncertainty) -> str:
    """The part of a report that says how sure it is; empty where no run was tested."""
    header, lines = intervals_table(report, known)
    if not lines:
        return ""
    parts = ["## How sure the scores are\n", to_markdown(header, lines, left=1)]
    sizes = sorted({row.tested.counts.shape[1] for row in [*report.references, *report.rows] if row.tested is not None})
    parts.append(EXPLANATION.format(draws=f"{NUM_DRAWS:,}", units=", ".join(map(str, sizes)), blocks=report.suite.blocks.describe()))
    if sizes[0] < MIN_UNITS:
        parts.append(f"Fewer than {MIN_UNITS} units tell nothing of other places, and give no interval.\n")
    header, lines, without = gains_table(report, known)
    if lines:
        parts += ["**Gains over the baseline**\n", to_markdown(header, lines, left=2), GAINS_EXPLANATION]
    parts += [f"No gain: {reason}.\n" for reason in without]
    return "\n".join(parts)
