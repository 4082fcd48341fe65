"""Reports: pure functions of a suite and its records, byte for byte the same wherever they are made.

rows.py               records -> rows (one a method and setting, all seeds of it together)
derived.py            histograms beside the records -> calibration, tiles
tables.py             rows -> cells -> Markdown, CSV, the terminal
uncertainty.py        rows -> bootstrap of all rows, differences to a baseline
intervals.py          uncertainty -> tables
comparing.py          is A better than B: a sentence and tables
comparison_figure.py  the same as an SVG
gains.py              gains over the own baseline; published beside measured where the data are declared to be the papers'
published.py          the papers' own numbers, in tables of their own
objects.py, costs.py  outlines and objects of whole scenes; cost
ablation.py           what each switch of a method does
protocol.py           budget, data, code, machine
leaks.py              the warning above a report on splits that leak
page/                 report.html
writing.py            REPORT.md, results.csv, results.tex, the marked part of a README
"""

from benchmarks.report.leaks import leak_warning
from benchmarks.report.rows import Report, Row, collect
from benchmarks.report.writing import insert_into, marked_suites, report_markdown, results_block, write_extras, write_report

__all__ = [
    "Report",
    "Row",
    "collect",
    "insert_into",
    "leak_warning",
    "marked_suites",
    "report_markdown",
    "results_block",
    "write_extras",
    "write_report",
]
