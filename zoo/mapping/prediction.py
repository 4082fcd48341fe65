"""A scene -> bands of rows with their probabilities, in a memory that depends on the tile and on the width of the scene alone."""

from collections import deque
from collections.abc import Generator, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np
import numpy.typing as npt
import rasterio
from torch import Tensor

from datamodules.alignment import NO_IMAGE, DemResampling
from datamodules.batch import Batch
from datamodules.classes import IGNORE
from datamodules.reading import SceneReader
from datamodules.scene import Scene
from datamodules.windows import Modality, stack
from zoo.mapping.ensemble import Ensemble
from zoo.mapping.tiles import Axis, RowBlend

Array = npt.NDArray[Any]
CACHE_MB: Final = 64
"""For blocks of rasters: GDAL's own default is a share of the machine's memory, which a tall scene would fill."""
_READ_AHEAD: Final = 2


class Predictor(Protocol):
    """What predicts tiles: an `Ensemble`, or a rule that is to be scored like one."""

    @property
    def size(self) -> int:
        """Number of members; several give an uncertainty."""

    @property
    def reads_dem(self) -> bool:
        """Whether it sees the elevation model."""

    def halo(self, pixel_size: tuple[float, float], /) -> int:
        """Pixels of elevation that must surround a tile."""

    def __call__(self, batch: Batch, /) -> Tensor:
        """float32 (B, 1 or 2, H, W): probability, and the spread over several members."""


@dataclass(frozen=True)
class Band:
    """Rows of a scene whose prediction is final.

    Args:
        row: The first of them.
        probability: float32 (rows, width), of landslide; 0 where `valid` is false because the image has no data.
        valid: bool (rows, width): the image has data, and the elevation model too where a network sees it.
        uncertainty: float32 (rows, width), standard deviation over the members of the ensemble; None if it has one member.
    """

    row: int
    probability: Array
    valid: Array
    uncertainty: Array | None


@contextmanager
def scene_reader(
    ensemble: Ensemble, image: Path, dem: Path | None = None, dem_resampling: DemResampling = "cubic"
) -> Iterator[SceneReader]:
    """Open a scene as an ensemble reads it; `map_scene` does so itself.

    Args:
        ensemble: What will predict.
        image: Raster on a projected, north-up grid.
        dem: Elevation model in metres, on any grid.
        dem_resampling: How it comes onto the grid of the image.

    Yields:
        A reader with the halo that the ensemble's terrain layers need.
    """
    scene = Scene(image.stem.replace(":", "_"), image, dem, None, "predict")
    with closing(SceneReader(scene, None, 0, dem_resampling)) as reader:
        halo = ensemble.halo(reader.grid.pixel_size)
    with closing(SceneReader(scene, None, halo, dem_resampling)) as reader:
        yield reader


@dataclass(frozen=True)
class _Work:
    """Tiles of one tile row that are predicted together.

    Args:
        number: The tile row.
        columns: Tile columns of the batch.
        batch: None where no tile has data.
        gaps: Tile columns without any image data, which no network needs to see.
        valid: One a tile of the batch, of the tile alone and not of its context.
        last: Whether the tile row ends here.
    """

    number: int
    columns: list[int]
    batch: Batch | None
    gaps: list[int]
    valid: list[Array]
    last: bool


def predict_scene(
    predictor: Predictor,
    reader: SceneReader,
    *,
    tile: int,
    overlap: float = 0.25,
    batch_size: int = 8,
    first_row: int = 0,
    drop: Modality | None = None,
    context: int = 0,
) -> Generator[Band, None, None]:
    """Predict a scene by blended tiles, from top to bottom; see `zoo.mapping.tiles` for the weights.

    A band is a function of the scene and the tiling alone: started at any `first_row`, the rows from there on are the same to the bit on
    the CPU.

    Args:
        predictor: An `Ensemble`, or what behaves like one.
        reader: The scene; its margin must be the predictor's halo at least. Read from one other thread until the last band is taken.
        tile: Pixels of a tile along each axis.
        overlap: Share of a tile that the next one overlaps, in [0, 0.5].
        batch_size: Tiles that are predicted together, at most a row of tiles.
        first_row: Leave out the rows above it.
        drop: Hide the image or the elevation model from the predictor.
        context: Pixels beyond a tile on each side that the predictor sees too.

    Yields:
        Bands without gap or overlap, each a few rows to a tile's height high.

    Raises:
        UserError: A damaged file, or options out of range.
    """
    rows, columns = (Axis.of(length, tile, overlap, context) for length in (reader.grid.height, reader.grid.width))
    blend = RowBlend(rows, columns, 1 if predictor.size == 1 else 2)
    items = _cached(_read(predictor, reader, rows, columns, batch_size, first_row, drop))
    with ThreadPoolExecutor(1) as pool:
        # The thread alone draws from the reader, so that no file is read by two, and ends what it began.
        try:
            for work, predicted in _predicted(predictor, _ahead(pool, items)):
                _add(blend, work, predicted, rows, columns)
                if not work.last:
                    continue
                row, values, valid = blend.finish(work.number)
                above = max(first_row - row, 0)
                if above < len(valid):
                    # Sums of weights that add up to 1 may pass it by a rounding.
                    probability = np.clip(values[0, above:], 0, 1)
                    yield Band(row + above, probability, valid[above:], values[1, above:] if len(values) > 1 else None)
        finally:
            pool.submit(items.close)


def _add(blend: RowBlend, work: _Work, predicted: Tensor | None, rows: Axis, columns: Axis) -> None:
    """Add a batch, without the context of its tiles, and the gaps beside it to the blend."""
    for column in work.gaps:
        blend.add(work.number, column, None, np.zeros((rows.size, columns.size), dtype=bool))
    if predicted is not None:
        for column, values, valid in zip(work.columns, predicted.float().cpu().numpy(), work.valid, strict=True):
            blend.add(work.number, column, values[:, rows.part(work.number), columns.part(column)], valid)


def _read(
    predictor: Predictor, reader: SceneReader, rows: Axis, columns: Axis, batch_size: int, first_row: int, drop: Modality | None
) -> Iterator[_Work]:
    """Batches of tiles, row by row of tiles, from the first that reaches `first_row`."""
    halo = predictor.halo(reader.grid.pixel_size) if predictor.reads_dem else 0
    for number, row in enumerate(rows.starts):
        if row + rows.size <= first_row:
            continue
        top = rows.reads[number]
        samples: list[dict[str, Any]] = []
        chosen: list[int] = []
        gaps: list[int] = []
        valid: list[Array] = []
        for position, left in enumerate(columns.reads):
            tile = rows.part(number), columns.part(position)
            image, missing = reader.image(top, left, rows.seen, columns.seen)
            if missing is not None and missing[tile].all():
                gaps.append(position)
                continue
            dem = reader.dem(top - halo, left - halo, rows.seen + 2 * halo, columns.seen + 2 * halo)
            mask = np.full(image.shape[:2], IGNORE, dtype=np.uint8)
            known = np.ones(image.shape[:2], dtype=bool)
            if missing is not None:
                mask[missing] = NO_IMAGE
                known[missing] = False
            if predictor.reads_dem:
                known &= ~np.isnan(dem[halo : halo + rows.seen, halo : halo + columns.seen])
            name = f"{reader.scene.name}:{row}:{columns.starts[position]}"
            samples.append({"image": image, "dem": dem, "mask": mask, "pixel_size": reader.grid.pixel_size, "tile": name})
            chosen.append(position)
            valid.append(known[tile])
            if len(samples) == batch_size:
                yield _Work(number, chosen, stack(samples), [], valid, last=False)
                samples, chosen, valid = [], [], []
        yield _Work(number, chosen, stack(samples, drop) if samples else None, gaps, valid, last=True)


def _cached(items: Iterator[_Work]) -> Generator[_Work, None, None]:
    """The same items, with a small cache wherever they are made."""
    with rasterio.Env(GDAL_CACHEMAX=CACHE_MB):
        yield from items


def _ahead(pool: ThreadPoolExecutor, items: Iterator[_Work]) -> Iterator[_Work]:
    """The same items, made by the pool's one thread while those before them are at work."""
    waiting = deque(pool.submit(next, items, None) for _ in range(_READ_AHEAD))
    while (item := waiting.popleft().result()) is not None:
        waiting.append(pool.submit(next, items, None))
        yield item


def _predicted(predictor: Predictor, items: Iterable[_Work]) -> Iterator[tuple[_Work, Tensor | None]]:
    """Each item with its prediction, handed on when the next is under way: a GPU computes while the CPU blends."""
    before: tuple[_Work, Tensor | None] | None = None
    for item in items:
        after = (item, predictor(item.batch) if item.batch is not None else None)
        if before is not None:
            yield before
        before = after
    if before is not None:
        yield before
