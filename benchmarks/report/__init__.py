"""Reports: pure functions of a suite and its records, byte for byte the same wherever they are made.

rows.py       records -> rows (one a method and setting, all seeds of it together)
derived.py    histograms beside the records -> calibration, tiles
tables.py     rows -> cells -> Markdown, CSV, the terminal
gains.py      gains over the own baseline; published beside measured where the data are declared to be the papers'
published.py  the papers' own numbers, in tables of their own
writing.py    REPORT.md, results.csv, the marked part of a README
"""

from benchmarks.report.derived import derive
from benchmarks.report.rows import Report, Row, collect
from benchmarks.report.writing import insert_into, leak_warning, marked_suites, report_markdown, results_block, write_report

__all__ = [
    "Report",
    "Row",
    "collect",
    "derive",
    "insert_into",
    "leak_warning",
    "marked_suites",
    "report_markdown",
    "results_block",
    "write_report",
]
