"""The same tiles for all methods: image, hillshade and label; of each method its probability and its errors."""

import base64
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from benchmarks.report.page.elements import NUM_BINS, key, name_of, paragraph, section
from benchmarks.report.page.png import Colour, palette_png
from benchmarks.report.rows import Report, Row, fold_and_seed
from benchmarks.report.tables import number
from benchmarks.tiles import RULE, Tile, load_tiles, wanted
from datamodules.classes import IGNORE, LANDSLIDE

MAX_BYTES: Final = 4_000_000
"""Of all pictures of a page; a page of many rows shows fewer tiles."""
HIT: Final[Colour] = (255, 255, 255)
FALSE_ALARM: Final[Colour] = (213, 94, 0)
MISSED: Final[Colour] = (86, 180, 233)
BACKGROUND: Final[Colour] = (38, 38, 38)
"""White, vermilion, sky blue and near black differ for every kind of colour vision, and as greys; a test holds them to it."""
NUM_SHADES: Final = 16
SHADES: Final[Sequence[Colour]] = [
    tuple(round(dark + (light - dark) * shade / (NUM_SHADES - 1)) for dark, light in zip(BACKGROUND, HIT, strict=True))  # type: ignore[misc]
    for shade in range(NUM_SHADES)
]
LEGEND: Final = (
    (HIT, "landslide found (TP); in a label: landslide"),
    (FALSE_ALARM, "false alarm (FP)"),
    (MISSED, "missed (FN)"),
    (BACKGROUND, "background"),
    (None, "not labelled"),
)
_ROUND: Final = (1, 2, 5, 10)

Array = NDArray[Any]


@dataclass(frozen=True)
class _Seen:
    """A tile as one row saw it."""

    tile: Tile
    threshold: float


def tiles_section(report: Report, rows: Sequence[Row], folder: Path) -> str:
    """The section, or one line that says why there are no pictures.

    Args:
        report: Of the rows.
        rows: In the order of their numbers in the page.
        folder: `RESULTS/records`.
    """
    title = "The same tiles for all methods"
    if not report.suite.data.pictures:
        return section(title, paragraph("No tiles are shown: the suite says `pictures: false`, its images must not be given away."))
    seen = {index: found for index, row in enumerate(rows) if row.spec.method != "all_background" and (found := _seen(row, folder))}
    if not seen:
        return section(title, paragraph("No tiles are shown: these records were made without pictures."))
    tiles = {name: item.tile for found in reversed(seen.values()) for name, item in found.items()}
    names = wanted({name: tile.landslide for name, tile in tiles.items()})
    shown, size = list[str](), 0
    for name in names:
        drawn = _figure(name, tiles[name], {index: found[name] for index, found in seen.items() if name in found}, rows)
        size += len(drawn)
        if size > MAX_BYTES and shown:
            break
        shown.append(drawn)
    without = [name_of(row) for index, row in enumerate(rows) if row.finished and index not in seen and row.spec.method != "all_background"]
    notes = [
        f"Chosen: {RULE}. Of each row its first seed, at the threshold that validation chose; IoU is that of the tile alone.",
        "Above the probability, below the errors; of the slope threshold the slope, from 0 to 90 degrees, stands for a probability.",
        f"The first {len(shown)} of {len(names)}, to keep this page small." if len(shown) < len(names) else "",
        f"Without pictures: {', '.join(without)}; their records are older." if without else "",
    ]
    return section(title, *map(paragraph, notes), _legend(), *shown)


def _seen(row: Row, folder: Path) -> dict[str, _Seen]:
    """The tiles of a row by name: of each fold, those of the first seed that kept some."""
    seen: dict[str, _Seen] = {}
    folds = set[int | None]()
    for record in row.finished:
        fold = fold_and_seed(record)[0]
        tiles = load_tiles(record.key, folder) if fold not in folds else {}
        if tiles:
            folds.add(fold)
            seen |= {name: _Seen(tile, record.metrics["test"]["threshold"]) for name, tile in tiles.items()}
    return seen


def _legend() -> str:
    def swatch(colour: Colour | None) -> str:
        fill = "" if colour is None else f' style="background:rgb{colour}"'
        return f'<i class="swatch{" unknown" if colour is None else ""}"{fill}></i>'

    ramp = "".join(f'<i class="shade" style="background:rgb{colour}"></i>' for colour in SHADES)
    items = [f"<li>{swatch(colour)} {escape(words)}</li>" for colour, words in LEGEND]
    return f'<ul class="legend">{"".join(items)}<li>probability 0 <span class="ramp">{ramp}</span> 1</li></ul>'


def _figure(name: str, tile: Tile, seen: Mapping[int, _Seen], rows: Sequence[Row]) -> str:
    share = "no landslide" if tile.landslide == 0 else f"{tile.landslide:.0%} landslide"
    hillshade = _picture(tile.hillshade, "webp", f"Hillshade of {name}") if tile.hillshade else '<div class="none">no elevation</div>'
    panels = [
        _panel("image, hillshade", _picture(tile.image, "webp", f"Image of {name}"), hillshade, ""),
        _panel(
            "label", _picture(_label_png(tile.label), "png", f"Label of {name}: {share}"), f'<div class="none">{_scale(tile)}</div>', share
        ),
    ]
    for index, item in seen.items():
        row = name_of(rows[index])
        errors, counts = _errors(item)
        hits, alarms, missed = counts
        union = hits + alarms + missed
        told = f"Errors of {row} on {name}: {hits} pixels found, {alarms} false alarms, {missed} missed"
        probability = _picture(_probability_png(item.tile.scores), "png", f"Probability of {row} on {name}")
        score = "nothing there, nothing found" if union == 0 else f"IoU {number(hits / union)}"
        if item.tile.landslide == 0 and alarms:
            score = f"{alarms / int((item.tile.label != IGNORE).sum()):.0%} false alarm"
        panels.append(_panel(row, probability, _picture(errors, "png", told) + _scale(item.tile), score, index))
    return f'<figure class="tile"><div class="panels">{"".join(panels)}</div><figcaption>{escape(name)}</figcaption></figure>'


def _panel(title: str, above: str, below: str, note: str, row: int | None = None) -> str:
    of_row = "" if row is None else f' data-row="{row}"'
    mark = "" if row is None else f"{key(row)} "
    return f'<div class="panel"{of_row}><b>{mark}{escape(title)}</b>{above}{below}<small>{escape(note)}</small></div>'


def _picture(content: bytes, kind: str, words: str) -> str:
    return f'<img src="data:image/{kind};base64,{base64.b64encode(content).decode()}" alt="{escape(words)}">'


def _scale(tile: Tile) -> str:
    """A bar as long as about a third of the picture, in round metres."""
    width_m = tile.label.shape[1] * tile.pixel_m[0]
    power = 10.0 ** math.floor(math.log10(width_m * 0.4))
    length_m = max(factor * power for factor in _ROUND if factor * power <= width_m * 0.4 * (1 + 1e-9))
    words = f"{length_m / 1000:g} km" if length_m >= 1000 else f"{length_m:g} m"
    return f'<div class="scale"><i style="width:{100 * length_m / width_m:.2f}%"></i> {words}</div>'


def _label_png(label: Array) -> bytes:
    return palette_png(np.select([label == IGNORE, label == LANDSLIDE], [2, 1], 0).astype(np.uint8), [BACKGROUND, HIT, None])


def _probability_png(scores: Array) -> bytes:
    return palette_png((scores // (NUM_BINS // NUM_SHADES)).astype(np.uint8), SHADES)


def _errors(item: _Seen) -> tuple[bytes, tuple[int, int, int]]:
    """Error map, and pixels found, false and missed."""
    classes = error_classes(item.tile.scores, item.tile.label, item.threshold)
    hits, alarms, missed = (int((classes == place).sum()) for place in (1, 2, 3))
    return palette_png(classes, [BACKGROUND, HIT, FALSE_ALARM, MISSED, None]), (hits, alarms, missed)


def error_classes(scores: Array, label: Array, threshold: float) -> NDArray[np.uint8]:
    """0 background, 1 found, 2 false alarm, 3 missed, 4 not labelled, of each pixel.

    Args:
        scores: uint8 (H, W), bins of the score histogram.
        label: uint8 (H, W): 0, 1, 255.
        threshold: k / 256.
    """
    predicted = scores >= math.ceil(threshold * NUM_BINS - 1e-9)  # as in zoo.metrics.pixels.confusion
    landslide = label == LANDSLIDE
    chosen = [label == IGNORE, predicted & landslide, predicted, landslide]
    return np.select(chosen, [4, 1, 2, 3], 0).astype(np.uint8)
