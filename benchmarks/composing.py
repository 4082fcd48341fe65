"""Suite files -> one mapping: `extends:` merged, `without:` left out, every key known.

A suite may extend one other, which may extend one too. Mappings merge key by key, lists are replaced. `runs` are the exception: a run of
the same name is merged key by key where it stands, a new one is appended; `without` names runs of the extended suite that are left out.
"""

import dataclasses
import difflib
import types
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import yaml

from datamodules.errors import UserError

SUITES: Final = Path(__file__).parent / "suites"
_SUFFIXES: Final = (".yaml", ".yml")


def deep_merge(base: Mapping[str, Any], update: Mapping[str, Any]) -> dict[str, Any]:
    """A new mapping with the values of `update` over those of `base`; mappings merge key by key, lists are replaced.

    Example:
        >>> deep_merge({"a": {"b": 1, "c": [1]}}, {"a": {"c": [2]}})
        {'a': {'b': 1, 'c': [2]}}
    """
    merged = dict(base)
    for name, value in update.items():
        old = merged.get(name)
        merged[name] = deep_merge(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return merged


def near(word: str, known: Sequence[str]) -> str:
    """A remedy for a misspelt word: the nearest known one, or all of them."""
    matches = difflib.get_close_matches(word, known, n=3, cutoff=0.6) or [name for name in known if word and word in name]
    return f"did you mean {', '.join(matches)}? Known: {', '.join(known)}" if matches else f"known: {', '.join(known)}"


def find_suite(name: str) -> Path:
    """The file of a shipped suite (`demo`) or of the user's own (a path to a YAML file)."""
    path = Path(name)
    if path.suffix in _SUFFIXES:
        if not path.is_file():
            raise UserError("no such suite file", "give a path to a YAML file, or the name of a shipped suite", file=path, exit_code=2)
        return path
    shipped = sorted(file.stem for file in SUITES.glob("*.yaml"))
    if name not in shipped:
        raise UserError("no such suite", near(name, shipped) + "; or a path to a YAML file", field="suite", value=name, exit_code=2)
    return SUITES / f"{name}.yaml"


def compose(path: Path, schema: type) -> dict[str, Any]:
    """The content of a suite file over those of the suites that it extends, without `extends` and `without`.

    Args:
        path: From `find_suite`.
        schema: Dataclass that says which keys exist.

    Raises:
        UserError: A file that is missing, unreadable or extends itself, an unknown or missing key; names the file it is in.
    """
    content = _compose(path, schema, ())
    refuse_unknown(content, schema, "", file=path)
    return content


def _compose(path: Path, schema: type, heirs: tuple[Path, ...]) -> dict[str, Any]:
    content = _read(path)
    refuse_unknown({name: value for name, value in content.items() if name not in {"extends", "without"}}, schema, "", path, whole=False)
    parent, without = content.pop("extends", None), content.pop("without", [])
    if parent is None:
        if without:
            raise UserError(
                "there is nothing to leave out", "it belongs to a suite with `extends:`", file=path, field="without", exit_code=2
            )
        return content
    if "name" not in content:
        # Two suites of one name would share working folder and records.
        raise UserError("is missing", "a suite that extends another needs a name of its own", file=path, field="name", exit_code=2)
    base = _base(path, parent)
    if base.resolve() in [heir.resolve() for heir in (*heirs, path)]:
        chain = " -> ".join(file.name for file in (*heirs, path, base))
        raise UserError(f"extends itself ({chain})", "break the circle", file=path, field="extends", value=parent, exit_code=2)
    inherited = _compose(base, schema, (*heirs, path))
    rows = _without(inherited.get("runs", []), without, path)
    merged = deep_merge(inherited, content)
    merged["runs"] = _merge_runs(rows, content.get("runs", []))
    return merged


def _read(path: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"not readable as YAML ({' '.join(str(error).split())})", "mend the file", file=path, exit_code=2) from None
    if not isinstance(content, dict):
        raise UserError("must be a mapping", file=path, field="the suite", value=content, exit_code=2)
    return content


def _base(path: Path, parent: Any) -> Path:  # noqa: ANN401 - whatever the YAML holds
    """The file that `extends` names: a YAML file relative to this one, or a shipped suite."""
    if not isinstance(parent, str):
        raise UserError("must be one file or shipped suite", "write `extends: mars`", file=path, field="extends", value=parent, exit_code=2)
    try:
        return find_suite(str(path.parent / parent) if Path(parent).suffix in _SUFFIXES else parent)
    except UserError as error:
        raise UserError(str(error), file=path, field="extends", value=parent, exit_code=2) from None


def _named(runs: Any) -> list[dict[str, Any]]:  # noqa: ANN401 - as above
    """Runs with names; others are refused later, by the schema."""
    return [run for run in runs if isinstance(run, dict)] if isinstance(runs, list) else []


def _without(runs: list[Any], names: Any, path: Path) -> list[Any]:  # noqa: ANN401 - as above
    known = [str(run.get("name")) for run in _named(runs)]
    if not isinstance(names, list):
        raise UserError("must be a list of names of runs", file=path, field="without", value=names, exit_code=2)
    for name in names:
        if name not in known:
            raise UserError(
                "no such run in the extended suite", near(str(name), known), file=path, field="without", value=name, exit_code=2
            )
    return [run for run in runs if not isinstance(run, dict) or run.get("name") not in names]


def _merge_runs(inherited: list[Any], own: Any) -> Any:  # noqa: ANN401 - as above
    if not isinstance(own, list):
        return own  # refused by the schema
    merged = list(inherited)
    places = {run["name"]: at for at, run in enumerate(inherited) if isinstance(run, dict) and "name" in run}
    for run in own:
        at = places.get(run.get("name")) if isinstance(run, dict) else None
        if at is None:
            merged.append(run)
        else:
            merged[at] = deep_merge(merged[at], run)
    return merged


def refuse_unknown(content: Any, kind: Any, where: str, file: Path | None = None, *, whole: bool = True) -> None:  # noqa: ANN401 - walks YAML values along annotations
    """Say which keys exist: jsonargparse refuses unknown and missing ones too, but does not tell.

    Args:
        content: What the YAML holds there.
        kind: Annotation that it must fit, a dataclass or made of dataclasses.
        where: Its place, for the message.
        file: The file it is in, for the message.
        whole: Refuse missing keys as well.
    """
    for option in typing.get_args(kind) if isinstance(kind, types.UnionType) else (kind,):
        if typing.get_origin(option) is list and isinstance(content, list):
            for index, item in enumerate(content):
                refuse_unknown(item, typing.get_args(option)[0], f"{where}[{index}]", file, whole=whole)
        if not dataclasses.is_dataclass(option) or (content is None and option is not kind):
            continue
        if not isinstance(content, Mapping):
            raise UserError("must be a mapping", file=file, field=where or "the suite", value=content, exit_code=2)
        fields = {item.name: item for item in dataclasses.fields(option)}
        hints = typing.get_type_hints(option)
        for name, value in content.items():
            place = f"{where}.{name}" if where else str(name)
            if name not in fields:
                raise UserError("unknown key", near(str(name), list(fields)), file=file, field=place, exit_code=2)
            refuse_unknown(value, hints[name], place, file, whole=whole)
        for name, item in fields.items():
            if whole and name not in content and item.default is dataclasses.MISSING and item.default_factory is dataclasses.MISSING:
                raise UserError("is missing", f"add `{name}:`", file=file, field=f"{where}.{name}" if where else name, exit_code=2)
