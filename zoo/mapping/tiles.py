"""Tiles that cover a scene, and the weights with which their overlapping predictions are blended.

**Places.** Along each axis a tile starts every `tile - V` pixels, V = round(overlap * tile), and the last is shifted inward to end with the
scene. No tile reaches beyond the scene: one that is smaller than a tile is predicted as it is, in one tile of its own size, and the network
alone continues the edge to a multiple of its stride. So nothing is padded here, and no padding can leak into the scores.

**Weights.** A tile's weight is w(row) w(column). Along an axis w is 1 inside and falls towards each edge that a neighbour overlaps; edges of
the scene keep full weight. At a distance of d = 0, 1, ... pixels from such an edge, with the outermost m = floor(V / 4) pixels left out,

    w(d) = 0 for d < m,   sin^2(pi / 2 * (d + 1/2 - m) / (V - 2 m)) for m <= d < V - m,   1 beyond,

then divided by the sum over all tiles at that pixel, so that the weights of a pixel sum to 1 without an accumulator of weights. Neighbours
are left out of each other's outermost pixels, where a network sees no context.

**Context.** The network may be shown c more pixels of the scene on each side of a tile, whose prediction is thrown away; at the scene's
edges the window is shifted inward, so that all have one size. One whose receptive field reaches m + c pixels or fewer to each side gives
the same map as if the scene were one tile, whatever the overlap. It is 0 unless asked for: networks reach further than any context that
one would pay for, and for inputs of one size an overlap hides their borders where a context alone does not (DeepLabV3+ after an epoch on
Mars, inputs of 128: steps across borders 0.98 times those elsewhere with tiles of 128 and V = 32, 13 times with tiles of 96 and c = 16).
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from datamodules.errors import UserError
from datamodules.windows import positions

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Axis:
    """Tiles along one axis of a scene.

    Args:
        length: Pixels of the scene.
        size: Pixels of a tile, at most `length`.
        starts: First pixel of each tile.
        weights: float32 (tiles, size); at each pixel those of all tiles sum to 1.
        seen: Pixels that the network is shown for a tile, at least `size`.
        reads: First of them, for each tile.
    """

    length: int
    size: int
    starts: list[int]
    weights: Array
    seen: int
    reads: list[int]

    @classmethod
    def of(cls, length: int, tile: int, overlap: float, context: int = 0) -> "Axis":
        """Lay tiles along an axis.

        Args:
            length: Pixels of the scene.
            tile: Pixels of a tile.
            overlap: Share of a tile that the next one overlaps, in [0, 0.5].
            context: Pixels beyond a tile on each side that the network is shown too.

        Raises:
            UserError: A tile below one pixel, or an overlap or a context out of range.
        """
        if context < 0:
            raise UserError("is below 0", "choose 0 or more pixels", field="context", value=context, exit_code=2)
        if tile < 1:
            raise UserError("is below 1", "choose a larger number", field="tile", value=tile, exit_code=2)
        if not 0 <= overlap <= 0.5:
            raise UserError("is out of range", "choose a share from 0 to 0.5", field="overlap", value=overlap, exit_code=2)
        shared = min(round(overlap * tile), tile - 1)
        starts = positions(length, tile, tile - shared)
        size = min(tile, length)
        ramp = _ramp(size, shared)
        weights = np.ones((len(starts), size))
        weights[1:] *= ramp
        weights[:-1] *= ramp[::-1]
        total = np.zeros(length)
        for start, weight in zip(starts, weights, strict=True):
            total[start : start + size] += weight
        weights /= np.stack([total[start : start + size] for start in starts])
        seen = min(size + 2 * context, length)
        reads = [min(max(start - context, 0), length - seen) for start in starts]
        return cls(length, size, starts, weights.astype(np.float32), seen, reads)

    def part(self, number: int) -> slice:
        """The pixels of a tile among those that are shown."""
        first = self.starts[number] - self.reads[number]
        return slice(first, first + self.size)

    def final(self, number: int) -> int:
        """Pixels from the start of the axis that no tile after `number` touches."""
        return self.starts[number + 1] if number + 1 < len(self.starts) else self.length


def _ramp(size: int, shared: int) -> Array:
    """Weights by the distance from an edge that a neighbour overlaps by `shared` pixels."""
    margin = shared // 4
    distance = np.arange(size) + 0.5 - margin
    share = np.clip(distance / max(shared - 2 * margin, 1), 0, 1) if shared else np.ones(size)
    return np.asarray(np.sin(np.pi / 2 * share) ** 2)


class RowBlend:
    """Sums weighted tiles row by row of tiles; holds as many rows of the scene as a tile has.

    Args:
        rows: Tiles along the height.
        columns: Tiles along the width.
        layers: Number of values a pixel.
    """

    def __init__(self, rows: Axis, columns: Axis, layers: int) -> None:
        self._rows, self._columns = rows, columns
        self._sum = np.zeros((layers, rows.size, columns.length), dtype=np.float32)
        self._valid = np.zeros((rows.size, columns.length), dtype=bool)

    def add(self, number: int, column: int, values: Array | None, valid: Array) -> None:
        """Add a tile of the tile row at work.

        Args:
            number: Its tile row.
            column: Its tile column.
            values: float32 (layers, size, size); None adds nothing.
            valid: bool (size, size), which pixels have data.
        """
        place = np.s_[self._columns.starts[column] : self._columns.starts[column] + self._columns.size]
        self._valid[:, place] = valid
        if values is not None:
            self._sum[:, :, place] += values * (self._rows.weights[number][:, None] * self._columns.weights[column])

    def finish(self, number: int) -> tuple[int, Array, Array]:
        """Take the rows that are final once all tiles of a tile row are added.

        Returns:
            First row, sums float32 (layers, rows, width), valid bool (rows, width).
        """
        first = self._rows.starts[number]
        count = self._rows.final(number) - first
        values, valid = self._sum[:, :count].copy(), self._valid[:count].copy()
        kept = self._rows.size - count
        self._sum[:, :kept], self._valid[:kept] = self._sum[:, count:], self._valid[count:]
        self._sum[:, kept:], self._valid[kept:] = 0, False
        return first, values, valid
