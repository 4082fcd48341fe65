"""REPORT.md, results.csv, and the marked part of a README."""

import dataclasses
import re
from pathlib import Path
from typing import Final

from benchmarks.atomic import write_text
from benchmarks.report.costs import costs_markdown
from benchmarks.report.gains import declared_set, gains_markdown
from benchmarks.report.intervals import intervals_markdown
from benchmarks.report.leaks import leak_warning
from benchmarks.report.objects import objects_markdown
from benchmarks.report.page import page_html
from benchmarks.report.protocol import protocol_markdown
from benchmarks.report.published import load_published, published_markdown
from benchmarks.report.rows import Report
from benchmarks.report.tables import (
    calibration_table,
    failed_table,
    folds_table,
    own_budget_notes,
    references_table,
    results_csv,
    results_table,
    seeds_table,
    to_latex,
    to_markdown,
)
from benchmarks.report.uncertainty import uncertainty
from datamodules.errors import UserError

EXPLANATION: Final = """\
Scores are those of the landslide class on one pooled confusion matrix over all test pixels, at the threshold that validation
chose; mIoU is the mean of the landslide and the background IoU, AP the average precision. ± is the standard deviation over seeds.
Compare a score with the prevalence and the reference rows before believing it.
"""

CALIBRATION_EXPLANATION: Final = """\
All on the test pixels, from their score histograms. *Oracle gap*: IoU that the best threshold on test itself would add. *PA*: pixel
accuracy. *ECE*: expected calibration error of the landslide probability, over 16 groups of equal width, 16 of equal mass, and over the
pixels predicted landslide alone. *Wrong at 0.9*: share of wrong pixels among those with a probability of at least 0.9 or at most 0.1. *T*:
temperature that validation chose. *Tiles*: a tile is landslide if at least 5 % of its valid pixels are, labelled or predicted; F1 is that
of landslide tiles. A slope has no calibration, since it is no probability.
"""


def results_block(report: Report, method: str | None = None) -> str:
    """The tables that a README shows: comparison, references, failures.

    Args:
        report: All rows of a suite.
        method: Show the rows of this method only.
    """
    if method is not None:
        report = dataclasses.replace(report, rows=[row for row in report.rows if row.spec.method == method])
        if not report.rows:
            return f"No records of this method in `{report.suite.name}` yet.\n"
    header, lines = results_table(report)
    parts = [leak_warning(report), to_markdown(header, lines, left=3)]
    parts += [f"[{at}] own budget: {note}.\n" for at, note in enumerate(own_budget_notes(report).values(), start=1)]
    header, lines = references_table(report)
    if lines:
        parts.append(to_markdown(header, lines, left=2))
    header, lines = failed_table(report)
    if lines:
        parts.append(to_markdown(header, lines, left=4))
    return "\n".join(part for part in parts if part)


def report_markdown(report: Report) -> str:
    """The whole report."""
    suite = report.suite
    header, lines = seeds_table(report)
    calibration_header, calibration_lines = calibration_table(report)
    parts = [
        f"# {suite.title or suite.name}\n",
        f"Made by `zoo-bench report {suite.name}` from the records beside this file; do not edit.\n",
        results_block(report),
        EXPLANATION,
        _folds(report),
        *([known] if (known := intervals_markdown(report, uncertainty(report))) else []),
        gains_markdown(report),
        "## Calibration and tiles\n",
        to_markdown(calibration_header, calibration_lines, left=1),
        CALIBRATION_EXPLANATION,
        objects_markdown(report),
        costs_markdown(report),
        "## Each run\n",
        to_markdown(header, lines, left=3),
        "## Protocol and data\n",
        protocol_markdown(report),
        published_markdown(load_published(), declared_set(report)),
    ]
    return "\n".join(part for part in parts if part).rstrip("\n") + "\n"


def _folds(report: Report) -> str:
    header, lines = folds_table(report)
    if not lines:
        return ""
    text = (
        "Scores above are means over folds and seeds, ± their standard deviation; runs of different folds share training data, so it is no"
    )
    return f"## Each fold\n\n{text}\nmeasure of how sure a difference is.\n\n{to_markdown(header, lines, left=2)}"


def write_report(report: Report, folder: Path) -> list[Path]:
    """Write REPORT.md and results.csv.

    Returns:
        Their paths.
    """
    paths = [folder / "REPORT.md", folder / "results.csv"]
    write_text(paths[0], report_markdown(report))
    write_text(paths[1], results_csv(report))
    return paths


def write_extras(report: Report, folder: Path, records: Path) -> list[Path]:
    """Write report.html and results.tex, which no record of the repository needs.

    Args:
        report: From `collect` with the folder of the records.
        folder: Where to write.
        records: Folder of the records.

    Returns:
        Their paths.
    """
    paths = [folder / "report.html", folder / "results.tex"]
    write_text(paths[0], page_html(report, records))
    header, lines = results_table(report)
    write_text(paths[1], to_latex(header, lines, left=3))
    return paths


MARKER: Final = re.compile(r"<!-- results:(?P<suite>[\w-]+)(?:/(?P<method>[\w.]+))? -->")


def marked_suites(text: str) -> list[str]:
    """Suites whose tables a text asks for by markers."""
    return sorted({match["suite"] for match in MARKER.finditer(text)})


def insert_into(text: str, report: Report) -> str:
    """Replace what stands between `<!-- results:SUITE -->` and `<!-- /results:SUITE -->` by the tables of that suite.

    `<!-- results:SUITE/METHOD -->` and its end shows the rows of one method. Markers of other suites are left alone.

    Args:
        text: Of a README.
        report: Of the suite.

    Raises:
        UserError: There are no such markers, or one is not closed.
    """
    suite = report.suite.name
    markers = [match for match in MARKER.finditer(text) if match["suite"] == suite]
    if not markers:
        begin, end = f"<!-- results:{suite} -->", f"<!-- /results:{suite} -->"
        raise UserError("has no markers for the results", f"add the lines `{begin}` and `{end}` where the table belongs")
    for match in markers:
        begin, end = match[0], match[0].replace("results:", "/results:")
        head, _, rest = text.partition(begin)
        _, closed, tail = rest.partition(end)
        if not closed:
            raise UserError("a marker is not closed", f"add the line `{end}`", field="marker", value=begin)
        text = f"{head}{begin}\n{results_block(report, match['method']).rstrip()}\n{end}{tail}"
    return text
