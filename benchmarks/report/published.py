"""The papers' own numbers, grouped by test set. They stand beside ours only where the data are declared to be that test set."""

from collections.abc import Mapping
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
    ours: str = ""
    """Stem of our method that the row stands beside on the same test set."""


@dataclass(frozen=True)
class Group:
    """Results on one test set; only they may be compared with each other."""

    id: str
    title: str
    rows: list[PublishedRow] = field(default_factory=list)
    set: str = ""
    """Name of the test set for `--published-set`; empty where none of the methods here was tested on it."""


@dataclass(frozen=True)
class Published:
    """Everything in published.yaml."""

    columns: dict[str, str]
    """Name of a value -> title of its column."""
    sources: dict[str, str]
    groups: list[Group]


def _value(given: Any) -> Value:  # noqa: ANN401 - a YAML value
    return Value(given) if isinstance(given, str) else Value(given["value"], given["mark"])


def _row(given: Mapping[str, Any]) -> PublishedRow:
    values = {name: _value(value) for name, value in given["values"].items()}
    return PublishedRow(given["method"], values, given["sources"], given.get("note", ""), given.get("ours", ""))


@cache
def load_published(path: Path = FILE) -> Published:
    """Read published.yaml."""
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    groups = [
        Group(
            id=group["id"],
            title=group["title"],
            rows=[_row(row) for row in group["rows"]],
            set=group.get("set", ""),
        )
        for group in content["groups"]
    ]
    return Published(columns=content["columns"], sources=content["sources"], groups=groups)


def published_markdown(published: Published, declared: str | None = None) -> str:
    """One table a group.

    Args:
        published: From `load_published`.
        declared: Test set that the data of the report were declared to be; its group is not of other data.
    """
    if declared is None:
        title, rule = "Published numbers: other data; not comparable", "No number above may be ranked against them, nor one group"
    else:
        title, rule = "Published numbers", f"No number above may be ranked against those of sets other than {declared}, nor one group"
    parts = [
        f"## {title}\n",
        f"As the papers' abstracts state them, on test sets that are not public. {rule}",
        "against another. *Italic*: derived from stated numbers, not published. † from memory of the field, not read in a source.\n",
    ]
    for group in published.groups:
        columns = [name for name in published.columns if any(name in row.values for row in group.rows)]
        lines = [[row.method, *(cell(row.values.get(name)) for name in columns), ", ".join(row.sources)] for row in group.rows]
        parts.append(f"**Group {group.id}: {group.title}**\n")
        parts.append(to_markdown(["method", *(published.columns[name] for name in columns), "source"], lines, left=1))
        parts += [f"{row.method}: {row.note}\n" for row in group.rows if row.note]
    parts.append("\n".join(f"- {name}: {address}" for name, address in published.sources.items()) + "\n")
    return "\n".join(parts)


def cell(value: Value | None) -> str:
    """A value as it is printed: derived ones in italics, recalled ones with a dagger."""
    if value is None:
        return NOTHING
    text = value.text.replace("~", "≈ ")
    return {"stated": text, "derived": f"*{text}*", "recalled": f"{text} †"}[value.mark]
