"""Single runs: scores of each, those that failed and why, and what they were made with."""

import json
import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import numpy as np

from benchmarks.record import RunRecord
from benchmarks.report.page.elements import NUM_BINS, Counts, folded, name_of, paragraph, section, table
from benchmarks.report.rows import Report, Row, fold_and_seed
from benchmarks.report.tables import NOTHING, number, seeds_table

MAX_SCENES = 60
"""Lines of the table of scenes; of more, those are shown on which the rows differ most."""


def failures(report: Report) -> str:
    """Each failed run: how it ended, what to do, the end of its log."""
    return section("Failed runs", *(_failure(row, record) for row, record in report.failed))


def _failure(row: Row, record: RunRecord) -> str:
    error: dict[str, Any] = record.error or {}
    fold, seed = fold_and_seed(record)
    title = name_of(row) + ("" if fold is None else f", fold {fold}") + ("" if seed is None else f", seed {seed}")
    attempts = error.get("attempts")
    facts = [
        ("ended", f"{error.get('reason', '')}{'' if attempts is None else f', attempt {attempts}'}"),
        ("what to do", str(error.get("remedy", "read the log, then run the suite again"))),
        ("log", str(error.get("log", ""))),
        ("made with", ", ".join(part for part in (_code(record.environment), _machine(record.environment)) if part) or "not told"),
    ]
    listed = "".join(f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in facts)
    tail = error.get("tail")
    log = folded(f"last {len(tail)} lines of the log", f"<pre>{escape(chr(10).join(tail))}</pre>") if tail else ""
    return f'<article class="failed"><h3>{escape(title)}</h3><p>{escape(str(error.get("line", "")))}</p><dl>{listed}</dl>{log}</article>'


def seeds(report: Report) -> str:
    """Every run in a line, those that are missing included."""
    header, lines = seeds_table(report)
    return section("Each run", folded(f"{len(lines)} runs", table(header, lines))) if lines else ""


def environments(report: Report) -> str:
    """Code, machine and packages of all runs; runs that were made alike share a line."""
    alike: dict[str, list[RunRecord]] = {}
    for record in [*report.records, *(record for _, record in report.failed)]:
        if record.environment:
            known = {name: value for name, value in record.environment.items() if name != "date"}
            alike.setdefault(json.dumps(known, sort_keys=True), []).append(record)
    lines = []
    for text, records in sorted(alike.items()):
        environment = json.loads(text)
        days = sorted(str(record.environment.get("date", ""))[:10] for record in records)
        packages = ", ".join(f"{name} {version}" for name, version in sorted(environment.get("packages", {}).items()) if version)
        threads = environment.get("threads")
        lines.append(
            [
                _code(environment) or NOTHING,
                str(len(records)),
                days[0] if days[0] == days[-1] else f"{days[0]} to {days[-1]}",
                str(environment.get("gpu") or environment.get("cpu") or NOTHING),
                NOTHING if threads is None else f"{threads} of {environment.get('cores', '?')}",
                str(environment.get("system", NOTHING)),
                str(environment.get("python", NOTHING)),
                packages,
            ]
        )
    header = ["code", "runs", "made", "machine", "threads a run", "system", "Python", "packages"]
    return section("Environment", table(header, lines, kind="sortable long")) if lines else ""


def _code(environment: Mapping[str, Any]) -> str:
    git = environment.get("git") or {}
    if git.get("commit") is None:
        return ""
    return f"{git['commit'][:12]}{' with changes' if git.get('dirty') else ''}"


def _machine(environment: Mapping[str, Any]) -> str:
    return str(environment.get("gpu") or environment.get("cpu") or "")


def scenes(rows: Sequence[Row], tested: Sequence[Sequence[Mapping[str, Counts]]]) -> str:
    """IoU of each test scene, counts of all seeds pooled at the threshold of each."""
    counts: dict[str, list[Counts]] = {}
    for index, (row, runs) in enumerate(zip(rows, tested, strict=True)):
        for record, run in zip(row.finished, runs, strict=True):
            edge = math.ceil(record.metrics["test"]["threshold"] * NUM_BINS - 1e-9)
            for tile, histogram in run.items():
                scene = counts.setdefault(tile.rsplit(":", 2)[0], [np.zeros(2, np.int64) for _ in rows])
                hit = int(histogram[1, edge:].sum())
                scene[index] += np.array([hit, int(histogram[1].sum()) + int(histogram[0, edge:].sum())])
    if len(counts) < 2:
        return ""
    scores = {scene: [hit / union if union else math.nan for hit, union in values] for scene, values in counts.items()}
    apart = {scene: np.nanmax(values) - np.nanmin(values) if not np.isnan(values).all() else -1.0 for scene, values in scores.items()}
    shown = sorted(sorted(scores, key=lambda scene: -apart[scene])[:MAX_SCENES])
    lines = [[scene, *(number(score) for score in scores[scene])] for scene in shown]
    note = f" The {MAX_SCENES} of {len(scores)} on which the rows differ most." if len(scores) > MAX_SCENES else ""
    listed = paragraph(f"All seeds pooled.{note}") + table(["scene", *map(name_of, rows)], lines)
    return section("Each scene", folded(f"IoU of {len(shown)} scenes", listed))
