"""Charts of all rows together: precision and recall, reliability, cost, recall by size."""

import math
from collections.abc import Sequence

import numpy as np

from benchmarks.report.objects import OF_CLASS, area_label
from benchmarks.report.page.charts import NUM_COLOURS, Plot
from benchmarks.report.page.elements import METRIC, NUM_BINS, Counts, figure, name_of
from benchmarks.report.rows import Report, Row, fold_and_seed
from benchmarks.report.tables import quantity


def curves(report: Report, rows: Sequence[Row], pooled: Sequence[Counts]) -> str:
    """The figures; what no row can fill is left out.

    Args:
        report: Of the rows.
        rows: Those of the report, references last.
        pooled: Test histogram (2, 256) of each, all seeds together.
    """
    told = (
        (
            _precision_recall(rows, pooled),
            "Precision and recall at every threshold, all seeds pooled; the dot is the chosen threshold of each seed.",
        ),
        (
            _reliability(rows, pooled),
            "Reliability: share of landslide among pixels by predicted probability; on the dashed line a probability is true.",
        ),
        (_against_cost(report), "IoU against seconds of training, mean over seeds; the bar is one standard deviation."),
        (_by_area(rows), "Recall by area of the landslide: found where half of it is covered."),
    )
    return f'<div class="charts">{"".join(figure(svg, caption) for svg, caption in told)}</div>'


def _precision_recall(rows: Sequence[Row], pooled: Sequence[Counts]) -> str:
    plot = Plot("Precision and recall", "recall", "precision")
    for index, (row, histogram) in enumerate(zip(rows, pooled, strict=True)):
        if not row.finished or histogram[1].sum() == 0 or row.spec.method == "all_background":
            continue
        above = histogram[:, ::-1].cumsum(1)[:, ::-1]
        kept = np.flatnonzero(above.sum(0) > 0)
        precision, recall = above[1, kept] / above[:, kept].sum(0), above[1, kept] / histogram[1].sum()
        told = [
            f"{name_of(row)}: precision {p:.3f}, recall {r:.3f} at {bin_ / NUM_BINS:.2f}"
            for p, r, bin_ in zip(precision, recall, kept, strict=True)
        ]
        plot.line(index, zip(recall.tolist(), precision.tolist(), strict=True), told=told if len(rows) <= 2 * NUM_COLOURS else ())
        for record in row.finished:
            scores = record.metrics["test"]
            if not math.isnan(scores["precision"] + scores["recall"]):
                seed = fold_and_seed(record)[1]
                words = f"{name_of(row)}{'' if seed is None else f', seed {seed}'}: precision {scores['precision']:.3f}, recall {scores['recall']:.3f}"
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
            f"{name_of(row)}: {share:.3f} of {count:,} pixels at {p:.3f}"
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
        plot.dot(index, cost, score.mean, f"{name_of(row)}: IoU {score.mean:.3f}, {quantity(cost)} s", spread=spread)
    return plot.svg()


def _by_area(rows: Sequence[Row]) -> str:
    names = {name for row in rows for record in row.finished for name in record.metrics["test"]}
    classes = sorted((int(match[3]), match[2], name) for name in names if (match := OF_CLASS.fullmatch(name)))
    classes = [item for item in classes if any(not math.isnan(row.score(item[2]).mean) for row in rows)]
    if not classes:
        return ""
    labels = [area_label(of_class) for _, of_class, _ in classes]
    plot = Plot("Recall by area", "area of the landslide", "recall", (-0.5, len(classes) - 0.5), categories=labels)
    for index, row in enumerate(rows):
        means = [(float(place), row.score(name).mean) for place, (_, _, name) in enumerate(classes)]
        points = [(place + 0.05 * (index - len(rows) / 2), mean) for place, mean in means if not math.isnan(mean)]
        plot.line(index, points)
        for x, mean in points:
            plot.dot(index, x, mean, f"{name_of(row)}: {mean:.3f} of {labels[round(x)]}")
    return plot.svg()
