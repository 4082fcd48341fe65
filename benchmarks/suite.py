"""Suites (YAML) and the runs that they stand for.

A suite states data, budget, seeds and rows; `plan` turns it into `RunSpec`s, one a row, fold and seed.
"""

import copy
import dataclasses
import fnmatch
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from benchmarks.blocks import Blocks
from benchmarks.composing import compose, deep_merge, find_suite, near, refuse_unknown
from benchmarks.grids import expand
from benchmarks.spec import PROTOCOL, PublishedSet, Reference, RunSpec
from datamodules.errors import UserError


@dataclass(frozen=True)
class Synthesis:
    """Arguments of `datamodules.synthetic.synthesize`."""

    scenes: int = 8
    seed: int = 0
    size: int = 1024


@dataclass(frozen=True)
class Split:
    """How folds are made; arguments of `datamodules.splits.split_scenes`, with its meanings."""

    by: Literal["blocks", "scene", "region", "column"] = "blocks"
    column: str = "region"
    block_m: float = 5000.0
    buffer_m: float = 500.0
    seed: int = 0
    copies_together: bool = False

    def settings(self, folds: int) -> dict[str, Any]:
        """What decides the folds, the number of them included; an argument without a meaning for `by` is left out."""
        needed = {"blocks": ("block_m", "buffer_m", "seed"), "scene": ("buffer_m", "seed"), "column": ("column", "seed"), "region": ()}
        settings = {"folds": folds, "by": self.by, **{name: getattr(self, name) for name in needed[self.by]}}
        # Named only where it is set, so that folds made before there was such a setting keep their keys.
        return {**settings, "copies_together": True} if self.copies_together else settings


@dataclass(frozen=True)
class Data:
    """The data of a suite: a folder that exists (`root`) or synthetic scenes that are made once (`synthesize`)."""

    name: str
    root: str | None = None
    synthesize: Synthesis | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    """Arguments of `LandslideDataModule` that can change a score; not its root, batch size, seed or workers."""
    folds: int | None = None
    """Every run is done once a fold; None: once, on the splits that the data come with."""
    split: Split = field(default_factory=Split)
    """Of no meaning without folds."""
    published_set: PublishedSet | None = None
    """Declares the data to be a test set of the papers; only then are their numbers put beside the measured ones."""
    pictures: bool = True
    """False where the images must not be given away: runs keep no tiles of them, and no report shows any. No matter of a key."""


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
    grid: dict[str, Any] = field(default_factory=dict)
    """Dotted places and lists of their values; empty once `grids.expand` has made one row of each combination."""


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


def load_suite(name: str) -> Suite:
    """Read a suite and what it extends; every unknown key and wrong type is refused.

    Args:
        name: See `composing.find_suite`.

    Raises:
        UserError: Names file, field and remedy.
    """
    path = find_suite(name)
    content = compose(path, Suite)
    try:
        return _parse(content | {"runs": expand(content["runs"])})
    except UserError as error:
        raise UserError(str(error), file=path, exit_code=2) from None


def _parse(content: dict[str, Any]) -> Suite:
    # Planning a finished suite must stay quick, and jsonargparse is the only import here that is not light.
    from jsonargparse import ArgumentError, ArgumentParser  # noqa: PLC0415

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


def with_data(suite: Suite, *, root: str | None = None, folds: int | None = None, published_set: str | None = None) -> Suite:
    """The suite on other data than its file says; what is None stays as it is.

    Args:
        suite: From `load_suite`.
        root: Folder in place of `data.root` or `data.synthesize`.
        folds: In place of `data.folds`.
        published_set: In place of `data.published_set`.
    """
    changed: dict[str, Any] = {"folds": folds, "published_set": published_set}
    data = dataclasses.replace(suite.data, **{name: value for name, value in changed.items() if value is not None})
    if root is not None:
        data = dataclasses.replace(data, root=root, synthesize=None)
    suite = dataclasses.replace(suite, data=data)
    _check_data(data)
    return suite


RESERVED_SETTINGS: Final = {
    "root": "it is data.root or data.synthesize",
    "batch_size": "it is budget.batch_size",
    "samples_per_epoch": "it follows from budget.validate_every",
    "seed": "it is the run's seed",
    "num_workers": "it is a matter of the machine: zoo-bench run --num-workers",
    "cache_dir": "it is a matter of the machine: zoo-bench run --cache-dir",
    "cache_untiled": "it never changes a result; leave it out",
}
"""Arguments of the data module that a suite states elsewhere."""


def _check(suite: Suite) -> None:
    """What types cannot say."""
    _check_data(suite.data)
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
        refuse_unknown({**dataclasses.asdict(suite.budget), **run.budget}, Budget, f"{where}.budget")
        _check_settings(f"{where}.data", run.data)
    names = [run.name for run in suite.runs]
    for name, baseline in suite.baselines().items():
        if baseline not in names:
            raise UserError(f"no such run to compare {name!r} with", near(baseline, names), field="baseline", value=baseline, exit_code=2)


def _check_data(data: Data) -> None:
    if (data.root is None) == (data.synthesize is None):
        remedy = "give exactly one of them; a suite that extends another sets the other to null"
        raise UserError("needs either `root` or `synthesize`", remedy, field="data", exit_code=2)
    if data.folds is not None and data.folds < 3:
        raise UserError("is below 3", "train, val and test need a fold each", field="data.folds", value=data.folds, exit_code=2)
    if data.published_set is not None and data.synthesize is not None:
        remedy = "declare it for the papers' own data only"
        raise UserError("synthetic scenes are no published set", remedy, field="data.published_set", value=data.published_set, exit_code=2)


def _refuse_twins(place: str, values: Sequence[Any]) -> None:
    for value in values:
        if values.count(value) > 1:
            raise UserError("is given twice", "remove one of them", field=place, value=value, exit_code=2)


def _check_settings(place: str, settings: Mapping[str, Any]) -> None:
    for name in RESERVED_SETTINGS.keys() & settings.keys():
        raise UserError("does not belong here", RESERVED_SETTINGS[name], field=f"{place}.{name}", exit_code=2)


def plan(
    suite: Suite,
    *,
    fingerprint: str = "",
    seeds: Sequence[int] | None = None,
    only_folds: Sequence[int] | None = None,
    only_rows: Sequence[str] | None = None,
) -> list[RunSpec]:
    """The runs of a suite: references first, then row by row, fold by fold, seed by seed.

    Args:
        suite: From `load_suite`.
        fingerprint: Of its data; without it only the `identity` of a spec is meaningful, not its `key`.
        seeds: Instead of the suite's own.
        only_folds: Some of the suite's folds, instead of all.
        only_rows: Names or shell patterns of some of its rows, references among them, instead of all.

    Raises:
        UserError: A row that does not exist, a fold likewise, or two rows that are the same run.
    """
    shared: dict[str, Any] = {"suite": suite.name, "data_name": suite.data.name, "data_fingerprint": fingerprint}
    shared |= {"published_set": suite.data.published_set, "protocol": PROTOCOL}
    if suite.data.folds is not None:
        shared |= {"split": suite.data.split.settings(suite.data.folds)}
    folds = _chosen_folds(suite, only_folds)
    specs = [
        RunSpec(name=name, method=name, hyperparameters={}, data_settings=suite.data.settings, budget=None, seed=None, fold=fold, **shared)
        for name in suite.references
        for fold in folds
    ]
    known = {spec.key: spec for spec in specs}
    for run in suite.runs:
        budget = dataclasses.replace(suite.budget, **run.budget)
        row = RunSpec(
            name=run.name,
            method=str(run.method or suite.common.method),
            hyperparameters=deep_merge(suite.common.hyperparameters, run.hyperparameters),
            data_settings=deep_merge(suite.data.settings, run.data),
            budget=dataclasses.asdict(budget),
            seed=None,
            **shared,
        )
        for fold in folds:
            for seed in suite.seeds if seeds is None else seeds:
                spec = dataclasses.replace(row, fold=fold, seed=seed)
                twin = known.setdefault(spec.key, spec)
                if twin is not spec:
                    message = f"rows {twin.name!r} and {spec.name!r} are the same run"
                    raise UserError(message, "remove one, or change what it varies", field="runs", exit_code=2)
                specs.append(spec)
    chosen = _chosen_rows(list(dict.fromkeys(spec.name for spec in specs)), only_rows)
    return [spec for spec in specs if spec.name in chosen]


def _chosen_rows(names: Sequence[str], only: Sequence[str] | None) -> set[str]:
    if only is None:
        return set(names)
    chosen: set[str] = set()
    for pattern in only:
        # A name before a pattern: brackets belong to both.
        found = {pattern} & set(names) or set(fnmatch.filter(names, pattern))
        if not found:
            raise UserError("the suite has no such row", near(pattern, names), field="--rows", value=pattern, exit_code=2)
        chosen |= found
    return chosen


def _chosen_folds(suite: Suite, only: Sequence[int] | None) -> Sequence[int | None]:
    if suite.data.folds is None:
        if only is not None:
            raise UserError("the suite has no folds", "give --folds, or `folds:` below `data:`", field="--fold", value=only, exit_code=2)
        return [None]
    for fold in only or ():
        if not 0 <= fold < suite.data.folds:
            raise UserError(f"must be 0 to {suite.data.folds - 1}", field="--fold", value=fold, exit_code=2)
    return range(suite.data.folds) if only is None else sorted(set(only))
