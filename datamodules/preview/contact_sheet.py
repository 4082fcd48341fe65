"""Contact sheet: a row a window, image | hillshade | outline of the label over the image."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import cv2
import numpy as np
import numpy.typing as npt
import torch
from rasterio.enums import ColorInterp

from datamodules.alignment import NO_IMAGE
from datamodules.classes import IGNORE, LANDSLIDE
from datamodules.errors import UserError
from datamodules.preview.choosing import View
from datamodules.preview.drawing import SPLIT_COLOURS, new_figure, png, scale_bar
from datamodules.rasters import open_raster
from datamodules.reading import SceneReader
from datamodules.terrain import hillshade

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Array = npt.NDArray[Any]
_CELL: Final = 256
_INCHES: Final = _CELL / 100
_GAP: Final = 0.14
_PITCH: Final = _INCHES + 0.36
_HEAD: Final = 0.3
_FOOT: Final = 0.4
_WIDTH: Final = 3 * _INCHES + 4 * _GAP
_SAMPLES: Final = 5
_SAMPLE: Final = 64
PERCENTILES: Final = (2, 98)
"""Of a band: what is drawn black and white."""
_OUTLINE: Final = (255, 214, 0)
_HEADINGS: Final = ("image", "hillshade", "label outline")


@dataclass(frozen=True)
class SheetRow:
    """What a row of the sheet shows, for the text beside the picture.

    Args:
        scene, split: Name and split of the scene.
        place: Row and column of the upper left pixel.
        landslide: Share of landslide among the labelled pixels; None where nothing is labelled.
        notes: What is missing, and which bands are shown.
    """

    scene: str
    split: str
    place: tuple[int, int]
    landslide: float | None
    notes: tuple[str, ...]


def contact_sheet(readers: Sequence[SceneReader], views: Sequence[View], bands: Sequence[int]) -> tuple[bytes, list[SheetRow]]:
    """Draw windows; what is in memory is the sheet and one window.

    Args:
        readers: One a scene, with a margin of at least 1.
        views: The windows.
        bands: Bands to show, from 1; () = see `shown_bands`.

    Returns:
        PNG, and what each row shows.
    """
    height = _HEAD + _PITCH * len(views) + _FOOT
    figure = new_figure(_WIDTH, height)
    rows, stretches = list[SheetRow](), dict[int, tuple[list[int], Array]]()
    for number, view in enumerate(views):
        reader = readers[view.scene]
        if view.scene not in stretches:
            chosen = shown_bands(reader, bands)
            stretches[view.scene] = chosen, _limits(reader, chosen)
        panels, row = _panels(reader, view, *stretches[view.scene])
        reader.close()
        rows.append(row)
        bottom = height - _HEAD - _PITCH * (number + 1)
        for column, (picture, note) in enumerate(panels):
            # Cells of the size that pictures are drawn in: no outline gets lost between two pixels.
            place = (_GAP + column * (_INCHES + _GAP), bottom, _INCHES, _INCHES)
            axes = figure.add_axes((place[0] / _WIDTH, place[1] / height, place[2] / _WIDTH, place[3] / height))
            axes.set_axis_off()
            axes.imshow(picture, interpolation="nearest")
            if number == 0:
                axes.set_title(_HEADINGS[column], fontsize=11, pad=22)
            if note:
                axes.text(0.5, 0.5, note, transform=axes.transAxes, ha="center", va="center", fontsize=9, bbox={"facecolor": "white"})
            elif column == 0:
                scale_bar(axes, view.width * reader.grid.pixel_size[0])
            if column == 0:
                _caption(axes, row)
    figure.text(_GAP / _WIDTH, _FOOT / 2 / height, "yellow: landslide   hatched \\\\\\: no data   hatched ///: not labelled", fontsize=8)
    return png(figure), rows


def _caption(axes: "Axes", row: SheetRow) -> None:
    """Name, place and split of a row, above its image."""
    share = "no label" if row.landslide is None else f"{100 * row.landslide:.1f} % landslide"
    text = f"{row.split}  {row.scene}  (row {row.place[0]}, column {row.place[1]})  {share}"
    axes.text(0, 1.02, text, transform=axes.transAxes, fontsize=8, va="bottom", color="black")
    axes.plot([0, 0.04], [1.0, 1.0], transform=axes.transAxes, color=SPLIT_COLOURS[row.split], linewidth=4, clip_on=False)


def shown_bands(reader: SceneReader, bands: Sequence[int]) -> list[int]:
    """Positions, from 0, of the bands to show: one, or red, green and blue.

    Args:
        reader: The scene.
        bands: One or three bands, from 1; () = see `natural_bands`.

    Raises:
        UserError: Two bands or more than three, or one that the image has not.
    """
    available = reader.num_bands
    if bands:
        if len(bands) not in (1, 3):
            raise UserError(
                "one or three bands can be shown", "give for example --bands 4 3 2", field="--bands", value=list(bands), exit_code=2
            )
        for band in bands:
            if not 1 <= band <= available:
                raise UserError(f"the image has {available} bands", "choose others", file=reader.scene.image, field="--bands", value=band)
        return [band - 1 for band in bands]
    return natural_bands(reader.scene.image, available)


def natural_bands(path: Path, available: int) -> list[int]:
    """Positions, from 0, of the bands that a file declares red, green and blue, else of the first three, else of the first.

    Args:
        path: The image.
        available: Its bands, an alpha band not counted.
    """
    if available < 3:
        return [0]
    with open_raster(path) as file:
        meaning = [use for use in file.colorinterp if use != ColorInterp.alpha]
    colours = (ColorInterp.red, ColorInterp.green, ColorInterp.blue)
    return [meaning.index(colour) for colour in colours] if all(colour in meaning for colour in colours) else [0, 1, 2]


def _limits(reader: SceneReader, bands: Sequence[int]) -> Array:
    """2nd and 98th percentile of each band, float64 (bands, 2), of 25 samples of 64 x 64 pixels spread over the scene."""
    grid, found = reader.grid, list[Array]()
    for row in np.unique(np.linspace(0, max(grid.height - _SAMPLE, 0), _SAMPLES).astype(int)).tolist():
        for column in np.unique(np.linspace(0, max(grid.width - _SAMPLE, 0), _SAMPLES).astype(int)).tolist():
            image, missing = reader.image(row, column, min(_SAMPLE, grid.height), min(_SAMPLE, grid.width))
            values = image[..., list(bands)].reshape(-1, len(bands)).astype(np.float64)
            found.append(values if missing is None else values[~missing.ravel()])
    known = np.concatenate(found)
    if not len(known):
        return np.tile([0.0, 1.0], (len(bands), 1))
    return np.asarray(np.percentile(known, PERCENTILES, axis=0).T)


def _panels(reader: SceneReader, view: View, bands: list[int], limits: Array) -> tuple[list[tuple[Array, str]], SheetRow]:
    """The three cells of a row, uint8 (H, W, 3) each with the words written over it, and what the row shows."""
    image, missing = reader.image(view.row, view.column, view.height, view.width)
    label = reader.label(view.row, view.column, view.height, view.width)
    notes = [f"bands {' '.join(str(band + 1) for band in bands)}"] if bands != [0, 1, 2] else []
    low, high = limits.T
    picture = np.clip((image[..., bands].astype(np.float64) - low) / np.maximum(high - low, 1e-12), 0, 1)
    gaps = np.zeros(label.shape, dtype=bool) if missing is None else missing
    picture = np.where(gaps[..., None], 0, np.nan_to_num(picture))
    shown = _enlarged((np.broadcast_to(picture, (*label.shape, 3)) * 255).round().astype(np.uint8))
    gaps_shown = _enlarged(gaps.astype(np.uint8)) > 0
    _hatch(shown, gaps_shown, 1)
    image_note = "no image data here" if gaps.all() else ""
    shade, shade_note = _shade(reader, view)
    outline = shown.copy()
    unlabelled = (_enlarged(((label >= NO_IMAGE) & ~gaps).astype(np.uint8)) > 0) if reader.scene.label else np.zeros_like(gaps_shown)
    _hatch(outline, unlabelled, -1)
    landslide = _enlarged((label == LANDSLIDE).astype(np.uint8))
    edge = landslide - cv2.erode(landslide, np.ones((5, 5), np.uint8), borderType=cv2.BORDER_REPLICATE)
    outline[cv2.dilate(edge, np.ones((3, 3), np.uint8)) > 0] = 0
    outline[edge > 0] = _OUTLINE
    known = (label != IGNORE) & (label != NO_IMAGE) & ~gaps
    label_note = "" if reader.scene.label else "no label"
    if reader.scene.label and not known.any():
        label_note = "nothing labelled here"
    share = float((label[known] == LANDSLIDE).mean()) if known.any() else None
    notes += [note for note in (image_note, shade_note, label_note) if note]
    row = SheetRow(reader.scene.name, reader.scene.split, (view.row, view.column), share, tuple(notes))
    return [(shown, image_note), (shade, shade_note), (outline, label_note)], row


def _shade(reader: SceneReader, view: View) -> tuple[Array, str]:
    """Hillshade of a window, uint8 (H, W, 3), and what to write over it."""
    if reader.scene.dem is None:
        return _blank(view), "no elevation model"
    dem = torch.from_numpy(reader.dem(view.row - 1, view.column - 1, view.height + 2, view.width + 2))
    values = hillshade(dem, reader.grid.pixel_size)[1:-1, 1:-1].numpy()
    gaps = np.isnan(values)
    grey = (np.nan_to_num(values) * 255).round().astype(np.uint8)
    shown = _enlarged(np.repeat(grey[..., None], 3, axis=2))
    _hatch(shown, _enlarged(gaps.astype(np.uint8)) > 0, 1)
    return shown, "no elevation here" if gaps.all() else ""


def _blank(view: View) -> Array:
    """An empty cell of the size of a window."""
    return _enlarged(np.full((view.height, view.width, 3), 235, dtype=np.uint8))


def _enlarged(array: Array) -> Array:
    """To 256 pixels along the longer side, whole pixels repeated where it grows, averaged where it shrinks."""
    height, width = array.shape[:2]
    scale = _CELL / max(height, width)
    size = max(round(width * scale), 1), max(round(height * scale), 1)
    grows = scale >= 1 or array.ndim == 2  # masks keep their values
    return np.asarray(cv2.resize(array, size, interpolation=cv2.INTER_NEAREST if grows else cv2.INTER_AREA))


def _hatch(picture: Array, where: Array, direction: int) -> None:
    """Draw light grey with dark diagonals where data are missing (1), or white diagonals over the image where it is not labelled (-1)."""
    rows, columns = np.indices(where.shape)
    lines = (columns - direction * rows) % 12 < 2
    if direction > 0:
        picture[where] = 215
        picture[where & lines] = 110
    else:
        picture[where] = picture[where] // 2 + 90
        picture[where & lines] = 255
