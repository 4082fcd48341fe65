"""Tiles of a predicted scene -> what a report shows of them."""

import math
from collections.abc import Iterator, Mapping
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.tiles import MAX_SIDE, MIN_LABELLED_SHARE, Tile, wanted
from datamodules.classes import IGNORE, LANDSLIDE
from datamodules.preview.contact_sheet import PERCENTILES, natural_bands
from datamodules.reading import SceneReader
from datamodules.terrain import hillshade
from datamodules.windows import positions
from zoo.metrics.pixels import NUM_BINS
from zoo.page.pictures import webp

Array = NDArray[Any]
_NO_CONTRAST: Final = 1e-12


def with_tiles_of(kept: Mapping[str, Tile], reader: SceneReader, probability: Array, label: Array, size: int) -> dict[str, Tile]:
    """The tiles to keep of those so far and those of one more scene.

    Args:
        kept: Of other scenes.
        reader: Of the scene.
        probability: float32 (H, W), of the whole scene.
        label: uint8 (H, W) of 0, 1, 255.
        size: Pixels of a tile along each axis.
    """
    places = {
        f"{reader.scene.name}:{row}:{column}": np.s_[row : row + size, column : column + size] for row, column in _places(label, size)
    }
    shares = {name: tile.landslide for name, tile in kept.items()}
    for name, place in places.items():
        part = label[place]
        labelled = int((part != IGNORE).sum())
        if labelled >= MIN_LABELLED_SHARE * part.size:
            shares[name] = int((part == LANDSLIDE).sum()) / labelled
    return {
        name: kept[name] if name in kept else _tile(reader, probability[places[name]], label[places[name]], places[name], shares[name])
        for name in wanted(shares)
    }


def _places(label: Array, size: int) -> Iterator[tuple[int, int]]:
    rows, columns = (positions(length, size, size) for length in label.shape)
    return ((row, column) for row in rows for column in columns)


def _tile(reader: SceneReader, probability: Array, label: Array, place: tuple[slice, slice], landslide: float) -> Tile:
    (height, width), (row, column) = label.shape, (place[0].start, place[1].start)
    step = math.ceil(max(height, width) / MAX_SIDE)
    x_m, y_m = reader.grid.pixel_size
    return Tile(
        landslide=landslide,
        pixel_m=(x_m * step, y_m * step),
        label=np.array(label[::step, ::step]),  # a copy: the map on disk goes with its scene
        image=_image(reader, row, column, height, width, step),
        hillshade=_hillshade(reader, row, column, height, width, step),
        scores=np.clip(np.array(probability[::step, ::step], np.float64) * NUM_BINS, 0, NUM_BINS - 1).astype(np.uint8),
    )


def _image(reader: SceneReader, row: int, column: int, height: int, width: int, step: int) -> bytes:
    values, missing = reader.image(row, column, height, width)
    shown = values[::step, ::step, natural_bands(reader.scene.image, reader.num_bands)].astype(np.float32)
    known: Array = np.isfinite(shown.sum(2))
    if missing is not None:
        known &= ~missing[::step, ::step]
    if known.any():
        low, high = np.percentile(shown[known], PERCENTILES, axis=0)
        shown = np.clip((shown - low) / np.maximum(high - low, _NO_CONTRAST), 0, 1)
    return webp(shown, known)


def _hillshade(reader: SceneReader, row: int, column: int, height: int, width: int, step: int) -> bytes:
    dem = reader.dem(row, column, height, width)
    if np.isnan(dem).all():
        return b""
    # The rows beyond the tile may not be at hand, and nobody measures anything in a picture.
    surface = torch.from_numpy(np.pad(dem, 1, mode="edge"))
    shade = hillshade(surface, reader.grid.pixel_size)[1:-1:step, 1:-1:step].numpy()
    return webp(shade[..., None], ~np.isnan(shade))
