"""What each switch of a method does: rows that differ from a whole method in a setting or two.

A suite is shown as an ablation where two rows or more name a `baseline` of their own method. The baseline is the whole, each of them a
switch.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from benchmarks.report.rows import Report, Row
from benchmarks.report.uncertainty import Difference, Uncertainty

MIN_SWITCHES: Final = 2


@dataclass(frozen=True)
class Switch:
    """One row against the whole method.

    Args:
        row: Its place in the report.
        name: Of the row.
        changed: Its settings that differ from the whole's: `place: value instead of value`.
        difference: In IoU; None where nothing can be said.
    """

    row: int
    name: str
    changed: tuple[str, ...]
    difference: Difference | None


@dataclass(frozen=True)
class Ablation:
    """A whole method and its switches, in the order of the suite."""

    whole: Row
    switches: tuple[Switch, ...]


def ablations(report: Report, known: Uncertainty) -> list[Ablation]:
    """The ablations of a suite; most have none."""
    rows, baselines = {row.spec.name: row for row in report.rows}, report.suite.baselines()
    places = {name: index for index, name in enumerate(rows)}
    found = []
    for whole in dict.fromkeys(baselines.values()):
        names = [name for name, baseline in baselines.items() if baseline == whole and rows[name].spec.method == rows[whole].spec.method]
        if len(names) >= MIN_SWITCHES:
            switches = [Switch(places[name], name, changed(rows[name], rows[whole]), _difference(known, name, whole)) for name in names]
            found.append(Ablation(rows[whole], tuple(switches)))
    return found


def _difference(known: Uncertainty, name: str, whole: str) -> Difference | None:
    difference = known.difference(name, whole)
    return None if isinstance(difference, str) else difference


def changed(row: Row, whole: Row) -> tuple[str, ...]:
    """Settings of a row that differ from another's, in words; defaults count where both rows have a finished run."""
    mine, theirs = _settings(row, whole), _settings(whole, row)
    places = [place for place in sorted(mine.keys() | theirs.keys()) if mine.get(place) != theirs.get(place)]
    return tuple(f"{place}: {_said(mine, place)} instead of {_said(theirs, place)}" for place in places)


def _settings(row: Row, other: Row) -> dict[str, Any]:
    whole = row.finished and other.finished
    hyperparameters = row.finished[0].model.get("hyperparameters", row.spec.hyperparameters) if whole else row.spec.hyperparameters
    return {**_flat(hyperparameters), **_flat({"data": row.spec.data_settings, "budget": row.spec.budget or {}})}


def _flat(values: Mapping[str, Any], above: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in values.items():
        flat |= _flat(value, f"{above}{name}.") if isinstance(value, Mapping) else {f"{above}{name}": value}
    return flat


def _said(settings: Mapping[str, Any], place: str) -> str:
    return json.dumps(settings[place]).strip('"') if place in settings else "the default"
