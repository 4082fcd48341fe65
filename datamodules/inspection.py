"""`zoo-data check --full`: read every file of a data set to its last pixel and list each problem, where training would stop at the first.

Errors are what keeps training from reading a scene, and what cannot be meant: no data at all, images with other bands than most. Warnings are what was repaired or may be meant.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final, Literal

import numpy as np

from datamodules.alignment import NO_IMAGE
from datamodules.audit import mixed_bands
from datamodules.errors import UserError
from datamodules.findings import Finding
from datamodules.label_rules import DEFAULT_RULES, LabelRules
from datamodules.overrides import regridded
from datamodules.reading import SceneReader
from datamodules.scene import Scene, read_scenes

_STRIP_ROWS: Final = 256
_MANY_ZEROS: Final = 0.01
_SMALL: Final = 16


@dataclass
class _Counts:
    """What the strips of one scene hold."""

    shape: tuple[int, int] = (0, 0)
    pixels: int = 0
    image: int = 0
    labelled: int = 0
    zeros: int = 0
    no_dem: int = 0
    slopes: int = 0
    steep: int = 0
    low: float = np.inf
    high: float = -np.inf
    values: set[float] = field(default_factory=set)


def inspect(root: Path, *, regrid: str = "refuse", rules: LabelRules = DEFAULT_RULES) -> tuple[list[Scene], list[Finding]]:
    """Read everything.

    Args:
        root: As `read_scenes` takes it.
        regrid: As `LandslideDataModule` takes it.
        rules: How labels are read.

    Returns:
        The scenes without an error, which can be audited, and what was found, the same thing in several scenes once.

    Raises:
        UserError: There is no data set, or its manifest is no table.
    """
    problems: list[UserError] = []
    scenes = regridded(read_scenes(root, problems), regrid)
    found = [_refused("manifest", (), problem) for problem in problems]
    bands: dict[str, int] = {}
    for scene in scenes:
        found += _scene(scene, bands, rules)
    found += mixed_bands(bands)
    broken = {name for finding in found if finding.level == "error" for name in finding.scenes}
    return [scene for scene in scenes if scene.name not in broken], _merged(found)


def _refused(kind: str, scenes: tuple[str, ...], error: UserError) -> Finding:
    """A refusal as a finding."""
    return Finding("error", kind, scenes, error.problem, error.remedy)


def _scene(scene: Scene, bands: dict[str, int], rules: LabelRules) -> Iterator[Finding]:
    """All problems of one scene; an elevation model is not excused by a damaged label."""
    alone = replace(scene, dem=None, label=None)
    parts: dict[str, Scene] = {"image": alone}
    parts |= {"dem": replace(scene, label=None)} if scene.dem else {}
    parts |= {"label": replace(scene, dem=None)} if scene.label else {}
    counts = _Counts()
    whole = True
    for role, part in parts.items():
        try:
            reader = SceneReader(part, None, 0, "bilinear", rules)
        except UserError as error:
            yield _refused(role, (scene.name,), error)
            if role == "image":  # the others have no grid to lie on
                return
            whole = False
            continue
        if role == "image":
            counts.shape = reader.grid.height, reader.grid.width
            bands[scene.name] = reader.num_bands
        refusals = list(_read(reader, role, counts))
        yield from (_refused(role, (scene.name,), error) for error in refusals)
        whole = whole and not refusals
        reader.close()
    if whole:
        yield from _implausible(scene, counts)


def _read(reader: SceneReader, role: str, counts: _Counts) -> Iterator[UserError]:
    """Read one role by strips and count; a problem that many strips share is told once."""
    told: set[str] = set()
    count: dict[str, Callable[..., None]] = {"image": _count_image, "dem": _count_dem, "label": _count_label}
    for row in range(0, reader.grid.height, _STRIP_ROWS):
        try:
            count[role](reader, row, min(_STRIP_ROWS, reader.grid.height - row), counts)
        except UserError as error:
            if str(error) not in told:
                told.add(str(error))
                yield error


def _count_image(reader: SceneReader, row: int, height: int, counts: _Counts) -> None:
    """Pixels with data, and up to two values that occur."""
    image, missing = reader.image(row, 0, height, reader.grid.width)
    known = image if missing is None else image[~missing]
    counts.pixels += image.shape[0] * image.shape[1]
    counts.image += known.size // image.shape[2]
    if known.size:
        counts.values |= {float(known.min()), float(known.max())}


def _count_dem(reader: SceneReader, row: int, height: int, counts: _Counts) -> None:
    """Range of the elevations and pixels without."""
    dem = reader.dem(row, 0, height, reader.grid.width)
    gaps = np.isnan(dem)
    counts.no_dem += int(gaps.sum())
    if min(dem.shape) > 1:
        down, across = np.gradient(dem, *reversed(reader.grid.pixel_size))
        gradient = np.hypot(down, across)
        counts.slopes, counts.steep = counts.slopes + int(np.isfinite(gradient).sum()), counts.steep + int((gradient > 1).sum())
    if not gaps.all():
        counts.low, counts.high = min(counts.low, float(np.nanmin(dem))), max(counts.high, float(np.nanmax(dem)))


def _count_label(reader: SceneReader, row: int, height: int, counts: _Counts) -> None:
    """Labelled pixels, and those among them where all bands are 0."""
    layers = reader.layers(row, 0, height, reader.grid.width)
    labelled = layers.mask < NO_IMAGE
    counts.labelled += int(labelled.sum())
    counts.zeros += int((labelled & (layers.image == 0).all(axis=2)).sum())


def _implausible(scene: Scene, counts: _Counts) -> Iterator[Finding]:
    """Values that can be read but hardly be meant."""

    def finding(level: Literal["error", "warning"], kind: str, file: Path | None, detail: str, remedy: str) -> Finding:
        return Finding(level, kind, (scene.name,), f"{file}: {detail}", remedy)

    if not counts.image:
        yield finding("error", "image", scene.image, "has no data anywhere", "mend its nodata value or mask, or remove the scene")
    elif len(counts.values) == 1:
        yield finding(
            "warning", "image", scene.image, f"is {counts.values.copy().pop():g} everywhere", "check the file, or remove the scene"
        )
    if min(counts.shape) < _SMALL:
        detail = f"is {counts.shape[1]} x {counts.shape[0]} pixels: windows are filled up with ignored pixels"
        yield finding("warning", "image", scene.image, detail, "check the file, or join it with its neighbours")
    if scene.dem and counts.high >= counts.low:
        for detail, remedy in _elevations(counts):
            yield finding("warning", "dem", scene.dem, detail, remedy)
    if scene.label and counts.image and not counts.labelled:
        yield finding("warning", "label", scene.label, "labels no pixel that has image data", "check nodata values, or remove the scene")
    if counts.labelled and counts.zeros > _MANY_ZEROS * counts.labelled:
        detail = f"{100 * counts.zeros / counts.labelled:.1f} % of the labelled pixels are 0 in all bands"
        yield finding("warning", "image", scene.image, detail, "if 0 means no data, declare it with `gdal_edit.py -a_nodata 0 FILE`")


def _elevations(counts: _Counts) -> Iterator[tuple[str, str]]:
    """What is strange about elevations, and what to do."""
    if counts.low == counts.high:
        yield "is flat: no terrain layer says anything", "check the file, or leave the dem column empty"
    elif counts.low >= -1 and counts.high <= 1:
        yield (
            f"spans {counts.low:.3g} to {counts.high:.3g} m, as if normalised",
            "give elevations in metres, or leave the dem column empty",
        )
    elif counts.steep > counts.slopes / 2:
        detail = "half of the ground is steeper than 45 degrees, as if elevations were not in metres"
        yield detail, "state their unit in column dem_unit of scenes.csv, such as ft; check the pixel size"
    if counts.no_dem:
        share = f"{100 * counts.no_dem / counts.pixels:.2f} % of the image have no elevation"
        yield share, "take a larger model, or train with `inputs: image`"


def _merged(found: Sequence[Finding]) -> list[Finding]:
    """Findings that differ in their scenes alone as one, as where scenes share an inventory."""
    groups: dict[tuple[str, str, str, str], dict[str, None]] = {}
    kinds: dict[tuple[str, str, str, str], Finding] = {}
    for finding in found:
        key = finding.level, finding.kind, finding.detail, finding.remedy
        kinds.setdefault(key, finding)
        groups.setdefault(key, {}).update(dict.fromkeys(finding.scenes))
    return [replace(finding, scenes=tuple(groups[key])) for key, finding in kinds.items()]
