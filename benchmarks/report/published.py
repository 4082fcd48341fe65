"""The papers' own numbers, grouped by test set. They are never put beside ours: other data, other place."""

from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Final, Literal

import yaml

from benchmarks.report.tables import NOTHING, to_markdown

FILE: Final = Path(__file__).parents[1] / "published.yaml"
Mark = Literal["stated", "derived", "recalled"]


@dataclass(frozen=True)
class Value:
    """A number as printed, so that its digits are kept.

    `stated` was read in a source; `derived` follows by arithmetic from stated ones; `recalled` is from memory of the field.
    """

    text: str
    mark: Mark = "stated"

    @property
    def number(self) -> float:
        """The value."""
        return float(self.text.lstrip("~"))

    @property
    def tolerance(self) -> float:
        """Half a unit of the last printed digit."""
        return 0.5 * 10.0 ** -len(self.text.lstrip("~").partition(".")[2])


@dataclass(frozen=True)
class PublishedRow:
    """One published result."""

    method: str
    values: dict[str, Value]
    sources: list[str]
    note: str = ""


@dataclass(frozen=True)
class Group:
    """Results on one test set; only they may be compared with each other."""

    id: str
    title: str
    rows: list[PublishedRow] = field(default_factory=list)


@dataclass(frozen=True)
class Published:
    """Everything in published.yaml."""

    columns: dict[str, str]
    """Name of a value -> title of its column."""
    sources: dict[str, str]
    groups: list[Group]


def _value(given: Any) -> Value:  # noqa: ANN401 - a YAML value
    return Value(given) if isinstance(given, str) else Value(given["value"], given["mark"])


@cache
def load_published(path: Path = FILE) -> Published:
    """Read published.yaml."""
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    groups = [
        Group(
            id=group["id"],
            title=group["title"],
            rows=[
                PublishedRow(
                    row["method"], {name: _value(value) for name, value in row["values"].items()}, row["sources"], row.get("note", "")
                )
                for row in group["rows"]
            ],
        )
        for group in content["groups"]
    ]
    return Published(columns=content["columns"], sources=content["sources"], groups=groups)


def published_markdown(published: Published) -> str:
    """One table a group."""
    parts = [
        "## Published numbers: other data; not comparable\n",
        "As the papers' abstracts state them, on test sets that are not public. No number above may be ranked against them, nor one group",
        "against another. *Italic*: derived from stated numbers, not published. † from memory of the field, not read in a source.\n",
    ]
    for group in published.groups:
        columns = [name for name in published.columns if any(name in row.values for row in group.rows)]
        lines = [[row.method, *(_cell(row.values.get(name)) for name in columns), ", ".join(row.sources)] for row in group.rows]
        parts.append(f"**Group {group.id}: {group.title}**\n")
        parts.append(to_markdown(["method", *(published.columns[name] for name in columns), "source"], lines, left=1))
        parts += [f"{row.method}: {row.note}\n" for row in group.rows if row.note]
    parts.append("\n".join(f"- {name}: {address}" for name, address in published.sources.items()) + "\n")
    return "\n".join(parts)


def _cell(value: Value | None) -> str:
    if value is None:
        return NOTHING
    text = value.text.replace("~", "≈ ")
    return {"stated": text, "derived": f"*{text}*", "recalled": f"{text} †"}[value.mark]
