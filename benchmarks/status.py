"""How far each run of a suite has come, and which records are not what the suite would give today, and why.

A run is `stale` where the suite would do it again: its record is of other settings, data or protocol. A `finished` run is kept, but the
last column says where code or packages have changed since; delete its record to have it made anew.
"""

import dataclasses
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from benchmarks.environment import changed_since, versions
from benchmarks.leases import holder
from benchmarks.record import RunRecord
from benchmarks.runner import Places, state_of
from benchmarks.spec import RunSpec

_SETTINGS: Final = ("method", "hyperparameters", "data_settings", "budget", "split")


@dataclass(frozen=True)
class Status:
    """One planned run.

    Args:
        spec: What is planned.
        state: finished, stale, failed, running, interrupted or waiting.
        record: Its record, or the one that it would replace.
        notes: Why the record is not what the suite would give today, or how the run failed.
    """

    spec: RunSpec
    state: str
    record: RunRecord | None = None
    notes: tuple[str, ...] = ()


def status_of(specs: Sequence[RunSpec], records: Mapping[str, RunRecord], places: Places, *, keyed: bool = True) -> list[Status]:
    """The state of each run.

    Args:
        specs: From `keyed_plan`.
        records: Of the suite, by key.
        places: Folders of the suite.
        keyed: The specs know the fingerprint of their data; otherwise records of any data are taken for theirs.
    """
    planned = {spec.key for spec in specs}
    kin = {_kin(RunSpec.from_dict(record.spec)): record for key, record in sorted(records.items(), key=_age) if key not in planned}
    named = {_name(RunSpec.from_dict(record.spec)): record for key, record in sorted(records.items(), key=_age) if key not in planned}
    made = []
    for spec in specs:
        record = records.get(spec.key)
        if record is None and not keyed:
            record = kin.get(_kin(spec))
        process = holder(places.run(spec.key))
        if process:
            made.append(Status(spec, "running", record, (process,)))
        elif record is not None and record.error is not None:
            made.append(Status(spec, "failed", record, (f"{record.error['line']} (log: {record.error['log']})",)))
        elif record is not None:
            made.append(Status(spec, "finished", record, _other_environment(record)))
        elif older := kin.get(_kin(spec)) or named.get(_name(spec)):
            reasons = _other_spec(RunSpec.from_dict(older.spec), spec, keyed=keyed)
            made.append(Status(spec, "stale", older, (*reasons, *_other_environment(older))))
        else:
            made.append(Status(spec, state_of(spec, dict(records), places)))
    return made


def _age(entry: tuple[str, RunRecord]) -> tuple[str, str]:
    return str(entry[1].environment.get("date", "")), entry[0]


def _kin(spec: RunSpec) -> str:
    """What a run keeps when the data change, or the protocol."""
    return dataclasses.replace(spec, data_fingerprint="", protocol=0).key


def _name(spec: RunSpec) -> tuple[Any, ...]:
    """What a run keeps when its settings change."""
    return spec.suite, spec.name, spec.fold, spec.seed


def _other_spec(old: RunSpec, new: RunSpec, *, keyed: bool) -> tuple[str, ...]:
    reasons = []
    if old.protocol != new.protocol:
        reasons.append(f"protocol {old.protocol}, now {new.protocol}")
    if keyed and old.data_fingerprint != new.data_fingerprint:
        reasons.append(f"data {old.data_fingerprint}, now {new.data_fingerprint}")
    for name in _SETTINGS:
        was, now = _flat(getattr(old, name), name), _flat(getattr(new, name), name)
        places = (place for place in sorted(was.keys() | now.keys()) if was.get(place) != now.get(place))
        reasons += [f"{place} {_said(was, place)}, now {_said(now, place)}" for place in places]
    return tuple(reasons)


def _flat(value: Any, place: str) -> dict[str, Any]:  # noqa: ANN401 - any JSON value
    if not isinstance(value, Mapping):
        return {} if value is None else {place: value}
    return {inner: item for name, part in value.items() for inner, item in _flat(part, f"{place}.{name}").items()}


def _said(values: Mapping[str, Any], place: str) -> str:
    return json.dumps(values[place]) if place in values else "not stated"


def _other_environment(record: RunRecord) -> tuple[str, ...]:
    """Code and packages that differ from today's; a failed record does not say."""
    reasons = []
    if "git" in record.environment:
        code = changed_since(record.environment["git"])
        reasons += [f"code: {code}"] if code else []
    now = versions()
    for package, was in sorted(record.environment.get("packages", {}).items()):
        if was != now.get(package):
            reasons.append(f"{package} {was}, now {now.get(package)}")
    return tuple(reasons)


def status_table(name: str, found: Sequence[Status]) -> tuple[str, list[str], list[list[str]]]:
    """Title, header and lines."""
    folds = any(status.spec.fold is not None for status in found)
    lines = []
    for status in found:
        spec = status.spec
        fold = ["" if spec.fold is None else str(spec.fold)] if folds else []
        seed, key = "" if spec.seed is None else str(spec.seed), "" if status.record is None else status.record.key
        lines.append([spec.name, *fold, seed, status.state, key, "; ".join(status.notes)])
    counts = Counter(status.state for status in found)
    others = "".join(f", {counts[state]} {state}" for state in ("stale", "failed", "running", "interrupted", "waiting") if counts[state])
    header = ["name", *(["fold"] if folds else []), "seed", "state", "key", "stale, or failed, because"]
    return f"{name}: {counts['finished']} of {len(found)} runs finished{others}", header, lines
