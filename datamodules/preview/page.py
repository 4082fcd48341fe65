"""One HTML page without any request: the table of `describe`, the contact sheet and the split map, in light and dark."""

import base64
from collections.abc import Sequence
from html import escape

from datamodules.describing import CAPTION, COLUMNS, SceneDescription, by_split, cells
from datamodules.preview.contact_sheet import SheetRow

STYLE = """
:root { color-scheme: light dark; --ink: #1a1a1a; --paper: #ffffff; --line: #c8c8c8; --soft: #f3f3f1; }
@media (prefers-color-scheme: dark) { :root { --ink: #e8e8e6; --paper: #17181a; --line: #47494d; --soft: #222428; } }
body { font: 16px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper); max-width: 62rem; margin: 0 auto; padding: 1rem; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: 0.9rem; }
th, td { border-bottom: 1px solid var(--line); padding: 0.25rem 0.6rem; text-align: right; }
th:first-child, td:first-child { text-align: left; }
thead th { background: var(--soft); }
caption { caption-side: bottom; text-align: left; padding: 0.3rem 0; }
.wide { overflow-x: auto; }
figure { margin: 1rem 0; }
img { max-width: 100%; height: auto; background: #ffffff; }
summary { cursor: pointer; padding: 0.4rem 0; }
"""
"""Look of a page, which other pages start from."""


def page(
    title: str, sheet: bytes, rows: Sequence[SheetRow], plan: bytes, notes: Sequence[str], described: Sequence[SceneDescription], seed: int
) -> str:
    """The page as text.

    Args:
        title: Name of the data set.
        sheet: Contact sheet, PNG.
        rows: What its rows show.
        plan: Split map, PNG.
        notes: What the map cannot show.
        described: One a scene.
        seed: Of the choice of windows.
    """
    groups = by_split(described)
    counts = ", ".join(f"{len(items)} {split}" for split, items in groups)
    with_landslide = sum(bool(row.landslide) for row in rows)
    sheet_alt = f"Contact sheet of {len(rows)} windows, {with_landslide} with landslides; columns image, hillshade, label outline. The table below lists them."
    plan_alt = f"Map of the scenes coloured and hatched by split: {counts}. " + " ".join(f"{note}." for note in notes)
    by_scene = [[item.scene.name, item.scene.split, *cells([item])[1:]] for item in described]
    windows = [
        [row.scene, row.split, f"{row.place[0]}, {row.place[1]}", _share(row.landslide), "; ".join(row.notes) or "-"] for row in rows
    ]
    parts = [
        f"<h1>{escape(title)}</h1>",
        _table(("split", *COLUMNS), [[split, *cells(items)] for split, items in groups], CAPTION),
        f"<details><summary>{len(described)} scenes, one by one</summary>",
        _table(("scene", "split", *COLUMNS[1:]), by_scene, CAPTION),
        "</details>",
        "<h2>Split map</h2>",
        _figure(
            plan,
            plan_alt,
            " ".join(f"{note}." for note in notes) or "Boxes are labelled ground, to a 48th of a scene; black lines are scenes.",
        ),
        "<h2>Windows</h2>",
        _figure(
            sheet, sheet_alt, f"Chosen by seed {seed}; brightness from the 2nd to the 98th percentile of each scene; sun in the north-west."
        ),
        _table(("scene", "split", "row, column", "landslide", "notes"), windows, "The windows of the contact sheet, from the top."),
    ]
    head = f'<meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{escape(title)}</title><style>{STYLE}</style>'
    return f'<!doctype html>\n<html lang="en"><head>{head}</head>\n<body><main>\n' + "\n".join(parts) + "\n</main></body></html>\n"


def _share(share: float | None) -> str:
    """A share in percent."""
    return "not labelled" if share is None else f"{100 * share:.2f} %"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]], caption: str) -> str:
    """A table; it scrolls by itself where it is wider than the screen."""
    top = "".join(f'<th scope="col">{escape(cell)}</th>' for cell in head)
    body = "\n".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f'<div class="wide" tabindex="0"><table><caption>{escape(caption)}</caption><thead><tr>{top}</tr></thead>\n<tbody>{body}</tbody></table></div>'


def _figure(picture: bytes, alt: str, caption: str) -> str:
    """A picture that is part of the page."""
    source = base64.b64encode(picture).decode()
    return f'<figure><img alt="{escape(alt)}" src="data:image/png;base64,{source}"><figcaption>{escape(caption)}</figcaption></figure>'
