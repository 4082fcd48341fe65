"""What a data set holds, as a table: scenes, area, grids, prevalence, windows and gaps, by split and by scene."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from datamodules.alignment import NO_IMAGE
from datamodules.certainties import Tally, tally
from datamodules.classes import IGNORE, LANDSLIDE
from datamodules.label_rules import DEFAULT_RULES, LabelRules
from datamodules.overrides import regridded
from datamodules.rasters import streaming
from datamodules.reading import SceneReader
from datamodules.registration import ResidualShift, residual_shift
from datamodules.scene import SPLITS, Scene, read_scenes
from datamodules.windows import positions

_STRIP_ROWS = 256
COLUMNS = ("scenes", "km²", "pixel m", "DEM m", "prevalence", "windows", "no image", "no DEM", "no label", "DEM shift")
CAPTION = (
    "prevalence = landslide / labelled pixels; no ... = share of pixels without it; "
    "DEM shift = metres that the model lies too far east, north (share of windows or scenes that tell)"
)


@dataclass(frozen=True)
class SceneDescription:
    """What one scene holds; `tallies` says which landslides, by certainty.

    Args:
        scene: The scene.
        km2: Area of the image.
        pixel_size_m: Metres (x, y) of the image.
        dem_pixel_size_m: Metres (x, y) of the elevation model's own grid; None without one.
        windows: Evaluation windows.
        landslide, labelled: Pixels that are landslide, and that are 0 or 1.
        pixels: All pixels.
        no_image, no_dem, no_label: Pixels without image, elevation and label.
        shift: Residual shift between elevation model and image; None without a model.
    """

    scene: Scene
    km2: float
    pixel_size_m: tuple[float, float]
    dem_pixel_size_m: tuple[float, float] | None
    windows: int
    landslide: int
    labelled: int
    pixels: int
    no_image: int
    no_dem: int
    no_label: int
    shift: ResidualShift | None
    tallies: list[Tally]


@streaming()
def describe_scene(scene: Scene, tile_size: int, rules: LabelRules = DEFAULT_RULES) -> SceneDescription:
    """Read one scene from top to bottom and count."""
    reader = SceneReader(scene, image_channels=None, margin=0, dem_resampling="bilinear", rules=rules)
    counts = np.zeros(5, dtype=np.int64)
    for layers in reader.strips(_STRIP_ROWS):
        mask = layers.mask
        no_image = mask == NO_IMAGE
        counts += [(mask == LANDSLIDE).sum(), (mask < NO_IMAGE).sum(), no_image.sum(), np.isnan(layers.dem).sum(), (mask == IGNORE).sum()]
    tallies = tally(reader)
    grid, dem_pixel_size, shift = reader.grid, reader.dem_pixel_size_m, residual_shift(reader)
    reader.close()
    landslide, labelled, missing, no_dem, no_label = (int(count) for count in counts)
    windows = len(positions(grid.height, tile_size, tile_size)) * len(positions(grid.width, tile_size, tile_size))
    pixels = grid.height * grid.width
    km2 = pixels * math.prod(grid.pixel_size) / 1e6
    return SceneDescription(
        scene, km2, grid.pixel_size, dem_pixel_size, windows, landslide, labelled, pixels, missing, no_dem, no_label, shift, tallies
    )


def describe(
    root: Path,
    *,
    tile_size: int = 128,
    by_scene: bool = False,
    regrid: str = "refuse",
    console: Console | None = None,
    rules: LabelRules = DEFAULT_RULES,
) -> None:
    """Print the description of a data set.

    Args:
        root: As `read_scenes` takes it.
        tile_size: Pixels of a window.
        by_scene: One row a scene as well.
        regrid: As `LandslideDataModule` takes it.
        console: Where to print; default standard output, at its width or 120 columns in a pipe.
        rules: How labels are read.

    Raises:
        UserError: A file that cannot be used.
    """
    scenes = regridded(read_scenes(root), regrid)
    described = [describe_scene(scene, tile_size, rules) for scene in scenes]
    out = console or Console()
    if not out.is_terminal:
        out.width = max(out.width, 140)
    if by_scene:
        out.print(_table("Scenes", [(item.scene.name, [item]) for item in described], "scene"))
    groups = by_split(described)
    out.print(_table(f"Splits of {root}", groups, "split"))
    out.print(_landslides([(split, [one for item in items for one in item.tallies]) for split, items in groups]))


def by_split(described: Sequence[SceneDescription]) -> list[tuple[str, list[SceneDescription]]]:
    """Scenes of each split that has any."""
    groups = [(split, [item for item in described if item.scene.split == split]) for split in SPLITS]
    return [(split, items) for split, items in groups if items]


def _table(title: str, groups: Sequence[tuple[str, Sequence[SceneDescription]]], head: str) -> Table:
    """One row a group of scenes."""
    table = Table(title=title, caption=CAPTION)
    table.add_column(head)
    for column in COLUMNS:
        table.add_column(column, justify="right")
    for name, items in groups:
        table.add_row(name, *cells(items))
    return table


def cells(items: Sequence[SceneDescription]) -> list[str]:
    """What a group of scenes holds together, as texts in the order of `COLUMNS`."""
    pixels = sum(item.pixels for item in items)
    labelled = sum(item.labelled for item in items)
    return [
        str(len(items)),
        f"{sum(item.km2 for item in items):,.2f}",
        _sizes([item.pixel_size_m for item in items]),
        _sizes([item.dem_pixel_size_m for item in items if item.dem_pixel_size_m]) or "-",
        _percent(sum(item.landslide for item in items), labelled),
        str(sum(item.windows for item in items)),
        *(_percent(sum(getattr(item, part) for item in items), pixels) for part in ("no_image", "no_dem", "no_label")),
        _shifts([item.shift for item in items if item.shift is not None]),
    ]


def _landslides(groups: Sequence[tuple[str, Sequence[Tally]]]) -> Table:
    """Landslides of each split by certainty: a row each."""
    table = Table(title="Landslides by certainty")
    for column in ("split", "certainty", "weight"):
        table.add_column(column)
    for column in ("landslides", "km2", "ignored"):
        table.add_column(column, justify="right")
    for split, tallies in groups:
        kinds = dict.fromkeys((one.certainty, one.weight) for one in tallies)
        for certainty, weight in sorted(kinds, key=lambda kind: -kind[1]):
            own = [one for one in tallies if one.certainty == certainty]
            area, ignored = sum(one.km2 for one in own), sum(one.ignored_km2 for one in own)
            share = f"{100 * ignored / area:.2f} %" if area else "-"
            cells = f"{sum(one.landslides for one in own):,}", f"{area:,.4g}", share
            table.add_row(split, certainty or "not stated", f"{weight:g}" if weight else "ignore", *cells)
    return table


def _sizes(sizes: Sequence[tuple[float, float]]) -> str:
    """Different pixel sizes, from the smallest to the largest: `2`, `2 x 3`, `2 .. 8`."""
    texts = [f"{x:.4g}" if math.isclose(x, y, rel_tol=1e-3) else f"{x:.4g} x {y:.4g}" for x, y in sorted(set(sizes))]
    texts = list(dict.fromkeys(texts))
    return texts[0] if len(texts) == 1 else f"{texts[0]} .. {texts[-1]}" if texts else ""


def _shifts(shifts: Sequence[ResidualShift]) -> str:
    """Shift of one scene with its confidence, or the median of those of several that can be told."""
    told = [shift for shift in shifts if shift.told]
    if not told:
        return "cannot be told" if shifts else "-"
    x, y = (np.median([getattr(shift, axis) for shift in told]) for axis in ("x_m", "y_m"))
    share = f"{100 * told[0].confidence:.0f} %" if len(shifts) == 1 else f"{len(told)} of {len(shifts)}"
    return f"{x:.3g}, {y:.3g} ({share})"


def _percent(part: int, whole: int) -> str:
    """A share in percent; `-` of nothing."""
    return f"{100 * part / whole:.2f} %" if whole else "-"
