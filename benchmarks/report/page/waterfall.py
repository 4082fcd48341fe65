"""What each switch of a method takes away or adds, as bars that hang from the whole method, the largest loss first."""

import math
from html import escape
from typing import Final

from benchmarks.report.ablation import Ablation, Switch, ablations
from benchmarks.report.intervals import interval_cell, signed
from benchmarks.report.page.charts import number, ticks
from benchmarks.report.page.elements import METRIC, figure, paragraph, section, table
from benchmarks.report.rows import Report
from benchmarks.report.tables import NOTHING
from benchmarks.report.tables import number as score_number
from benchmarks.report.uncertainty import Uncertainty

_WIDTH: Final = 760
_LEFT, _RIGHT = 12, 748
_STEP: Final = 40
_TOP: Final = 30
EXPLANATION: Final = (
    "Each row is the whole method with what its name says changed. Bar: IoU that the change takes away (left) or adds (right), mean over "
    "seeds; line: its 95 % interval, over blocks of ground and seeds where there are several seeds, else over blocks alone. An interval "
    "that holds 0 does not show that the part matters. Differences do not add up: parts may stand in for one another. Shown where two rows "
    "or more name a baseline of their own method."
)


def waterfalls(report: Report, known: Uncertainty) -> str:
    """A section for the ablations of a suite; empty where it has none."""
    return section("What each part contributes", *(_waterfall(item) for item in ablations(report, known)))


def _waterfall(ablation: Ablation) -> str:
    shown = sorted((switch for switch in ablation.switches if _known(switch)), key=_value)
    lines = [
        [switch.name, "; ".join(switch.changed), signed(_value(switch)), interval_cell(_interval(switch), sign=True)]
        if _known(switch)
        else [switch.name, "; ".join(switch.changed), NOTHING, NOTHING]
        for switch in ablation.switches
    ]
    whole, score = ablation.whole.spec.name, ablation.whole.score(METRIC).mean
    svg = _svg(shown, f"{whole}: IoU {score_number(score)}") if shown else ""
    return (
        figure(svg, EXPLANATION)
        + paragraph("" if shown else f"No row can be compared with {whole} yet.")
        + table(["row", "changed", "in IoU", "95 %"], lines, indices=[switch.row for switch in ablation.switches])
    )


def _known(switch: Switch) -> bool:
    return switch.difference is not None and not math.isnan(switch.difference.blocks.value)


def _value(switch: Switch) -> float:
    assert switch.difference is not None
    return switch.difference.blocks.value


def _interval(switch: Switch) -> tuple[float, float]:
    assert switch.difference is not None
    methods = switch.difference.methods
    return switch.difference.blocks.interval(method="bca") if methods is None else methods.interval()


def _svg(switches: list[Switch], whole: str) -> str:
    ends = [0.0, *(end for switch in switches for end in (_value(switch), *_interval(switch)) if not math.isnan(end))]
    margin = 0.06 * max(max(ends) - min(ends), 0.02)
    low, high = min(ends) - margin, max(ends) + margin

    def x(value: float) -> float:
        return _LEFT + (value - low) / (high - low) * (_RIGHT - _LEFT)

    bottom = _TOP + _STEP * len(switches) + 6
    parts = [f'<svg class="plot" viewBox="0 0 {_WIDTH} {bottom + 40}" role="img" tabindex="0" aria-label="Ablation of {escape(whole)}">']
    for tick in ticks(low, high):
        at = f"{x(tick):.1f}"
        parts.append(f'<line class="grid" x1="{at}" x2="{at}" y1="{_TOP}" y2="{bottom}"/>')
        parts.append(f'<text x="{at}" y="{bottom + 16}" text-anchor="middle">{"+" if tick > 0 else ""}{number(tick)}</text>')
    parts.append(f'<text x="{(_LEFT + _RIGHT) / 2}" y="{bottom + 34}" text-anchor="middle">difference in IoU</text>')
    zero = x(0.0)
    parts.append(f'<line class="mean" x1="{zero:.1f}" x2="{zero:.1f}" y1="{_TOP - 8}" y2="{bottom}"/>')
    side = "end" if zero > _WIDTH / 2 else "start"
    parts.append(f'<text class="strong" x="{zero:.1f}" y="{_TOP - 14}" text-anchor="{side}">{escape(whole)}</text>')
    for index, switch in enumerate(switches):
        value, (first, last) = _value(switch), _interval(switch)
        y = _TOP + _STEP * index + 30
        words = f"{switch.name}: {signed(value)} ({interval_cell((first, last), sign=True)})"
        left, width = min(zero, x(value)), max(abs(x(value) - zero), 1.0)
        of_row = f'data-row="{switch.row}"'
        parts.append(f'<text class="strong" {of_row} x="{_LEFT}" y="{y - 9}">{escape(words)}</text>')
        kind = "c1" if value < 0 else "c0"
        told = f'{of_row} data-told="{escape(words)}" tabindex="-1"'
        parts.append(f'<rect class="bar {kind}" {told} x="{left:.1f}" y="{y - 5}" width="{width:.1f}" height="11"/>')
        if not math.isnan(first + last):
            parts.append(f'<line class="series {kind}" {of_row} x1="{x(first):.1f}" x2="{x(last):.1f}" y1="{y + 0.5}" y2="{y + 0.5}"/>')
    return "\n".join([*parts, "</svg>"])
