"""Tables, figures and keys as HTML; all that comes from records is text."""

import re
from collections.abc import Iterable, Sequence
from html import escape
from typing import Any, Final

import numpy as np

from benchmarks.report.page.charts import NUM_COLOURS
from benchmarks.report.rows import Row

METRIC: Final = "iou_landslide"
NUM_BINS: Final = 256
Counts = np.ndarray[Any, np.dtype[np.int64]]


def name_of(row: Row) -> str:
    """As the tables show it."""
    return row.spec.name.replace("_", " ") if row.spec.is_reference else row.spec.name


def table(header: Sequence[str], lines: Iterable[Sequence[str]], *, kind: str = "sortable", indices: Sequence[int] = ()) -> str:
    """A table of plain text.

    Args:
        header: Names of the columns; the first one names the lines.
        lines: Their cells.
        kind: Class of the table.
        indices: The row of the report that each line is about, so that it can be hidden.
    """
    drawn = [[escape(value) for value in line] for line in lines]
    return drawn_table(header, [(line[0], [f"<td>{value}</td>" for value in line[1:]]) for line in drawn], kind=kind, indices=indices)


def drawn_table(
    header: Sequence[str],
    lines: Iterable[tuple[str, Sequence[str]]],
    *,
    kind: str = "sortable",
    indices: Sequence[int] = (),
    mark: str = "",
) -> str:
    """A table whose lines are a name and cells, both HTML already.

    Args:
        header: Text.
        lines: Name and `<td>` cells of each.
        kind: Class of the table.
        indices: As in `table`.
        mark: Id of the table.
    """
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in header)
    body = []
    for index, (name, cells) in enumerate(lines):
        hidden = f' data-row="{indices[index]}"' if indices else ""
        body.append(f'<tr{hidden}><th scope="row">{name}</th>{"".join(cells)}</tr>')
    named = f' id="{mark}"' if mark else ""
    return f'<div class="wide"><table class="{kind}"{named}><thead><tr>{head}</tr></thead><tbody>{"".join(body)}</tbody></table></div>'


def section(title: str, *parts: str) -> str:
    """A heading and what stands below it; nothing where there is nothing."""
    content = "".join(parts)
    return f"<section><h2>{escape(title)}</h2>{content}</section>" if content else ""


def folded(summary: str, content: str) -> str:
    """What is opened by a click."""
    return f"<details><summary>{escape(summary)}</summary>{content}</details>"


def paragraph(text: str) -> str:
    """Text; empty for none."""
    return f"<p>{escape(text)}</p>" if text else ""


def prose(text: str) -> str:
    """A paragraph of our own words, which may hold the `code` and *emphasis* of Markdown."""
    return "<p>" + re.sub(r"\*(.+?)\*", r"<em>\1</em>", re.sub(r"`(.+?)`", r"<code>\1</code>", escape(text))) + "</p>"


def figure(svg: str, caption: str) -> str:
    """A chart with what it shows; nothing for no chart."""
    return f"<figure>{svg}<figcaption>{escape(caption)}</figcaption></figure>" if svg else ""


def key(series: int) -> str:
    """The colour of a row."""
    return f'<svg width="12" height="12" aria-hidden="true"><circle class="key c{series % NUM_COLOURS}" cx="6" cy="6" r="5"/></svg>'
