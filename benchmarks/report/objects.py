"""Outlines and objects of whole scenes, for records that have them."""

import math
import re
from typing import Final

from benchmarks.report.rows import Report, Row
from benchmarks.report.tables import NOTHING, number, quantity, seeds_cell, to_markdown, with_spread

EXPLANATION: Final = """\
Of whole scenes, predicted in blended tiles, so that no border of a tile is counted. *Outline F1*: share of outline pixels within the
distance of the other outline, precision and recall together; *band IoU*: IoU of the pixels within the distance of the outline. *Objects*:
8-connected, from 16 pixels on; `iou0.5`: IoU of at least 0.5, one to one; `coverage0.5`: half of it covered; `any_hit`: one pixel.
*PQ*: panoptic quality. The papers do not define their "object-level accuracy"; hence every rule.
"""

_COLUMNS: Final = (
    (r"boundary_f1_(.+)", "outline F1, {}"),
    (r"boundary_iou_(.+)", "band IoU, {}"),
    (r"object_f1_(.+)", "object F1, {}"),
    (r"object_precision_(coverage.+)", "object P, {}"),
    (r"object_recall_(coverage[\d.]+)", "object R, {}"),
    (r"object_false_alarms_per_km2_(coverage.+)", "false alarms per km2, {}"),
    (r"panoptic_quality", "PQ"),
)
OF_CLASS: Final = re.compile(r"object_recall_(coverage[\d.]+)_((\d+)(?:-\d+m2|m2-))")
"""Recall of a class of area: rule, class, its lower end."""


def area_label(of_class: str) -> str:
    """A class of area as it is read: `1000-10000m2` is `1,000 to 10,000 m²`, `1000000m2-` is `from 1,000,000 m²`."""
    low, _, high = of_class.replace("m2", "").partition("-")
    if not high:
        return f"from {int(low):,} m²"
    return f"{int(low):,} to {int(high):,} m²" if int(low) else f"below {int(high):,} m²"


def objects_table(report: Report) -> tuple[list[str], list[list[str]]]:
    """Header and lines of outlines and objects; no lines where no record was scored by whole scenes."""
    rows, names = _names(report)
    columns = {
        title.format(*match.groups()): name for pattern, title in _COLUMNS for name in names if (match := re.fullmatch(pattern, name))
    }
    if not columns:
        return [], []
    return ["name", "seeds", *columns], [
        [row.spec.name, seeds_cell(row), *(with_spread(row.score(name)) for name in columns.values())] for row in rows
    ]


def areas_table(report: Report) -> tuple[str, list[str], list[list[str]]]:
    """What recall by area counts, header and lines; no lines where no record knows it."""
    rows, names = _names(report)
    classes = sorted((int(match[3]), match[1], match[2], name) for name in names if (match := OF_CLASS.fullmatch(name)))
    known = [item for item in classes if any(not math.isnan(row.score(item[3]).mean) for row in rows)]
    if not known:
        return "", [], []
    total = next((quantity(row.score("objects").mean) for row in rows if not math.isnan(row.score("objects").mean)), NOTHING)
    header = ["name", *(area_label(of_class) for _, _, of_class, _ in known)]
    lines = [[row.spec.name, *(number(row.score(name).mean) for *_, name in known)] for row in rows]
    return f"Recall by area of the landslide (`{known[0][1]}`; {total} labelled objects):", header, lines


def objects_markdown(report: Report) -> str:
    """The section of a report; empty where no record was scored by whole scenes."""
    header, lines = objects_table(report)
    if not lines:
        return ""
    parts = ["## Outlines and objects\n", to_markdown(header, lines, left=1), EXPLANATION]
    title, header, lines = areas_table(report)
    if lines:
        parts += [f"{title}\n", to_markdown(header, lines, left=1)]
    return "\n".join(parts)


def _names(report: Report) -> tuple[list[Row], list[str]]:
    """The rows, and their scores in the order of the records, which is ascending in distances and rules."""
    rows = report.measured
    return rows, list(dict.fromkeys(name for row in rows for record in row.finished for name in record.metrics["test"]))
