"""Picture of one scene: image, shaded relief, landslides."""

import csv
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyogrio
import rasterio
import shapely
from numpy.typing import NDArray
from rasterio.enums import Resampling
from rasterio.vrt import WarpedVRT

from datamodules.errors import UserError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_COLOURS = {"certain": "#e8590c", "probable": "#f5a524", "possible": "#4cc9f0"}


def figure(manifest: Path, scene: str, path: Path, *, width_px: int = 1500) -> Path:
    """Draw image | hillshade of the elevation model | hillshade with the outlines of the landslides, with a scale bar.

    Args:
        manifest: `scenes.csv` of `synthesize`.
        scene: Name of the scene in it.
        path: PNG to write.
        width_px: Width of the picture.

    Returns:
        `path`.

    Raises:
        UserError: The manifest has no such scene.
    """
    # Imported here: nobody who only makes or reads scenes needs it.
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415 - see above
    from matplotlib.figure import Figure  # noqa: PLC0415

    with manifest.open(newline="", encoding="utf-8") as file:
        rows = {row["scene"]: row for row in csv.DictReader(file)}
    if scene not in rows:
        raise UserError("is not in the manifest", f"choose one of {', '.join(rows)}", file=manifest, field="scene", value=scene)
    row, folder = rows[scene], manifest.parent
    with rasterio.open(folder / row["image"]) as source:
        image, bounds = np.moveaxis(source.read(), 0, -1), source.bounds
        grid = {"crs": source.crs, "transform": source.transform, "width": source.width, "height": source.height}
        pixel_m = source.transform.a
    with rasterio.open(folder / row["dem"]) as source, WarpedVRT(source, resampling=Resampling.cubic_spline, **grid) as warped:
        dem = warped.read(1, masked=True).astype(np.float32).filled(np.nan)
    extent = (bounds.left, bounds.right, bounds.bottom, bounds.top)
    canvas = Figure(figsize=(width_px / 100, width_px / 100 * 0.358), dpi=100)
    FigureCanvasAgg(canvas)
    panels = canvas.subplots(1, 3)
    panels[0].imshow(image, extent=extent)
    for panel in panels[1:]:
        panel.set_facecolor("#7a1f3d")
        panel.imshow(_hillshade(dem, pixel_m), extent=extent, cmap="gray", vmin=0, vmax=1)
    _outline(panels[2], (folder / row["label"]).with_suffix(".gpkg"))
    for panel, title in zip(panels, ("image, 2 m", "elevation model, 8 m (hillshade)", "landslides"), strict=True):
        panel.set(xlim=extent[:2], ylim=extent[2:], xticks=[], yticks=[])
        panel.set_title(title, fontsize=11)
    _scale_bar(panels[0], bounds)
    canvas.subplots_adjust(left=0.005, right=0.995, bottom=0.01, top=0.93, wspace=0.015)
    unfinished = path.with_name(f".{path.name}.part")
    # 256 colours keep the file small enough for a repository.
    canvas.savefig(unfinished, format="png", metadata={"Software": None})
    _reduce_colours(unfinished)
    unfinished.replace(path)
    return path


def _hillshade(dem: NDArray[np.float32], pixel_m: float) -> NDArray[np.float32]:
    """Sun in the north-west at 45 degrees, as maps have it."""
    south, east = np.gradient(dem, pixel_m)
    shade = (np.sqrt(0.5) - 0.5 * (-east - south)) / np.sqrt(1 + south**2 + east**2)
    return np.asarray(np.clip(shade, 0, 1), dtype=np.float32)


def _outline(panel: "Axes", path: Path) -> None:
    fields, _, geometry, values = pyogrio.raw.read(path, columns=["certainty"])[:4]
    del fields
    drawn: dict[str, Any] = {}
    for polygon, certainty in zip(shapely.from_wkb(geometry), values[0], strict=True):
        x, y = polygon.exterior.xy
        (drawn[certainty],) = panel.plot(x, y, color=_COLOURS[certainty], linewidth=1.4)
    panel.legend(drawn.values(), drawn.keys(), loc="lower right", fontsize=8, framealpha=0.8)


def _scale_bar(panel: "Axes", bounds: Any) -> None:  # noqa: ANN401 - rasterio ships no types
    """A bar of a round length, about a quarter of the panel."""
    width_m = bounds.right - bounds.left
    length_m = max(length for length in (10, 20, 50, 100, 200, 500, 1000, 2000, 5000) if length <= max(width_m / 4, 10))
    left, bottom = bounds.left + 0.04 * width_m, bounds.bottom + 0.04 * width_m
    for colour, line in (("black", 5.0), ("white", 2.5)):
        panel.plot([left, left + length_m], [bottom, bottom], color=colour, linewidth=line, solid_capstyle="butt")
    box = {"facecolor": "black", "alpha": 0.45, "pad": 1.5, "edgecolor": "none"}
    panel.text(left + length_m / 2, bottom + 0.022 * width_m, f"{length_m} m", color="white", ha="center", fontsize=9, bbox=box)


def _reduce_colours(path: Path) -> None:
    from PIL import Image  # noqa: PLC0415 - comes with matplotlib

    with Image.open(path) as picture:
        picture.load()
    opaque = picture.convert("RGB")
    # The thin outlines and the white page would not get their colours by frequency, so these are set.
    own = [int(colour[start : start + 2], 16) for colour in _COLOURS.values() for start in (1, 3, 5)] + [255, 255, 255]
    most = opaque.quantize(240, dither=Image.Dither.NONE).getpalette() or []
    palette = Image.new("P", (1, 1))
    palette.putpalette([*most[:720], *own])
    opaque.quantize(palette=palette, dither=Image.Dither.NONE).save(path, format="PNG", optimize=True)
