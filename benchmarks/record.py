"""The result of one run: a JSON record and, beside it, the score histograms from which any pixel score can be derived.

    RESULTS/records/<key>.json    what was run, its scores, cost, environment and data, or how it failed
    RESULTS/records/<key>.npz     val_tiles, val_histograms (N, 2, 256), test_tiles, test_histograms (M, 2, 256)

Both are written whole or not at all, the JSON last: a record that can be read is complete. Scores that do not exist (the
precision of an empty prediction) are NaN in Python and null in JSON.
"""

import dataclasses
import io
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np

from benchmarks.atomic import write_bytes, write_json
from benchmarks.spec import RunSpec
from datamodules.errors import UserError

SCHEMA_VERSION: Final = 1
Histograms = Mapping[str, Mapping[str, np.ndarray[Any, np.dtype[np.int64]]]]
"""Split (`val`, `test`) -> tile -> int64 (2, 256)."""


@dataclass(frozen=True)
class RunRecord:
    """Everything that is known about a run that ended."""

    key: str
    status: Literal["finished", "failed"]
    spec: dict[str, Any]
    """Fields of `RunSpec`."""
    metrics: dict[str, dict[str, float]] = field(default_factory=dict)
    """Split -> names of `zoo.metrics.pixels.pixel_scores`, and of what a method scores beside pixels (`tile_f1`) -> value."""
    model: dict[str, Any] = field(default_factory=dict)
    """What the network turned out to be: `inputs`, `parameters`, ..."""
    cost: dict[str, Any] = field(default_factory=dict)
    environment: dict[str, Any] = field(default_factory=dict)
    data: dict[str, Any] = field(default_factory=dict)
    error: dict[str, Any] | None = None
    """Of a failed run: `line` (the last error line), `log` (its path), `reason` (how it ended); see `benchmarks.failures.explain`."""
    schema_version: int = SCHEMA_VERSION


def _null_for_nan(value: Any) -> Any:  # noqa: ANN401 - any JSON value
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {name: _null_for_nan(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_null_for_nan(item) for item in value]
    return value


def histograms_to_bytes(histograms: Histograms) -> bytes:
    """The npz file; equal histograms give equal bytes, whatever order their tiles came in."""
    arrays: dict[str, Any] = {}
    for split, tiles in histograms.items():
        names = sorted(tiles)
        arrays[f"{split}_tiles"] = np.array(names, dtype=np.str_)
        arrays[f"{split}_histograms"] = (
            np.stack([tiles[name] for name in names]).astype(np.int64) if names else np.zeros((0, 2, 256), np.int64)
        )
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    return buffer.getvalue()


def load_histograms(path: Path) -> dict[str, dict[str, np.ndarray[Any, np.dtype[np.int64]]]]:
    """The inverse of `histograms_to_bytes`."""
    with np.load(path, allow_pickle=False) as arrays:
        splits = sorted(name.removesuffix("_tiles") for name in arrays.files if name.endswith("_tiles"))
        return {split: dict(zip(arrays[f"{split}_tiles"].tolist(), arrays[f"{split}_histograms"], strict=True)) for split in splits}


def save_record(record: RunRecord, folder: Path, histograms: Histograms | None = None) -> Path:
    """Write a record, and its histograms before it.

    Args:
        record: A record of the same key is replaced.
        folder: `RESULTS/records`.
        histograms: Of a finished run.

    Returns:
        The path of the JSON file.
    """
    path = folder / f"{record.key}.json"
    if histograms is not None:
        write_bytes(path.with_suffix(".npz"), histograms_to_bytes(histograms))
    write_json(path, _null_for_nan(dataclasses.asdict(record)))
    return path


def load_record(path: Path) -> RunRecord:
    """Read one record.

    Raises:
        UserError: The file is not a whole record; names it and says what to do.
    """
    remedy = "delete the file and run the suite again, or restore it from version control"
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"corrupt record ({error})", remedy, file=path) from None
    names = {item.name for item in dataclasses.fields(RunRecord)}
    if not isinstance(values, dict) or not {"key", "status", "spec", "schema_version"} <= values.keys() <= names:
        raise UserError("corrupt record (its keys are not those of a record)", remedy, file=path)
    if values["schema_version"] != SCHEMA_VERSION:
        raise UserError(
            f"this version reads {SCHEMA_VERSION}",
            "use the version that wrote it",
            file=path,
            field="schema_version",
            value=values["schema_version"],
        )
    try:
        key = RunSpec.from_dict(values["spec"]).key
    except TypeError as error:
        raise UserError(f"corrupt record (spec: {error})", remedy, file=path) from None
    if key != values["key"] or key != path.stem:
        raise UserError(f"corrupt record (its spec has the key {key})", remedy, file=path, field="key", value=values["key"])
    metrics = values.get("metrics", {})
    values["metrics"] = {
        split: {name: math.nan if score is None else float(score) for name, score in scores.items()} for split, scores in metrics.items()
    }
    record = RunRecord(**values)
    if record.status == "finished" and not path.with_suffix(".npz").is_file():
        raise UserError("its histograms are missing", remedy, file=path.with_suffix(".npz"))
    return record


def load_records(folder: Path) -> dict[str, RunRecord]:
    """All records of a folder by key; an absent folder holds none."""
    return {path.stem: load_record(path) for path in sorted(folder.glob("*.json"))}
