"""report.html: one self-contained page that opens offline, with sortable tables and charts whose rows can be shown and hidden.

Charts are drawn here as SVG; the script of the page sorts, hides and tells, and nothing is fetched. Without it the page reads as well.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from importlib.resources import files
from pathlib import Path
from typing import Any, Final

import numpy as np

from benchmarks.record import load_histograms
from benchmarks.report.intervals import GAINS_EXPLANATION, gains_table, interval_cell
from benchmarks.report.objects import OF_CLASS
from benchmarks.report.page.charts import NUM_COLOURS, Plot, Strip
from benchmarks.report.protocol import protocol_markdown
from benchmarks.report.published import cell, load_published
from benchmarks.report.rows import Report, Row, fold_and_seed
from benchmarks.report.tables import NOTHING, calibration_table, failed_table, number, quantity, results_table, score_cells, seeds_cell
from benchmarks.report.uncertainty import Uncertainty, uncertainty

METRIC: Final = "iou_landslide"
MAX_SCENES: Final = 60
"""Lines of the table of scenes; of more, those are shown on which the rows differ most."""
NUM_BINS: Final = 256

Counts = np.ndarray[Any, np.dtype[np.int64]]


def page_html(report: Report, folder: Path) -> str:
    """The page as text, the same bytes for the same records.

    Args:
        report: With intervals, from `collect` with a folder.
        folder: `RESULTS/records`, which holds the histograms.
    """
    rows = [*report.rows, *report.references]
    tested = [[load_histograms(folder / f"{record.key}.npz")["test"] for record in row.finished] for row in rows]
    pooled = [
        sum((sum(run.values(), np.zeros((2, NUM_BINS), np.int64)) for run in runs), np.zeros((2, NUM_BINS), np.int64)) for runs in tested
    ]
    title = report.suite.title or report.suite.name
    known = uncertainty(report)
    parts = [
        f"<h1>{escape(title)}</h1>",
        f"<p>Suite <code>{escape(report.suite.name)}</code>. Scores of the landslide class on all test pixels, at the threshold that validation chose; ± over seeds.</p>",
        _failures(report),
        _leaderboard(report, known),
        _toggles(rows),
        '<div class="charts">',
        _figure(
            _precision_recall(rows, pooled),
            "Precision and recall at every threshold, all seeds pooled; the dot is the chosen threshold of each seed.",
        ),
        _figure(
            _reliability(rows, pooled),
            "Reliability: share of landslide among pixels by predicted probability; on the dashed line a probability is true.",
        ),
        _figure(_against_cost(report), "IoU against seconds of training, mean over seeds; the bar is one standard deviation."),
        _figure(_by_area(rows), "Recall by area of the landslide: found where half of it is covered."),
        "</div>",
        _gains(report, known),
        _calibration(report),
        _scenes(rows, tested),
        _seeds(report),
        _protocol(report),
        _published(),
    ]
    read = files(__package__).joinpath
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<meta name="viewport" content="width=device-width">\n'
        f"<title>{escape(title)}</title>\n<style>\n{read('style.css').read_text(encoding='utf-8')}</style>\n</head>\n<body>\n"
        + "\n".join(part for part in parts if part)
        + f"\n<script>\n{read('script.js').read_text(encoding='utf-8')}</script>\n</body>\n</html>\n"
    )


def _table(header: Sequence[str], lines: Iterable[Sequence[str]], *, kind: str = "sortable", indices: Sequence[int] = ()) -> str:
    """A table of plain text; `indices` gives each line the number of its row, so that it can be hidden."""
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in header)
    body = []
    for index, line in enumerate(lines):
        mark = f' data-row="{indices[index]}"' if indices else ""
        body.append(f"<tr{mark}>" + "".join(f"<td>{escape(value)}</td>" for value in line) + "</tr>")
    return f'<div class="wide"><table class="{kind}"><thead><tr>{head}</tr></thead><tbody>{"".join(body)}</tbody></table></div>'


def _figure(svg: str, caption: str) -> str:
    return f"<figure>{svg}<figcaption>{escape(caption)}</figcaption></figure>" if svg else ""


def _key(series: int) -> str:
    return f'<svg width="12" height="12" aria-hidden="true"><circle class="key c{series % NUM_COLOURS}" cx="6" cy="6" r="5"/></svg>'


def _toggles(rows: Sequence[Row]) -> str:
    boxes = [
        f'<label><input type="checkbox" checked data-toggles="{index}"> {_key(index)} {escape(_name(row))}</label>'
        for index, row in enumerate(rows)
        if row.finished
    ]
    return f"<fieldset><legend>Shown</legend>{''.join(boxes)}</fieldset>"


def _name(row: Row) -> str:
    return row.spec.name.replace("_", " ") if row.spec.is_reference else row.spec.name


def _leaderboard(report: Report, known: Uncertainty) -> str:
    header, lines = results_table(report)
    rows = [*report.rows, *report.references]
    lines = [*lines, *([_name(row), NOTHING, row.inputs or NOTHING, seeds_cell(row), *score_cells(row)] for row in report.references)]
    seeds = [[record.metrics["test"].get(METRIC, math.nan) for record in row.finished] for row in rows]
    intervals = []
    for row in rows:
        estimate = known.estimate(row.spec.name, METRIC)
        intervals.append((math.nan, math.nan) if estimate is None else estimate.interval(method="bca"))
    ends = [value for values in (*seeds, *intervals) for value in values if not math.isnan(value)]
    if not ends:
        return "<p>No run is finished.</p>"
    strip = Strip(max(min(ends) - 0.02, 0.0), min(max(ends) + 0.02, 1.0))
    place = header.index("IoU") + 1
    header = [header[0], "seeds and interval", *header[1:place], "95 % (blocks)", *header[place:]]
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in header)
    body = []
    for index, (row, line) in enumerate(zip(rows, lines, strict=True)):
        cells = [f"<td>{escape(value)}</td>" for value in line] + ["<td></td>"] * (len(header) - 2 - len(line))
        mean = row.score(METRIC).mean
        drawn = strip.svg(index, mean, seeds[index], intervals[index])
        value = "" if math.isnan(mean) else f"{mean:.6f}"
        cells.insert(place, f"<td>{escape(interval_cell(intervals[index]))}</td>")
        cells.insert(1, f'<td data-value="{value}">{drawn}</td>')
        body.append(f'<tr data-row="{index}">{"".join(cells)}</tr>')
    return (
        f'<div class="wide"><table class="sortable" id="leaderboard"><thead><tr>{head}</tr></thead><tbody>{"".join(body)}</tbody></table></div>'
        "<p>Dots are seeds, the stroke is their mean, the bar is the 95 % interval over blocks of test ground. Click a column to sort by it.</p>"
    )


def _precision_recall(rows: Sequence[Row], pooled: Sequence[Counts]) -> str:
    plot = Plot("Precision and recall", "recall", "precision")
    for index, (row, histogram) in enumerate(zip(rows, pooled, strict=True)):
        if not row.finished or histogram[1].sum() == 0 or row.spec.method == "all_background":
            continue
        above = histogram[:, ::-1].cumsum(1)[:, ::-1]
        kept = np.flatnonzero(above.sum(0) > 0)
        precision, recall = above[1, kept] / above[:, kept].sum(0), above[1, kept] / histogram[1].sum()
        told = [
            f"{_name(row)}: precision {p:.3f}, recall {r:.3f} at {bin_ / NUM_BINS:.2f}"
            for p, r, bin_ in zip(precision, recall, kept, strict=True)
        ]
        plot.line(index, zip(recall.tolist(), precision.tolist(), strict=True), told=told if len(rows) <= 2 * NUM_COLOURS else ())
        for record in row.finished:
            scores = record.metrics["test"]
            if not math.isnan(scores["precision"] + scores["recall"]):
                seed = fold_and_seed(record)[1]
                words = f"{_name(row)}{'' if seed is None else f', seed {seed}'}: precision {scores['precision']:.3f}, recall {scores['recall']:.3f}"
                plot.dot(index, scores["recall"], scores["precision"], words)
    return plot.svg()


def _reliability(rows: Sequence[Row], pooled: Sequence[Counts]) -> str:
    from zoo.metrics.calibration import reliability  # noqa: PLC0415 - brings SciPy, which planning does without

    plot = Plot("Reliability", "predicted probability", "share of landslide")
    plot.diagonal()
    for index, (row, histogram) in enumerate(zip(rows, pooled, strict=True)):
        if row.spec.is_reference or not histogram.sum():
            continue
        curve = reliability(histogram)
        points = list(zip(curve.probability.tolist(), curve.landslide_share.tolist(), strict=True))
        told = [
            f"{_name(row)}: {share:.3f} of {count:,} pixels at {p:.3f}"
            for (p, share), count in zip(points, curve.pixels.tolist(), strict=True)
        ]
        plot.line(index, points, told=told)
    return plot.svg()


def _against_cost(report: Report) -> str:
    found = [(index, row, row.cost("train_seconds").mean, row.score(METRIC)) for index, row in enumerate(report.rows)]
    found = [item for item in found if item[2] > 0 and not math.isnan(item[3].mean)]
    if not found:
        return ""
    seconds = [item[2] for item in found]
    scores = [item[3].mean + sign * (0.0 if math.isnan(item[3].std) else item[3].std) for item in found for sign in (-1, 1)]
    low, high = max(min(scores) - 0.05, 0.0), min(max(scores) + 0.05, 1.0)
    plot = Plot("IoU against cost", "seconds of training", "IoU", (min(seconds) / 1.5, max(seconds) * 1.5), (low, high), log_x=True)
    for index, row, cost, score in found:
        spread = 0.0 if math.isnan(score.std) else score.std
        plot.dot(index, cost, score.mean, f"{_name(row)}: IoU {score.mean:.3f}, {quantity(cost)} s", spread=spread)
    return plot.svg()


def _by_area(rows: Sequence[Row]) -> str:
    names = {name for row in rows for record in row.finished for name in record.metrics["test"]}
    classes = sorted((int(match[3]), match[2], name) for name in names if (match := OF_CLASS.fullmatch(name)))
    classes = [item for item in classes if any(not math.isnan(row.score(item[2]).mean) for row in rows)]
    if not classes:
        return ""
    labels = [of_class.replace("m2", " m2").strip() for _, of_class, _ in classes]
    plot = Plot("Recall by area", "area of the landslide", "recall", (-0.5, len(classes) - 0.5), categories=labels)
    for index, row in enumerate(rows):
        means = [(float(place), row.score(name).mean) for place, (_, _, name) in enumerate(classes)]
        points = [(place + 0.05 * (index - len(rows) / 2), mean) for place, mean in means if not math.isnan(mean)]
        plot.line(index, points)
        for x, mean in points:
            plot.dot(index, x, mean, f"{_name(row)}: {mean:.3f} of {labels[round(x)]}")
    return plot.svg()


def _gains(report: Report, known: Uncertainty) -> str:
    header, lines, without = gains_table(report, known)
    if not lines:
        return "".join(f"<p>No gain: {escape(reason)}.</p>" for reason in without)
    indices = {row.spec.name: index for index, row in enumerate(report.rows)}
    found = [(line, known.difference(line[0], line[1])) for line in lines]
    drawn = [(line, item.blocks, item.methods) for line, item in found if not isinstance(item, str)]
    ends = [0.0, *(end for _, blocks, methods in drawn for end in (methods.interval() if methods else blocks.interval(method="bca")))]
    ends = [end for end in ends if not math.isnan(end)]
    reach = max(abs(min(ends)), abs(max(ends)), 0.01) * 1.1
    strip = Strip(-reach, reach, zero=True)
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in [*header, "gain and interval"])
    body = []
    for line, blocks, methods in drawn:
        index = indices[line[0]]
        interval = methods.interval() if methods else blocks.interval(method="bca")
        svg = strip.svg(index, blocks.value, (), interval)
        cells = "".join(f"<td>{escape(value)}</td>" for value in line)
        body.append(f'<tr data-row="{index}">{cells}<td data-value="{blocks.value:.6f}">{svg}</td></tr>')
    table = f'<div class="wide"><table class="sortable"><thead><tr>{head}</tr></thead><tbody>{"".join(body)}</tbody></table></div>'
    return f"<h2>Gains over the baseline</h2>{table}<p>{escape(GAINS_EXPLANATION)}</p>"


def _calibration(report: Report) -> str:
    header, lines = calibration_table(report)
    return f"<h2>Calibration and tiles</h2>{_table(header, lines, indices=range(len(lines)))}"


def _scenes(rows: Sequence[Row], tested: Sequence[Sequence[Mapping[str, Counts]]]) -> str:
    """IoU of each test scene, counts of all seeds pooled at the threshold of each."""
    counts: dict[str, list[np.ndarray[Any, np.dtype[np.int64]]]] = {}
    for index, (row, runs) in enumerate(zip(rows, tested, strict=True)):
        for record, run in zip(row.finished, runs, strict=True):
            edge = math.ceil(record.metrics["test"]["threshold"] * NUM_BINS - 1e-9)
            for tile, histogram in run.items():
                scene = counts.setdefault(tile.rsplit(":", 2)[0], [np.zeros(2, np.int64) for _ in rows])
                hit = int(histogram[1, edge:].sum())
                scene[index] += np.array([hit, int(histogram[1].sum()) + int(histogram[0, edge:].sum())])
    if len(counts) < 2:
        return ""
    scores = {scene: [hit / union if union else math.nan for hit, union in values] for scene, values in counts.items()}
    apart = {scene: np.nanmax(values) - np.nanmin(values) if not np.isnan(values).all() else -1.0 for scene, values in scores.items()}
    shown = sorted(sorted(scores, key=lambda scene: -apart[scene])[:MAX_SCENES])
    lines = [[scene, *(number(score) for score in scores[scene])] for scene in shown]
    note = f" The {MAX_SCENES} of {len(scores)} on which the rows differ most." if len(scores) > MAX_SCENES else ""
    return (
        f"<h2>Each scene</h2><details><summary>IoU of {len(shown)} scenes</summary><p>All seeds pooled.{note}</p>"
        f"{_table(['scene', *map(_name, rows)], lines)}</details>"
    )


def _seeds(report: Report) -> str:
    lines = []
    for row in report.rows:
        for record in row.finished:
            fold, seed = fold_and_seed(record)
            scores = record.metrics["test"]
            place = NOTHING if fold is None else str(fold)
            lines.append(
                [row.spec.name, place, str(seed), number(scores["threshold"]), number(scores[METRIC]), number(scores["f1"]), record.key]
            )
    return f"<h2>Each run</h2><details><summary>{len(lines)} runs</summary>{_table(['name', 'fold', 'seed', 'threshold', 'IoU', 'F1', 'key'], lines)}</details>"


def _failures(report: Report) -> str:
    header, lines = failed_table(report)
    return f"<h2>Failed runs</h2>{_table(header, lines, kind='failed')}" if lines else ""


def _protocol(report: Report) -> str:
    return f"<h2>Protocol and data</h2><pre>{escape(protocol_markdown(report))}</pre>"


def _published() -> str:
    published = load_published()
    parts = ["<h2>Published numbers: other data; not comparable</h2>"]
    for group in published.groups:
        columns = [name for name in published.columns if any(name in row.values for row in group.rows)]
        lines = [[row.method, *(cell(row.values.get(name)).strip("*") for name in columns), ", ".join(row.sources)] for row in group.rows]
        parts.append(
            f"<h3>Group {escape(group.id)}: {escape(group.title)}</h3>{_table(['method', *(published.columns[name] for name in columns), 'source'], lines, kind='published')}"
        )
    return f"<details><summary>Published numbers</summary>{''.join(parts)}</details>"
