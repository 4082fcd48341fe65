"""What training and prediction cost, for records that know more than the first table shows."""

from typing import Final

from benchmarks.report.rows import Report
from benchmarks.report.tables import number, quantity, to_markdown

EXPLANATION: Final = """\
*Parameters* are those of the network that is deployed, *in training* those that the optimiser moves, heads of a method included. *GFLOP*:
operations of the deployed network on one tile of the data set, twice the multiplications of its convolutions. *km2/h*: reading, predicting
and blending the test scenes at their pixel size, on the machine named below. *Wh in training*: what the GPUs of a run drew while it
trained, by NVML's own counter, others on the same GPU included; a dash where nothing measures it.
"""

_COLUMNS: Final = {
    "parameters": "parameters",
    "in training": "parameters_training",
    "GFLOP a tile": "tile_gflop",
    "samples/s in training": "samples_per_second",
    "Wh in training": "train_watt_hours",
    "km2/h": "predict_km2_per_hour",
}
_DIGITS: Final = {"tile_gflop": 3, "samples_per_second": 2, "train_watt_hours": 2}


def costs_table(report: Report) -> tuple[list[str], list[list[str]]]:
    """Header and lines; no lines where no record knows the cost of prediction."""
    lines, rows = [], [row for row in report.rows if row.finished]
    if any("tile_gflop" in record.cost for row in rows for record in row.finished):
        for row in rows:
            means = {cost: row.cost(cost).mean for cost in _COLUMNS.values()}
            cells = (number(mean, _DIGITS[cost]) if cost in _DIGITS else quantity(mean) for cost, mean in means.items())
            lines.append([row.spec.name, *cells])
    return ["name", *_COLUMNS], lines


def costs_markdown(report: Report) -> str:
    """The section of a report; empty where no record knows the cost of prediction."""
    header, lines = costs_table(report)
    return "\n".join(["## Cost\n", to_markdown(header, lines, left=1), EXPLANATION]) if lines else ""
