"""What was run on what, by which code and where: the last part of a report."""

import math
from collections.abc import Iterable
from typing import Any

from benchmarks.auditing import leaks_of
from benchmarks.report.rows import Report
from benchmarks.report.tables import NOTHING, number


def _data_lines(data: dict[str, Any]) -> list[str]:
    """Size and prevalence of each split."""
    lines = []
    for split, counts in data["splits"].items():
        share = number(math.nan if counts["prevalence"] is None else counts["prevalence"])
        lines.append(f"  - {split}: {counts['windows']} windows, {counts['scenes']} scenes, {counts['km2']:.2f} km2, prevalence {share}")
    audit = data.get("audit")
    if audit:
        apart = ", ".join(f"{pair} {metres:,.0f} m" for pair, metres in audit["distance_m"].items() if metres is not None)
        outcome = "passed" if audit["passed"] else f"FAILED, {leaks_of(audit)}"
        lines.append(f"  - audit: {outcome}; {audit['findings']['warning']} warning(s); apart at least {apart or NOTHING}")
        lines.append(
            f"  - manifest: SHA-256 `{data['manifest_sha256']}`" if data["manifest_sha256"] else "  - no manifest: folders are the splits"
        )
    return lines


def protocol_markdown(report: Report) -> str:
    """Budget, data, code, machine and software of the records, as a list."""
    budget = report.suite.budget
    windows = budget.batch_size * budget.accumulate
    lines = [
        f"- Budget: {budget.max_steps} steps of {windows} windows, validated every {budget.validate_every}; precision {budget.precision}."
    ]
    lines.append(f"- Weights that are tested: {budget.select}{' by validation IoU' if budget.select == 'best' else ''}.")
    records = report.records
    if records:
        data = records[-1].data
        lines.append(f"- Data: {data['name']}, fingerprint `{data['fingerprint']}`.")
        split = records[-1].spec.get("split")
        if split is None:
            lines += _data_lines(data)
        else:
            lines.append(f"- Folds: {', '.join(f'{name} {value}' for name, value in split.items())}.")
            for fold, one in sorted({record.spec["fold"]: record for record in records}.items()):
                lines += [f"- Fold {fold}:", *_data_lines(one.data)]
        lines.append(f"- Code: {_join(_commit(record.environment) for record in records)}.")
        lines.append(f"- Machine: {_join(_machine(record.environment) for record in records)}.")
        packages = ("torch", "lightning", "segmentation-models-pytorch", "timm", "numpy")
        versions = (", ".join(f"{name} {record.environment['packages'].get(name)}" for name in packages) for record in records)
        lines.append(f"- Software: {_join(versions)}.")
    return "\n".join(lines) + "\n"


def _join(values: Iterable[str]) -> str:
    """Different values, each once, in order."""
    return "; ".join(sorted(set(values)))


def _commit(environment: dict[str, Any]) -> str:
    git = environment["git"]
    if git["commit"] is None:
        return "not from a repository"
    return f"`{git['commit'][:12]}`" + (" with uncommitted changes" if git["dirty"] else "")


def _machine(environment: dict[str, Any]) -> str:
    return f"{environment['gpu'] or environment['cpu']}, {environment['threads']} thread(s) a run"
