"""What a data set holds, as a table: scenes, area, grids, prevalence, windows and gaps, by split and by scene."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from datamodules.alignment import NO_IMAGE
from datamodules.batch import IGNORE, LANDSLIDE
from datamodules.reading import SceneReader
from datamodules.scene import SPLITS, Scene, read_scenes
from datamodules.windows import positions

_STRIP_ROWS = 256
COLUMNS = ("scenes", "km²", "pixel m", "DEM m", "prevalence", "windows", "no image", "no DEM", "no label")
CAPTION = "prevalence = landslide / labelled pixels; no ... = share of pixels without it"


@dataclass(frozen=True)
class SceneDescription:
    """What one scene holds.

    Args:
        scene: The scene.
        km2: Area of the image.
        pixel_size_m: Metres (x, y) of the image.
        dem_pixel_size_m: Metres (x, y) of the elevation model's own grid; None without one.
        windows: Evaluation windows.
        landslide, labelled: Pixels that are landslide, and that are 0 or 1.
        pixels: All pixels.
        no_image, no_dem, no_label: Pixels without image, elevation and label.
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


def describe_scene(scene: Scene, tile_size: int) -> SceneDescription:
    """Read one scene from top to bottom and count."""
    reader = SceneReader(scene, image_channels=None, margin=0, dem_resampling="bilinear")
    counts = np.zeros(5, dtype=np.int64)
    for layers in reader.strips(_STRIP_ROWS):
        mask = layers.mask
        no_image = mask == NO_IMAGE
        counts += [(mask == LANDSLIDE).sum(), (mask < NO_IMAGE).sum(), no_image.sum(), np.isnan(layers.dem).sum(), (mask == IGNORE).sum()]
    grid, dem_pixel_size = reader.grid, reader.dem_pixel_size_m
    reader.close()
    landslide, labelled, missing, no_dem, no_label = (int(count) for count in counts)
    windows = len(positions(grid.height, tile_size, tile_size)) * len(positions(grid.width, tile_size, tile_size))
    pixels = grid.height * grid.width
    km2 = pixels * math.prod(grid.pixel_size) / 1e6
    return SceneDescription(scene, km2, grid.pixel_size, dem_pixel_size, windows, landslide, labelled, pixels, missing, no_dem, no_label)


def describe(root: Path, *, tile_size: int = 128, by_scene: bool = False, console: Console | None = None) -> None:
    """Print the description of a data set.

    Args:
        root: As `read_scenes` takes it.
        tile_size: Pixels of a window.
        by_scene: One row a scene as well.
        console: Where to print; default standard output, at its width or 120 columns in a pipe.

    Raises:
        UserError: A file that cannot be used.
    """
    scenes = read_scenes(root)
    described = [describe_scene(scene, tile_size) for scene in scenes]
    out = console or Console()
    if not out.is_terminal:
        out.width = max(out.width, 140)
    if by_scene:
        out.print(_table("Scenes", [(item.scene.name, [item]) for item in described], "scene"))
    out.print(_table(f"Splits of {root}", by_split(described), "split"))


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
    ]


def _sizes(sizes: Sequence[tuple[float, float]]) -> str:
    """Different pixel sizes, from the smallest to the largest: `2`, `2 x 3`, `2 .. 8`."""
    texts = [f"{x:.4g}" if math.isclose(x, y, rel_tol=1e-3) else f"{x:.4g} x {y:.4g}" for x, y in sorted(set(sizes))]
    texts = list(dict.fromkeys(texts))
    return texts[0] if len(texts) == 1 else f"{texts[0]} .. {texts[-1]}" if texts else ""


def _percent(part: int, whole: int) -> str:
    """A share in percent; `-` of nothing."""
    return f"{100 * part / whole:.2f} %" if whole else "-"
