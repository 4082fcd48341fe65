"""The first table of the page, and the gains: numbers beside their seeds and intervals."""

import math
from collections.abc import Sequence
from html import escape

from benchmarks.report.intervals import GAINS_EXPLANATION, gains_table, interval_cell
from benchmarks.report.page.charts import Strip
from benchmarks.report.page.elements import METRIC, drawn_table, key, name_of, paragraph, section
from benchmarks.report.rows import Report, Row
from benchmarks.report.tables import NOTHING, results_table, score_cells, seeds_cell
from benchmarks.report.uncertainty import Uncertainty


def leaderboard(report: Report, known: Uncertainty) -> str:
    """All rows, references last, with their seeds as dots and their intervals as bars."""
    header, lines = results_table(report)
    rows = [*report.rows, *report.references]
    lines = [*lines, *([name_of(row), NOTHING, row.inputs or NOTHING, seeds_cell(row), *score_cells(row)] for row in report.references)]
    seeds = [[record.metrics["test"].get(METRIC, math.nan) for record in row.finished] for row in rows]
    intervals = []
    for row in rows:
        estimate = known.estimate(row.spec.name, METRIC)
        intervals.append((math.nan, math.nan) if estimate is None else estimate.interval(method="bca"))
    ends = [value for values in (*seeds, *intervals) for value in values if not math.isnan(value)]
    if not ends:
        return "<p>No run is finished.</p>"
    strip = Strip(max(min(ends) - 0.02, 0.0), min(max(ends) + 0.02, 1.0))
    # What the table is about comes first: the others may lie beyond the edge of a narrow window.
    place = header.index("IoU")
    others = [at for at in range(1, len(header)) if at != place]
    body = []
    for index, (row, line) in enumerate(zip(rows, lines, strict=True)):
        cells = [f"<td>{escape(line[at])}</td>" if at < len(line) else "<td></td>" for at in others]
        mean = row.score(METRIC).mean
        value = "" if math.isnan(mean) else f"{mean:.6f}"
        first = f'<td data-value="{value}">{strip.svg(index, mean, seeds[index], intervals[index])}</td><td>{escape(line[place])}</td>'
        body.append((escape(line[0]), [first, f"<td>{escape(interval_cell(intervals[index]))}</td>", *cells]))
    shown = [header[0], "seeds and interval", "IoU", "95 % (blocks)", *(header[at] for at in others)]
    return drawn_table(shown, body, indices=range(len(rows)), mark="leaderboard") + paragraph(
        "Dots are seeds, the stroke is their mean, the bar is the 95 % interval over blocks of test ground. Click a column to sort by it."
    )


def toggles(rows: Sequence[Row]) -> str:
    """A box for each row that has something to show."""
    boxes = [
        f'<label><input type="checkbox" checked data-toggles="{index}"> {key(index)} {escape(name_of(row))}</label>'
        for index, row in enumerate(rows)
        if row.finished
    ]
    return f"<fieldset><legend>Shown</legend>{''.join(boxes)}</fieldset>"


def gains(report: Report, known: Uncertainty) -> str:
    """The gains over the baseline that the suite names, with their intervals as bars."""
    header, lines, without = gains_table(report, known)
    if not lines:
        return "".join(paragraph(f"No gain: {reason}.") for reason in without)
    indices = {row.spec.name: index for index, row in enumerate(report.rows)}
    found = [(line, known.difference(line[0], line[1])) for line in lines]
    drawn = [
        (line, item.blocks.value, item.methods.interval() if item.methods else item.blocks.interval(method="bca"))
        for line, item in found
        if not isinstance(item, str)
    ]
    reach = max(0.01, *(abs(end) for _, _, interval in drawn for end in interval if not math.isnan(end))) * 1.1
    strip = Strip(-reach, reach, zero=True)
    body = []
    for line, value, interval in drawn:
        svg = strip.svg(indices[line[0]], value, (), interval)
        cells = [f"<td>{escape(cell)}</td>" for cell in line[1:]]
        body.append((escape(line[0]), [*cells, f'<td data-value="{value:.6f}">{svg}</td>']))
    shown = drawn_table([*header, "gain and interval"], body, indices=[indices[line[0]] for line, *_ in drawn])
    return section(
        "Gains over the baseline", shown, paragraph(GAINS_EXPLANATION), *(paragraph(f"No gain: {reason}.") for reason in without)
    )
