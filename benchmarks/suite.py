"""Suites (YAML) and the runs that they stand for.

A suite states data, budget, seeds and rows; `plan` turns it into `RunSpec`s, one a row and seed. A spec is what determines a
score, and nothing else: `RunSpec.key` hashes an explicit allow-list of its fields, so that a result is found again whatever
devices, workers, paths or names of rows were used to make it.
"""

import copy
import dataclasses
import difflib
import hashlib
import json
import os
import re
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

import yaml

from benchmarks.blocks import Blocks
from datamodules.errors import UserError

PROTOCOL: Final = 1
"""Version of what `benchmarks.run` does with a spec; raised when the same spec would score differently, and part of each key."""

SUITES: Final = Path(__file__).parent / "suites"
REFERENCES: Final = ("all_background", "slope_threshold")
Reference = Literal["all_background", "slope_threshold"]


@dataclass(frozen=True)
class Synthesis:
    """Arguments of `datamodules.synthetic.synthesize`."""

    scenes: int = 8
    seed: int = 0
    size: int = 1024


@dataclass(frozen=True)
class Data:
    """The data of a suite: a folder that exists (`root`) or synthetic scenes that are made once (`synthesize`)."""

    name: str
    root: str | None = None
    synthesize: Synthesis | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    """Arguments of `LandslideDataModule` that can change a score; not its root, batch size, seed or workers."""


@dataclass(frozen=True)
class Budget:
    """What every run may spend, counted in optimiser steps so that it does not depend on the machine.

    `batch_size` is the number of windows of one forward pass over all devices together; `accumulate` such passes make a step.
    The weights that are tested are the `best` by `val/iou_landslide` or the `last`.
    """

    max_steps: int
    validate_every: int
    batch_size: int = 8
    accumulate: int = 1
    precision: str = "32-true"
    gradient_clip: float | None = None
    select: Literal["best", "last"] = "best"

    def __post_init__(self) -> None:
        for name in ("max_steps", "validate_every", "batch_size", "accumulate"):
            if getattr(self, name) < 1:
                raise UserError("must be at least 1", field=f"budget.{name}", value=getattr(self, name), exit_code=2)
        if self.max_steps % self.validate_every:
            raise UserError(
                f"is not a multiple of validate_every = {self.validate_every}",
                "the last steps would never be validated; change one of the two",
                field="budget.max_steps",
                value=self.max_steps,
                exit_code=2,
            )


@dataclass(frozen=True)
class Run:
    """One row: a method with its hyperparameters; `data` and `budget` override single settings of the suite."""

    name: str
    method: str | None = None
    hyperparameters: dict[str, Any] = field(default_factory=dict)
    data: dict[str, Any] = field(default_factory=dict)
    budget: dict[str, Any] = field(default_factory=dict)
    baseline: str | None = None
    """Name of the run that this one's gains are measured against."""


@dataclass(frozen=True)
class Common:
    """What all rows share; a row's own values win, nested ones key by key."""

    method: str | None = None
    hyperparameters: dict[str, Any] = field(default_factory=dict)
    baseline: str | None = None


@dataclass(frozen=True)
class Suite:
    """One comparison: the same data and budget for every row."""

    name: str
    data: Data
    budget: Budget
    seeds: list[int]
    runs: list[Run]
    title: str = ""
    common: Common = field(default_factory=Common)
    references: list[Reference] = field(default_factory=list)
    blocks: Blocks = field(default_factory=Blocks)
    """What the bootstrap of the report draws; no matter of a run."""

    def baselines(self) -> dict[str, str]:
        """Name of a run -> name of the run that its gains are measured against; runs without one are absent."""
        stated = {run.name: run.baseline or self.common.baseline for run in self.runs}
        return {name: baseline for name, baseline in stated.items() if baseline is not None and baseline != name}


@dataclass(frozen=True)
class RunSpec:
    """All that determines the score of one run, plus the names (`suite`, `name`, `data_name`) by which people know it."""

    suite: str
    name: str
    method: str
    hyperparameters: dict[str, Any]
    data_name: str
    data_settings: dict[str, Any]
    budget: dict[str, Any] | None
    """Fields of `Budget`; None for a reference row, which trains nothing."""
    seed: int | None
    """None for a reference row."""
    data_fingerprint: str = ""
    """Hash of the contents of the data set (`dataset.fingerprint`); empty as long as the data were not looked at."""

    # The allow-list. A field that is missing here can never make a finished result look stale; one that is wrongly missing
    # would reuse results that it changes. The tests hold both directions.
    KEYED: typing.ClassVar[tuple[str, ...]] = ("method", "hyperparameters", "data_settings", "data_fingerprint", "budget", "seed")

    @property
    def key(self) -> str:
        """Twelve hex digits that name the run and its record."""
        return self._hash(self.KEYED)

    @property
    def identity(self) -> str:
        """The key without data contents and seed: equal for the records that belong into one row of a report."""
        return self._hash(tuple(name for name in self.KEYED if name not in {"data_fingerprint", "seed"}))

    @property
    def title(self) -> str:
        """Row and seed, for people."""
        return self.name if self.seed is None else f"{self.name}, seed {self.seed}"

    @property
    def is_reference(self) -> bool:
        """True for rows that train nothing."""
        return self.method in REFERENCES

    def _hash(self, names: Sequence[str]) -> str:
        content = {"protocol": PROTOCOL, **{name: getattr(self, name) for name in names}}
        canonical = json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)
        return hashlib.sha256(canonical.encode()).hexdigest()[:12]

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "RunSpec":
        """The inverse of `to_dict`."""
        return cls(**values)


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
    matches = difflib.get_close_matches(word, known, n=3, cutoff=0.6)
    return f"did you mean {', '.join(matches)}? Known: {', '.join(known)}" if matches else f"known: {', '.join(known)}"


def find_suite(name: str) -> Path:
    """The file of a shipped suite (`demo`) or of the user's own (a path to a YAML file)."""
    path = Path(name)
    if path.suffix in {".yaml", ".yml"}:
        if not path.is_file():
            raise UserError("no such suite file", "give a path to a YAML file, or the name of a shipped suite", file=path, exit_code=2)
        return path
    shipped = sorted(file.stem for file in SUITES.glob("*.yaml"))
    if name not in shipped:
        raise UserError("no such suite", near(name, shipped) + "; or a path to a YAML file", field="suite", value=name, exit_code=2)
    return SUITES / f"{name}.yaml"


def load_suite(name: str) -> Suite:
    """Read a suite; every unknown key and wrong type is refused.

    Args:
        name: See `find_suite`.

    Raises:
        UserError: Names file, field and remedy.
    """
    path = find_suite(name)
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"not readable as YAML ({' '.join(str(error).split())})", "mend the file", file=path, exit_code=2) from None
    try:
        return _parse(content)
    except UserError as error:
        raise UserError(str(error), file=path, exit_code=2) from None


def _parse(content: Any) -> Suite:  # noqa: ANN401 - whatever the YAML holds
    # Planning a finished suite must stay quick, and jsonargparse is the only import here that is not light.
    from jsonargparse import ArgumentError, ArgumentParser  # noqa: PLC0415

    _refuse_unknown(content, Suite, "")
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("suite", type=Suite)
    try:
        parsed = parser.parse_object({"suite": copy.deepcopy(content)})  # it writes into what it is given
        suite = parser.instantiate(parsed).suite
    except ArgumentError as error:
        raise UserError(" ".join(str(error).split()), exit_code=2) from None
    assert isinstance(suite, Suite)
    _check(suite)
    return suite


def _refuse_unknown(content: Any, kind: Any, where: str) -> None:  # noqa: ANN401 - walks YAML values along annotations
    """Say which keys exist: jsonargparse refuses unknown and missing ones too, but does not tell."""
    for option in typing.get_args(kind) if isinstance(kind, types.UnionType) else (kind,):
        if typing.get_origin(option) is list and isinstance(content, list):
            for index, item in enumerate(content):
                _refuse_unknown(item, typing.get_args(option)[0], f"{where}[{index}]")
        if not dataclasses.is_dataclass(option) or (content is None and option is not kind):
            continue
        if not isinstance(content, Mapping):
            raise UserError("must be a mapping", field=where or "the suite", value=content, exit_code=2)
        fields = {item.name: item for item in dataclasses.fields(option)}
        hints = typing.get_type_hints(option)
        for name, value in content.items():
            place = f"{where}.{name}" if where else str(name)
            if name not in fields:
                raise UserError("unknown key", near(str(name), list(fields)), field=place, exit_code=2)
            _refuse_unknown(value, hints[name], place)
        for name, item in fields.items():
            if name not in content and item.default is dataclasses.MISSING and item.default_factory is dataclasses.MISSING:
                raise UserError("is missing", f"add `{name}:`", field=f"{where}.{name}" if where else name, exit_code=2)


RESERVED_SETTINGS: Final = {
    "root": "it is data.root or data.synthesize",
    "batch_size": "it is budget.batch_size",
    "samples_per_epoch": "it follows from budget.validate_every",
    "seed": "it is the run's seed",
    "num_workers": "it is a matter of the machine: zoo-bench run --num-workers",
}
"""Arguments of the data module that a suite states elsewhere."""


def _check(suite: Suite) -> None:
    """What types cannot say."""
    if (suite.data.root is None) == (suite.data.synthesize is None):
        raise UserError("needs either `root` or `synthesize`", "give exactly one of them", field="data", exit_code=2)
    if not re.fullmatch(r"[A-Za-z0-9_-]+", suite.name):
        raise UserError("must be letters, digits, - and _", "it names a folder", field="name", value=suite.name, exit_code=2)
    if not suite.seeds:
        raise UserError("is empty", "list at least one", field="seeds", exit_code=2)
    _refuse_twins("seeds", suite.seeds)
    _refuse_twins("runs", [run.name for run in suite.runs])
    _refuse_twins("references", suite.references)
    _check_settings("data.settings", suite.data.settings)
    for index, run in enumerate(suite.runs):
        where = f"runs[{index}]"
        if (run.method or suite.common.method) is None:
            raise UserError("no method", "add `method:` to the row or to `common:`", field=f"{where}.method", exit_code=2)
        _refuse_unknown({**dataclasses.asdict(suite.budget), **run.budget}, Budget, f"{where}.budget")
        _check_settings(f"{where}.data", run.data)
    names = [run.name for run in suite.runs]
    for name, baseline in suite.baselines().items():
        if baseline not in names:
            raise UserError(f"no such run to compare {name!r} with", near(baseline, names), field="baseline", value=baseline, exit_code=2)


def _refuse_twins(place: str, values: Sequence[Any]) -> None:
    for value in values:
        if values.count(value) > 1:
            raise UserError("is given twice", "remove one of them", field=place, value=value, exit_code=2)


def _check_settings(place: str, settings: Mapping[str, Any]) -> None:
    for name in RESERVED_SETTINGS.keys() & settings.keys():
        raise UserError("does not belong here", RESERVED_SETTINGS[name], field=f"{place}.{name}", exit_code=2)


def data_root(suite: Suite) -> Path | None:
    """The folder of `data.root` with its variables filled in; None for synthetic data.

    Raises:
        UserError: A variable is not set, or there is no such folder.
    """
    if suite.data.root is None:
        return None
    for name in re.findall(r"\$\{(\w+)\}", suite.data.root):
        if not os.environ.get(name):
            raise UserError(
                f"the environment variable {name} is not set",
                f"export {name}=FOLDER of the data sets",
                field="data.root",
                value=suite.data.root,
            )
    root = Path(os.path.expandvars(suite.data.root)).expanduser()
    if not root.is_dir():
        raise UserError("no such folder", "correct data.root of the suite", file=root, field="data.root", value=suite.data.root)
    return root


def plan(suite: Suite, *, fingerprint: str = "", seeds: Sequence[int] | None = None) -> list[RunSpec]:
    """The runs of a suite: references first, then row by row, seed by seed.

    Args:
        suite: From `load_suite`.
        fingerprint: Of its data; without it only the `identity` of a spec is meaningful, not its `key`.
        seeds: Instead of the suite's own.
    """
    shared = {"suite": suite.name, "data_name": suite.data.name, "data_fingerprint": fingerprint}
    specs = [
        RunSpec(name=name, method=name, hyperparameters={}, data_settings=suite.data.settings, budget=None, seed=None, **shared)
        for name in suite.references
    ]
    for run in suite.runs:
        budget = dataclasses.replace(suite.budget, **run.budget)
        for seed in suite.seeds if seeds is None else seeds:
            spec = RunSpec(
                name=run.name,
                method=str(run.method or suite.common.method),
                hyperparameters=deep_merge(suite.common.hyperparameters, run.hyperparameters),
                data_settings=deep_merge(suite.data.settings, run.data),
                budget=dataclasses.asdict(budget),
                seed=seed,
                **shared,
            )
            twin = next((other for other in specs if other.key == spec.key), None)
            if twin is not None:
                raise UserError(
                    f"rows {twin.name!r} and {spec.name!r} are the same run",
                    "remove one, or change what it varies",
                    field="runs",
                    exit_code=2,
                )
            specs.append(spec)
    return specs
