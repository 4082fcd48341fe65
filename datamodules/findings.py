"""What an audit or an inspection of a data set found, and how it is told."""

from dataclasses import asdict, dataclass, field
from typing import Any, Final, Literal

import numpy as np
from rich.console import Console
from rich.table import Table

_MOST_LISTED: Final = 12
REMEDIES: Final = {
    "unreadable": "mend or remove the file",
    "image": "mend its nodata value or mask, or remove the scene",
    "bands": "give all images the same bands",
    "types": "bring all images to one type and one scale, or leave some out",
    "overlap": "put both in one split, or split anew with `zoo-data split`",
    "landslide": "put both in one split, or split anew with `zoo-data split`",
    "duplicate": "remove one of them, or put both in one split",
    "near-duplicate": "look at both; remove one, or put both in one split",
    "empty": "check the label, its layer and the column label_layer",
    "repaired": "compare with the outlines that you mean",
    "left out": "outline these landslides too, or remove the features",
    "thin": "draw polygons on all pixels that they touch: --all-touched, data.all_touched",
    "cover": "check size and geotransform of both; rows and columns may be swapped",
    "codes": "state what 255 is: landslide_values or ignore_values, a column of scenes.csv or an option",
    "near": "widen the buffer with `zoo-data split --buffer-m`, or report the distance",
    "alignment": "shift the elevation model, or check the georeference of both; compare with other scenes first",
    "prevalence": "check the labels, and assign scenes with and without landslides to it",
}


@dataclass(frozen=True)
class Finding:
    """One thing the audit found.

    Args:
        level: "leak" and "error" fail the audit, "warning" does not.
        kind: Key of `REMEDIES`.
        scenes: Names of the scenes concerned.
        detail: What was found.
        remedy: What to do about it.
    """

    level: Literal["leak", "error", "warning"]
    kind: str
    scenes: tuple[str, ...]
    detail: str
    remedy: str


@dataclass
class AuditReport:
    """Result of an audit; `plain()` is JSON-able.

    Args:
        findings: What was found.
        splits: Per split: scenes, labelled and landslide pixels, prevalence (None where nothing is labelled).
        distance_m: "train-test" and so on: smallest distance between labelled areas in metres; a lower bound,
            to within a pixel below `near_m`, by boxes in cells of 32 pixels beyond. Scenes of unknown place have none.
        alignment: Per scene with an elevation model: `x_m`, `y_m` by which it lies too far east and north (None where that cannot be
            told), `confidence`, `dem_pixel_m`, and `no_dem`, the share of image pixels without elevation.
    """

    findings: list[Finding] = field(default_factory=list)
    splits: dict[str, dict[str, Any]] = field(default_factory=dict)
    distance_m: dict[str, float] = field(default_factory=dict)
    alignment: dict[str, dict[str, Any]] = field(default_factory=dict)

    @property
    def passed(self) -> bool:
        """No leak, and every file could be read."""
        return all(finding.level == "warning" for finding in self.findings)

    def plain(self) -> dict[str, Any]:
        """As plain values."""
        return {"passed": self.passed, **asdict(self)}

    def add(self, level: Literal["leak", "error", "warning"], kind: str, scenes: tuple[str, ...], detail: str) -> None:
        """Add a finding with the remedy of its kind."""
        self.findings.append(Finding(level, kind, scenes, detail, REMEDIES[kind]))


def print_report(report: AuditReport, console: Console | None = None) -> None:
    """Print a report as tables."""
    out = console or Console()
    if not out.is_terminal:
        out.width = max(out.width, 140)
    table = Table(title="Findings")
    for column in ("level", "kind", "scenes", "what", "remedy"):
        table.add_column(column, overflow="fold")
    for finding in report.findings:
        table.add_row(finding.level, finding.kind, ", ".join(finding.scenes), finding.detail, finding.remedy)
    if report.findings:
        out.print(table)
    _print_alignment(report, out)
    for split, counts in report.splits.items():
        share = "-" if counts["prevalence"] is None else f"{100 * counts['prevalence']:.2f} %"
        out.print(f"{split}: {counts['scenes']} scenes, prevalence {share}", markup=False)
    for pair, distance in report.distance_m.items():
        out.print(f"{pair}: at least {distance:,.0f} m apart", markup=False)
    out.print("passed" if report.passed else "FAILED: see the findings above")


def _print_alignment(report: AuditReport, console: Console) -> None:
    """Print the largest shifts and gaps of elevation models."""
    if not report.alignment:
        return
    told = sum(entry["x_m"] is not None for entry in report.alignment.values())
    table = Table(title=f"Elevation models on their images: shift told in {told} of {len(report.alignment)} scenes; the largest first")
    table.add_column("scene", overflow="fold")
    for column in ("east m", "north m", "windows that agree", "DEM pixel m", "no DEM"):
        table.add_column(column, justify="right")

    def size(item: tuple[str, dict[str, Any]]) -> tuple[float, float]:
        return -np.hypot(item[1]["x_m"], item[1]["y_m"]) if item[1]["x_m"] is not None else 0.0, -item[1]["no_dem"]

    for name, entry in sorted(report.alignment.items(), key=size)[:_MOST_LISTED]:
        shift = ("cannot be told", "") if entry["x_m"] is None else (f"{entry['x_m']:.3g}", f"{entry['y_m']:.3g}")
        table.add_row(name, *shift, f"{100 * entry['confidence']:.0f} %", f"{entry['dem_pixel_m']:.4g}", f"{100 * entry['no_dem']:.2f} %")
    console.print(table)
