"""report.html: one self-contained page that opens offline, with sortable tables and charts whose rows can be shown and hidden.

Charts are drawn here as SVG; the script of the page sorts, hides and tells, and nothing is fetched. Without it the page reads as well.

elements.py     tables, figures, headings as HTML
leaderboard.py  the first table, gains over the baseline
charts.py       axes, lines, dots
curves.py       precision and recall, reliability, cost, recall by size
waterfall.py    what each part of a method contributes
tiles.py        the same tiles for all methods; png.py writes their pictures
runs.py         scenes, single runs, failures, environments
"""

from collections.abc import Sequence
from html import escape
from importlib.resources import files
from pathlib import Path

import numpy as np

from benchmarks.record import load_histograms
from benchmarks.report.costs import EXPLANATION as COSTS_EXPLANATION
from benchmarks.report.costs import costs_table
from benchmarks.report.gains import declared_group, side_by_side_table
from benchmarks.report.intervals import intervals_table
from benchmarks.report.leaks import leaks_told
from benchmarks.report.objects import EXPLANATION as OBJECTS_EXPLANATION
from benchmarks.report.objects import areas_table, objects_table
from benchmarks.report.page.curves import curves
from benchmarks.report.page.elements import NUM_BINS, folded, name_of, paragraph, prose, section, table
from benchmarks.report.page.leaderboard import gains, leaderboard, toggles
from benchmarks.report.page.runs import environments, failures, scenes, seeds
from benchmarks.report.page.tiles import tiles_section
from benchmarks.report.page.waterfall import waterfalls
from benchmarks.report.protocol import protocol_markdown
from benchmarks.report.published import Value, load_published
from benchmarks.report.rows import Report
from benchmarks.report.tables import NOTHING, calibration_table, folds_table, own_budget_notes
from benchmarks.report.uncertainty import Uncertainty, uncertainty


def page_html(report: Report, folder: Path) -> str:
    """The page as text, the same bytes for the same records.

    Args:
        report: With intervals, from `collect` with a folder.
        folder: `RESULTS/records`, which holds the histograms.
    """
    rows = [*report.rows, *report.references]
    tested = [[load_histograms(folder / f"{record.key}.npz")["test"] for record in row.finished] for row in rows]
    empty = np.zeros((2, NUM_BINS), np.int64)
    pooled = [sum((sum(run.values(), empty) for run in runs), empty) for runs in tested]
    title = report.suite.title or report.suite.name
    known, (loud, found) = uncertainty(report), leaks_told(report)
    parts = [
        f"<h1>{escape(title)}</h1>",
        f'<p class="warning"><b>{escape(loud)}</b> {escape(found)}</p>' if loud else "",
        f"<p>Suite <code>{escape(report.suite.name)}</code>. Scores of the landslide class on all test pixels, at the threshold that validation chose; ± over seeds.</p>",
        paragraph(f"{len(report.failed)} run(s) failed; see below." if report.failed else ""),
        leaderboard(report, known),
        *(paragraph(f"[{at}] own budget: {note}.") for at, note in enumerate(own_budget_notes(report).values(), start=1)),
        toggles(rows),
        curves(report, rows, pooled),
        gains(report, known),
        waterfalls(report, known),
        tiles_section(report, rows, folder),
        _tables(report, known),
        scenes(rows, tested),
        seeds(report),
        failures(report),
        section("Protocol and data", f"<pre>{escape(protocol_markdown(report))}</pre>"),
        environments(report),
        _published(report),
    ]
    read = files(__package__).joinpath
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<meta name="viewport" content="width=device-width">\n'
        f"<title>{escape(title)}</title>\n<style>\n{read('style.css').read_text(encoding='utf-8')}</style>\n</head>\n<body>\n<main>\n"
        + "\n".join(part for part in parts if part)
        + f"\n</main>\n<script>\n{read('script.js').read_text(encoding='utf-8')}</script>\n</body>\n</html>\n"
    )


def _tables(report: Report, known: Uncertainty) -> str:
    """Further tables of all rows; the rows of the first ones can be hidden."""
    rows = [*report.rows, *report.references]
    places = {row.spec.name: index for index, row in enumerate(rows)}

    def of_rows(header: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
        """What no row knows is left out: records of several ages may stand in one suite."""
        columns = [at for at, name in enumerate(header) if name in {"name", "seeds"} or any(line[at] != NOTHING for line in lines)]
        if all(header[at] in {"name", "seeds"} for at in columns):
            return ""
        indices = [places[line[0]] for line in lines]
        named = [[name_of(rows[index]), *(line[at] for at in columns[1:])] for index, line in zip(indices, lines, strict=True)]
        return table([header[at] for at in columns], named, indices=indices)

    header, lines = intervals_table(report, known)
    title, areas_header, areas = areas_table(report)
    of_objects, of_areas, of_costs = of_rows(*objects_table(report)), of_rows(areas_header, areas), of_rows(*costs_table(report))
    folds_header, of_folds = folds_table(report)
    return "".join(
        (
            section("How sure the scores are", table(header, lines)) if lines else "",
            section("Each fold", table(folds_header, of_folds)) if of_folds else "",
            section("Calibration and tiles", of_rows(*calibration_table(report))),
            section(
                "Outlines and objects",
                of_objects,
                prose(title) + of_areas if of_areas else "",
                prose(OBJECTS_EXPLANATION) if of_objects or of_areas else "",
            ),
            section("Cost", of_costs, prose(COSTS_EXPLANATION) if of_costs else ""),
        )
    )


def _published(report: Report) -> str:
    """The papers' numbers: beside measured ones where the data are declared to be theirs, else apart."""
    published, declared = load_published(), declared_group(report)
    beside = ""
    if declared is not None:
        told = f"The data were declared to be {declared.set}, the {declared.title}. Measured: mean over seeds. Difference: measured - published."
        beside = section("Published and measured", paragraph(told), table(*side_by_side_table(report, declared)))
    parts = []
    for group in published.groups:
        columns = [name for name in published.columns if any(name in row.values for row in group.rows)]
        lines = [[row.method, *(_stated(row.values.get(name)) for name in columns), ", ".join(row.sources)] for row in group.rows]
        listed = table(["method", *(published.columns[name] for name in columns), "source"], lines, kind="published")
        parts.append(f"<h3>Group {escape(group.id)}: {escape(group.title)}</h3>{listed}")
    return beside + section("Published numbers: other data; not comparable", folded("Published numbers", "".join(parts)))


def _stated(value: Value | None) -> str:
    """As it is printed; what was not read in a source says so."""
    return NOTHING if value is None else value.text.replace("~", "≈ ") + ("" if value.mark == "stated" else f" ({value.mark})")
