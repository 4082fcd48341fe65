"""Folds and the leak audit of what runs are going to read: made once, kept by the fingerprint of the data.

A run on splits that leak is refused, unless `--allow-leaks` asks for it; the finding then stands in each record and over the report.
"""

import json
import math
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from benchmarks.atomic import write_json
from benchmarks.dataset import Portion
from datamodules.errors import UserError
from datamodules.scene import MANIFEST, Scene, fingerprint, read_manifest, read_scenes, write_manifest

if TYPE_CHECKING:
    from datamodules.findings import AuditReport

VERSION: Final = 1
"""Of the summary; raised when what is kept or what the audit looks for changes, so that older summaries are made anew."""
AUDIT: Final = "audit.json"
"""In the working folder of a run."""
_MOST_LISTED: Final = 20


def prepare(portions: Iterable[Portion]) -> None:
    """Make folds and audits that are not there yet. Reads all data; belongs into a process of its own.

    Raises:
        UserError: The data cannot be split as asked for.
    """
    from datamodules.audit import audit  # noqa: PLC0415 - OpenCV, rasterio and scipy, which a finished suite never needs

    for portion in portions:
        if portion.fold is not None and not portion.folds.is_dir():
            _make_folds(portion)
        if load_audit(portion) is None:
            scenes = read_scenes(portion.folder)
            write_json(portion.audit, summarise(audit(scenes), scenes))


def _make_folds(portion: Portion) -> None:
    from datamodules.splits import split_scenes  # noqa: PLC0415 - as above

    assert portion.split is not None
    settings = {"block_m": 5000.0, "buffer_m": 0.0, "seed": 0, **portion.split}  # what is added has no meaning for `by`
    portion.folds.parent.mkdir(parents=True, exist_ok=True)
    try:
        made = split_scenes(portion.root, portion.folds, **settings)
    except OSError:
        if portion.folds.is_dir():
            return  # another runner was quicker; its folds are the same
        raise
    if len(made) != settings["folds"]:
        shutil.rmtree(portion.folds)
        message = f"the data name {len(made)} regions, each of which is a fold"
        raise UserError(message, f"set folds to {len(made)}", field="data.folds", value=settings["folds"], exit_code=2)


def summarise(report: "AuditReport", scenes: Sequence[Scene]) -> dict[str, Any]:
    """What a record keeps of an audit, in plain values.

    Returns:
        version, passed, the number of findings of each level (leak, error, warning), the first leaks and errors in words, the
        distance_m and prevalence of splits, and scenes_sha256: splits and contents of all scenes, wherever they lie.
    """
    bad = [finding for finding in report.findings if finding.level != "warning"]
    return {
        "version": VERSION,
        "passed": report.passed,
        "findings": {level: sum(finding.level == level for finding in report.findings) for level in ("leak", "error", "warning")},
        "leaks": [f"{finding.kind}: {', '.join(finding.scenes)}: {finding.detail}" for finding in bad[:_MOST_LISTED]],
        "distance_m": {pair: round(metres, 3) if math.isfinite(metres) else None for pair, metres in sorted(report.distance_m.items())},
        "prevalence": {split: counts["prevalence"] for split, counts in report.splits.items()},
        "scenes_sha256": fingerprint(scenes),
    }


def load_audit(portion: Portion) -> dict[str, Any] | None:
    """The summary of an audit that was made; None where there is none of this version."""
    try:
        summary: dict[str, Any] = json.loads(portion.audit.read_text(encoding="utf-8"))
    except (FileNotFoundError, json.JSONDecodeError):
        return None  # only a cache: without it the data are audited again
    return summary if summary.get("version") == VERSION else None


def refuse_leaks(portions: Iterable[Portion], *, allow: bool) -> list[str]:
    """Stop a benchmark whose splits leak.

    Args:
        portions: Audited before.
        allow: Go on nevertheless.

    Returns:
        A line for each portion that leaks.

    Raises:
        UserError: A file cannot be read, or there is a leak that was not allowed.
    """
    told = []
    for portion in portions:
        summary = load_audit(portion)
        assert summary is not None
        if summary["passed"]:
            continue
        line = f"{leaks_of(summary)}; the first is {summary['leaks'][0]}"
        remedy = f"`zoo-data check {portion.folder}` lists all; mend them"
        if summary["findings"]["error"]:
            raise UserError(f"cannot be used: {line}", remedy, file=portion.folder, field="data")
        if not allow:
            raise UserError(f"its splits leak: {line}", f"{remedy}, or give --allow-leaks", file=portion.folder, field="data")
        told.append(f"{portion.folder}: {line}")
    return told


def leaks_of(summary: Mapping[str, Any]) -> str:
    """How many leaks and unreadable files an audit found."""
    found = summary["findings"]
    return f"{found['leak']} leak(s) between splits" + (f", {found['error']} unreadable file(s)" if found["error"] else "")


def furnish(portion: Portion, work: Path) -> None:
    """Put what a run needs to know of its data into its working folder: `audit.json`, and of a fold `scenes.csv`, which the run reads."""
    summary = load_audit(portion)
    if summary is not None:
        write_json(work / AUDIT, summary)
    if portion.fold is not None:
        write_manifest(read_manifest(portion.folder / MANIFEST), work / MANIFEST)
