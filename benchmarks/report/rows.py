"""Records -> rows. A row is one entry of the suite; the runs that differ from each other in fold and seed alone share it."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.blocks import Blocks
from benchmarks.record import RunRecord, load_histograms
from benchmarks.spec import RunSpec
from benchmarks.statistics import Spread, UnitCounts, spread, unit_counts
from benchmarks.suite import Suite, plan

Derived = Mapping[str, Mapping[str, float]]
"""Key of a record -> score of the test split -> value."""


@dataclass(frozen=True)
class Tested:
    """What the test of a row counted, one run a seed; the folds of a seed are pooled."""

    seeds: list[int | None]
    """Those that were tested on all tiles of the row: of a suite that is not finished, a seed may lack a fold."""
    tiles: frozenset[tuple[int | None, str]]
    """Fold and tile; only rows with equal ones can be paired."""
    counts: np.ndarray[Any, np.dtype[np.int64]]
    """(seeds, units, 3) true positives, false positives, false negatives."""


@dataclass
class Row:
    """One line of a comparison."""

    spec: RunSpec
    """Of one of its runs; fold and seed do not matter here."""
    planned: list[tuple[int | None, int | None]]
    """Folds and seeds that the suite asks for; the fold is None without folds, the seed for a reference."""
    finished: list[RunRecord] = field(default_factory=list)
    """By fold and seed, ascending; seeds beyond the planned ones included."""
    failed: list[RunRecord] = field(default_factory=list)
    tested: Tested | None = None
    """None where nothing is finished, or the histograms were not asked for."""
    derived: Derived = field(default_factory=dict)
    """Scores that follow from the histograms of finished records."""

    @property
    def inputs(self) -> str:
        """What the network sees."""
        return str(self.finished[0].model.get("inputs", "")) if self.finished else ""

    @property
    def records(self) -> list[RunRecord]:
        """Finished and failed."""
        return [*self.finished, *self.failed]

    @property
    def missing(self) -> list[tuple[int | None, int | None]]:
        """Planned folds and seeds without any record."""
        there = {fold_and_seed(record) for record in self.records}
        return [planned for planned in self.planned if planned not in there]

    def score(self, name: str, split: str = "test") -> Spread:
        """Mean and spread of a score over seeds, and folds where there are any."""
        return spread([self.scores_of(record, split).get(name, math.nan) for record in self.finished])

    def scores_of(self, record: RunRecord, split: str = "test") -> dict[str, float]:
        """All scores of one run: those of its record, and on test those that follow from its histograms."""
        derived = self.derived.get(record.key, {}) if split == "test" else {}
        return {**derived, **record.metrics.get(split, {})}

    def cost(self, name: str) -> Spread:
        """Mean and spread of a cost over seeds."""
        values = [record.cost.get(name) for record in self.finished]
        return spread([math.nan if value is None else float(value) for value in values])


@dataclass
class Report:
    """All that a report shows."""

    suite: Suite
    rows: list[Row]
    references: list[Row]
    left_out: list[str]
    """Keys of records that no entry of the suite asks for: of other settings, or of an older version of the data."""

    @property
    def records(self) -> list[RunRecord]:
        """Finished records of all rows, references first."""
        return [record for row in [*self.references, *self.rows] for record in row.finished]

    @property
    def measured(self) -> list[Row]:
        """Rows of which a run is finished, references last: what the tables behind the first one have lines for."""
        return [row for row in [*self.rows, *self.references] if row.finished]

    @property
    def failed(self) -> list[tuple[Row, RunRecord]]:
        """Failed records with their row."""
        return [(row, record) for row in [*self.references, *self.rows] for record in row.failed]


def fold_and_seed(record: RunRecord) -> tuple[int | None, int | None]:
    """Which repetition of its row a record is; records that are older than folds have none."""
    return record.spec.get("fold"), record.spec["seed"]


def _order(item: tuple[str, RunRecord]) -> tuple[int, int, str]:
    fold, seed = fold_and_seed(item[1])
    return -1 if fold is None else fold, -1 if seed is None else seed, item[0]


def collect(suite: Suite, records: Mapping[str, RunRecord], folder: Path | None = None) -> Report:
    """Sort records into the rows of a suite.

    A record belongs to the row whose settings it was made with, whatever the row was called then. Should the records stem from several
    versions of the data, the newest version counts: that of the record with the latest date.

    Args:
        suite: From `load_suite`.
        records: By key.
        folder: Of the records, for their histograms; without it no row has `tested` or `derived`, and the report no intervals.
    """
    rows: dict[str, Row] = {}
    for spec in plan(suite):
        row = rows.setdefault(spec.identity, Row(spec, []))
        row.planned.append((spec.fold, spec.seed))
    mine = {key: record for key, record in records.items() if RunSpec.from_dict(record.spec).identity in rows}
    # What failed says nothing of other results, as long as there are some.
    counting = [record for record in mine.values() if record.status == "finished"] or list(mine.values())
    dated = [(str(record.environment.get("date", "")), str(record.spec["data_fingerprint"])) for record in counting]
    current = max(dated)[1] if dated else ""
    left_out = []
    for key, record in sorted(records.items(), key=_order):
        if key not in mine or record.spec["data_fingerprint"] != current:
            left_out.append(key)
            continue
        row = rows[RunSpec.from_dict(record.spec).identity]
        (row.finished if record.status == "finished" else row.failed).append(record)
    ordered = list(rows.values())
    if folder is not None:
        from benchmarks.report.derived import derive  # noqa: PLC0415 - brings torch, which planning does without

        derived = derive(records, folder)
        for row in ordered:
            row.tested, row.derived = _tested(row, folder, suite.blocks), derived
    return Report(
        suite=suite,
        rows=[row for row in ordered if not row.spec.is_reference],
        references=[row for row in ordered if row.spec.is_reference],
        left_out=left_out,
    )


def _tested(row: Row, folder: Path, blocks: Blocks) -> Tested | None:
    parts: dict[int | None, dict[int | None, UnitCounts]] = {}
    for record in row.finished:
        histograms = load_histograms(folder / f"{record.key}.npz")["test"]
        counted = unit_counts(histograms, record.metrics["test"]["threshold"], blocks)
        parts.setdefault(record.spec["seed"], {})[record.spec.get("fold")] = counted
    tiles = {seed: frozenset((fold, tile) for fold, part in folds.items() for tile in part.tiles) for seed, folds in parts.items()}
    everything = frozenset().union(*tiles.values())
    if not everything:
        return None
    seeds = [seed for seed in parts if tiles[seed] == everything]
    units = sorted({unit for folds in parts.values() for part in folds.values() for unit in part.units})
    place = {name: index for index, name in enumerate(units)}
    counts = np.zeros((len(seeds), len(units), 3), np.int64)
    for index, seed in enumerate(seeds):
        for part in parts[seed].values():
            counts[index, [place[unit] for unit in part.units]] += part.counts
    return Tested(seeds, everything, counts)
