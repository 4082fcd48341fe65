"""Rows -> cells -> Markdown, CSV, the terminal."""

import csv
import dataclasses
import io
import math
from collections.abc import Sequence
from typing import Any, Final

from rich.markup import escape
from rich.table import Table

from benchmarks.record import RunRecord
from benchmarks.report.rows import Report, Row, fold_and_seed
from benchmarks.statistics import Spread

SCORES: Final = {
    "prevalence": "prevalence",
    "P": "precision",
    "R": "recall",
    "F1": "f1",
    "IoU": "iou_landslide",
    "mIoU": "miou",
    "AP": "ap",
}
"""Column -> score; P, R, F1, IoU and AP are those of the landslide class."""
CALIBRATION: Final = {
    "oracle gap": "oracle_gap",
    "PA": "pixel_accuracy",
    "MCC": "mcc",
    "Brier": "brier",
    "ECE, 16 widths": "ece_width16",
    "ECE, 16 masses": "ece_mass16",
    "ECE, predicted": "ece_predicted",
    "wrong at 0.9": "error_confident_0.9",
    "T": "temperature",
    "ECE, 16 widths, at T": "ece_width16_scaled",
    "Brier at T": "brier_scaled",
    "tile F1": "tile_share_f1",
    "tile accuracy": "tile_share_accuracy",
    "landslide tiles": "tile_share_prevalence",
}
"""Column -> score of the second table."""
COSTS: Final = {"parameters": "parameters", "train s": "train_seconds", "total s": "seconds", "peak MB": "peak_memory_mb"}
NOTHING: Final = "–"


def number(value: float, digits: int = 3) -> str:
    """A fixed number of digits; a dash for a score that does not exist."""
    return NOTHING if math.isnan(value) else f"{value:.{digits}f}"


def quantity(value: float) -> str:
    """A count or cost without decimals; 3.4 M for millions."""
    if math.isnan(value):
        return NOTHING
    return f"{value / 1e6:.1f} M" if value >= 1e6 else f"{value:.0f}"


def with_spread(values: Spread) -> str:
    """Mean ± standard deviation over seeds; the mean alone for one run."""
    return number(values.mean) if math.isnan(values.std) else f"{number(values.mean)} ± {number(values.std)}"


def seeds_cell(row: Row) -> str:
    """How many runs, one a fold and seed, stand behind a row, and what is missing."""
    done, wanted = len(row.finished), len(row.planned)
    text = str(done) if done >= wanted else f"{done} of {wanted}"
    return f"{text}, {len(row.failed)} failed" if row.failed else text


def score_cells(row: Row) -> list[str]:
    """Test scores of a row; the prevalence is that of the pixels and has no spread."""
    return [number(row.score(name).mean) if name == "prevalence" else with_spread(row.score(name)) for name in SCORES.values()]


def results_table(report: Report) -> tuple[list[str], list[list[str]]]:
    """Header and lines of the comparison."""
    lines = [
        [
            row.spec.name + own_budget_mark(report, row),
            row.spec.method,
            row.inputs or NOTHING,
            seeds_cell(row),
            *score_cells(row),
            *(quantity(row.cost(name).mean) for name in COSTS.values()),
        ]
        for row in report.rows
    ]
    return ["name", "method", "inputs", "seeds" if report.suite.data.folds is None else "folds x seeds", *SCORES, *COSTS], lines


def own_budget_mark(report: Report, row: Row) -> str:
    """` [1]` where a row has another budget than the suite's, by the number of its note; empty otherwise."""
    notes = own_budget_notes(report)
    return f" [{list(notes).index(row.spec.name) + 1}]" if row.spec.name in notes else ""


def own_budget_notes(report: Report) -> dict[str, str]:
    """Name of each row with another budget than the suite's -> what is other."""
    usual, notes = dataclasses.asdict(report.suite.budget), {}
    for row in report.rows:
        own = {name: value for name, value in (row.spec.budget or {}).items() if value != usual[name]}
        if own:
            notes[row.spec.name] = ", ".join(f"{name} {value} instead of {usual[name]}" for name, value in own.items())
    return notes


def references_table(report: Report) -> tuple[list[str], list[list[str]]]:
    """Header and lines of the rows that train nothing."""
    lines = []
    for row in report.references:
        degrees = row.score("threshold_deg").mean if row.finished else math.nan
        rule = "" if math.isnan(degrees) else f" (> {degrees:.1f}°)"
        lines.append([row.spec.name.replace("_", " ") + rule, row.inputs or NOTHING, *score_cells(row)])
    return ["reference", "inputs", *SCORES], lines


def calibration_table(report: Report) -> tuple[list[str], list[list[str]]]:
    """Header and lines of calibration and tile classification, references last."""
    lines = []
    for row in report.measured:
        cells = [
            number(row.score(name).mean) if name == "tile_share_prevalence" else with_spread(row.score(name))
            for name in CALIBRATION.values()
        ]
        lines.append([row.spec.name, seeds_cell(row), *cells])
    return ["name", "seeds", *CALIBRATION], lines


def seeds_table(report: Report) -> tuple[list[str], list[list[str]]]:
    """Header and lines of the single runs, missing and failed ones included."""
    lines = []
    for row in report.rows:
        runs = [(*fold_and_seed(record), _run_cells(record)) for record in row.finished]
        runs += [(*fold_and_seed(record), ["failed", *[NOTHING] * (len(SCORES) + 1), record.key]) for record in row.failed]
        runs += [(*planned, ["not run", *[NOTHING] * (len(SCORES) + 2)]) for planned in row.missing]
        for fold, seed, cells in sorted(runs, key=lambda run: (run[0] or 0, run[1] or 0)):
            lines.append([row.spec.name, *([] if fold is None else [str(fold)]), str(seed), *cells])
    return ["name", *([] if report.suite.data.folds is None else ["fold"]), "seed", "status", "threshold", *SCORES, "key"], lines


def folds_table(report: Report) -> tuple[list[str], list[list[str]]]:
    """Header and lines of the folds, each with the mean and spread over its seeds; no lines without folds."""
    lines = []
    for row in [*report.references, *report.rows]:
        for fold in sorted({record.spec["fold"] for record in row.finished if record.spec.get("fold") is not None}):
            part = dataclasses.replace(row, finished=[record for record in row.finished if record.spec["fold"] == fold])
            lines.append([row.spec.name, str(fold), str(len(part.finished)), *score_cells(part)])
    return ["name", "fold", "seeds", *SCORES], lines


def _run_cells(record: RunRecord) -> list[str]:
    scores = record.metrics["test"]
    return ["finished", number(scores["threshold"]), *(number(scores[name]) for name in SCORES.values()), record.key]


def failed_table(report: Report) -> tuple[list[str], list[list[str]]]:
    """Header and lines of the runs that failed."""
    lines = []
    for row, record in report.failed:
        error: dict[str, Any] = record.error or {}
        fold, number = fold_and_seed(record)
        seed = NOTHING if number is None else str(number)
        lines.append(
            [
                row.spec.name,
                seed if fold is None else f"{seed} (fold {fold})",
                f"{error.get('line', '')} ({error.get('reason', '')})",
                str(error.get("log", "")),
            ]
        )
    return ["failed run", "seed", "last error", "log"], lines


def to_markdown(header: Sequence[str], lines: Sequence[Sequence[str]], *, left: int) -> str:
    """A Markdown table whose columns from number `left` on are numbers."""

    def cells(values: Sequence[str]) -> str:
        # A name or an error is data: it must not add columns or markup.
        return "| " + " | ".join(" ".join(value.split()).replace("|", "\\|").replace("<", "&lt;") for value in values) + " |"

    rule = "|" + "|".join("---" if index < left else "---:" for index in range(len(header))) + "|"
    return "\n".join([cells(header), rule, *map(cells, lines)]) + "\n"


def to_latex(header: Sequence[str], lines: Sequence[Sequence[str]], *, left: int) -> str:
    """A LaTeX table (package booktabs) whose columns from number `left` on are numbers."""
    # A backslash first: the escapes of the others bring their own.
    escapes = {
        "\\": r"\textbackslash{}",
        **{sign: f"\\{sign}" for sign in "&%$#_{}"},
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
    }
    escapes |= {"±": r"$\pm$", "−": "$-$", "–": "--", "<": "$<$", ">": "$>$"}

    def cells(values: Sequence[str]) -> str:
        return " & ".join("".join(escapes.get(sign, sign) for sign in value) for value in values) + r" \\"

    columns = "l" * left + "r" * (len(header) - left)
    body = [
        r"\begin{tabular}{" + columns + "}",
        r"\toprule",
        cells(header),
        r"\midrule",
        *map(cells, lines),
        r"\bottomrule",
        r"\end{tabular}",
    ]
    return "\n".join(body) + "\n"


def to_terminal(title: str, header: Sequence[str], lines: Sequence[Sequence[str]], *, left: int) -> Table:
    """The same table for rich."""
    table = Table(title=title, title_justify="left", box=None, pad_edge=False, header_style="bold")
    for index, name in enumerate(header):
        table.add_column(name, justify="left" if index < left else "right", no_wrap=index >= left)
    for line in lines:
        table.add_row(*map(escape, line))
    return table


def results_csv(report: Report) -> str:
    """Every run with all its scores and costs, one a line; an empty cell is a value that does not exist."""
    rows = [(row, record) for row in [*report.references, *report.rows] for record in [*row.finished, *row.failed]]
    scores = sorted({(split, name) for row, record in rows for split in record.metrics for name in row.scores_of(record, split)})
    costs = sorted({name for _, record in rows for name in record.cost})
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    folds = [] if report.suite.data.folds is None else ["fold"]
    head = ["suite", "name", "method", "inputs", *folds, "seed", "status", "key"]
    writer.writerow([*head, *(f"{split}/{name}" for split, name in scores), *(f"cost/{name}" for name in costs), "error"])
    for row, record in rows:
        cells: list[Any] = [report.suite.name, row.spec.name, row.spec.method, row.inputs]
        cells += [*(record.spec[name] for name in folds), record.spec["seed"], record.status, record.key]
        values = {split: row.scores_of(record, split) for split in record.metrics}
        cells += [_plain(values.get(split, {}).get(name)) for split, name in scores]
        cells += [_plain(record.cost.get(name)) for name in costs]
        writer.writerow([*cells, (record.error or {}).get("line")])
    return buffer.getvalue()


def _plain(value: float | None) -> float | None:
    return None if value is None or math.isnan(value) else value
