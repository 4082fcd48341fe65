"""Copies of one picture in two scenes, also where the copy is shifted, turned, mirrored, brightened or compressed.

Each window gives up to 24 anchors, the strongest local extrema of the band-passed mean of all bands (Gaussians of 1.5 and 5 pixels). An
anchor moves with the picture, so shifts do not matter. It is described by the 25 x 25 pixels around it: magnitudes of its 7 x 7 lowest
cosine terms, those of (u, v) and (v, u) sorted, which no quarter turn and no mirroring changes. Anchors whose descriptions have a cosine of
at least 0.98 are candidates. A candidate is a copy if the band-passed pixels around both anchors, of evened contrast and in the best of the
eight turns, have a correlation of at least 0.8 over at least 2048 pixels. Contrast is evened since two roads alike reach 0.8 without it.

Cost: descriptions of different splits are all compared, at most 2**17 of them (where there are more, each window gives its strongest
ones); of each pair of scenes at most 8 candidates are read again. What is not found: copies that share less than about a third of a
window, other scales, angles between quarter turns, and the same ground seen at another date.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import cv2
import numpy as np
import numpy.typing as npt

from datamodules.reading import SceneReader

Array = npt.NDArray[Any]
MIN_CORRELATION: Final = 0.8
MARGIN: Final = 28
"""Pixels around a window that its anchors depend on."""

_WINDOW: Final = 128
_ANCHORS: Final = 24
_MAX_ANCHORS: Final = 2**17
_MAX_CANDIDATES: Final = 8
_MIN_COSINE: Final = 0.98
_MIN_PIXELS: Final = 2048
_MIN_NEAR: Final = 0.6
_RADIUS: Final = 12
_APART: Final = 9
_TERMS: Final = 7
_SCALES: Final = (1.5, 5.0)
_REACH: Final = 64
_FLOOR: Final = 0.2
_PRODUCTS: Final = 2**24
_TURNS: Final = (
    "as it is", "turned by 90 degrees", "turned by 180 degrees", "turned by 270 degrees",
    "mirrored", "mirrored and turned by 90 degrees", "mirrored and turned by 180 degrees", "mirrored and turned by 270 degrees",
)  # fmt: skip


@dataclass(frozen=True)
class Anchors:
    """Anchors of a window or of a scene.

    Args:
        places: int64 (N, 2), row and column in the scene.
        rank: int64 (N), 0 = the strongest of its window.
        descriptions: float32 (N, 48), of length 1.
    """

    places: Array
    rank: Array
    descriptions: Array

    @staticmethod
    def joined(parts: "Sequence[Anchors]") -> "Anchors":
        """Those of several windows as one."""
        empty = Anchors(np.empty((0, 2), np.int64), np.empty(0, np.int64), np.empty((0, _TERMS**2 - 1), np.float32))
        return Anchors(*(np.concatenate([getattr(part, name) for part in (empty, *parts)]) for name in ("places", "rank", "descriptions")))


@dataclass(frozen=True)
class Copy:
    """Two scenes that show one picture.

    Args:
        scenes: Positions of both in the list of scenes.
        places: Row and column of the same detail in both.
        turn: What turns the first into the second, in words.
        correlation: Of the band-passed pixels around it.
    """

    scenes: tuple[int, int]
    places: tuple[tuple[int, int], tuple[int, int]]
    turn: str
    correlation: float


def _detail(image: Array, missing: Array | None) -> tuple[Array, Array]:
    """Band-passed mean of all bands, float32 (H, W), 0 without data, and where there are data; gaps do not bleed into it."""
    grey = np.nan_to_num(image.astype(np.float32).mean(axis=2), posinf=0, neginf=0)
    valid = np.ones(grey.shape, np.float32) if missing is None else (~missing).astype(np.float32)
    near, far = (_smooth(grey, valid, scale) for scale in _SCALES)
    return (near - far) * valid, valid > 0


def _smooth(values: Array, valid: Array, scale: float) -> Array:
    """Gaussian mean over the pixels that have data."""
    total, weight = (cv2.GaussianBlur(part, (0, 0), scale, borderType=cv2.BORDER_CONSTANT) for part in (values * valid, valid))
    return np.asarray(total / np.maximum(weight, 1e-6))


def _cosines() -> Array:
    """First terms of the cosine transform of 25 pixels, float32 (7, 25)."""
    size = 2 * _RADIUS + 1
    return np.cos(np.pi * np.outer(np.arange(_TERMS), 2 * np.arange(size) + 1) / (2 * size)).astype(np.float32)


_COSINES: Final = _cosines()
_UPPER: Final = np.triu_indices(_TERMS, 1)


def _describe(patch: Array) -> Array:
    """What turns and mirrors leave as it is: turning changes signs of terms, or swaps (u, v) and (v, u)."""
    terms = abs(_COSINES @ patch @ _COSINES.T)
    one, other = terms[_UPPER], terms.T[_UPPER]
    description = np.concatenate([np.maximum(one, other), np.minimum(one, other), np.diag(terms)[1:]])
    return description / max(float(np.linalg.norm(description)), 1e-12)


def find_anchors(image: Array, missing: Array | None, row: int, column: int) -> Anchors:
    """Anchors of one window.

    Args:
        image: (H + 2 MARGIN, W + 2 MARGIN, C), the window with `MARGIN` pixels on each side.
        missing: bool of the same size, where there are no data; None = nowhere.
        row: First row of the window in the scene.
        column: First column.
    """
    detail, valid = _detail(image, missing)
    whole = cv2.erode(valid.astype(np.uint8), np.ones((2 * _RADIUS + 1,) * 2, np.uint8), borderType=cv2.BORDER_CONSTANT, borderValue=0)
    strength = np.where(whole > 0, abs(detail), -1).astype(np.float32)
    floor = 1e-4 * max(float(np.nan_to_num(abs(image.astype(np.float32)), posinf=0).max()), 1e-6)
    peaks = (strength >= cv2.dilate(strength, np.ones((_APART, _APART)))) & (strength > floor)
    rows, columns = (part + MARGIN for part in np.nonzero(peaks[MARGIN:-MARGIN, MARGIN:-MARGIN]))
    order = np.argsort(-strength[rows, columns], kind="stable")[:_ANCHORS]
    rows, columns = rows[order], columns[order]
    around = [
        _describe(detail[at - _RADIUS : at + _RADIUS + 1, to - _RADIUS : to + _RADIUS + 1]) for at, to in zip(rows, columns, strict=True)
    ]
    descriptions = np.array(around, dtype=np.float32).reshape(-1, _TERMS**2 - 1)
    return Anchors(np.column_stack([rows + row - MARGIN, columns + column - MARGIN]), np.arange(len(rows)), descriptions)


def scene_anchors(reader: SceneReader) -> Anchors:
    """Anchors of a whole scene, window by window."""
    grid, parts = reader.grid, []
    for row in range(0, grid.height, _WINDOW):
        for column in range(0, grid.width, _WINDOW):
            height, width = min(_WINDOW, grid.height - row), min(_WINDOW, grid.width - column)
            image, missing = reader.image(row - MARGIN, column - MARGIN, height + 2 * MARGIN, width + 2 * MARGIN)
            parts.append(find_anchors(image, missing, row, column))
    reader.close()
    return Anchors.joined(parts)


def copied_pairs(readers: Sequence[SceneReader]) -> Array:
    """Pairs of scenes that show one picture, whatever their splits: int64 (N, 2), positions in the list."""
    each_its_own = [f"{number:09d}" for number in range(len(readers))]
    copies = find_copies(readers, each_its_own, [scene_anchors(reader) for reader in readers], lambda _one, _other: False)
    return np.array([copy.scenes for copy in copies], dtype=np.int64).reshape(-1, 2)


def find_copies(
    readers: Sequence[SceneReader], splits: Sequence[str], anchors: Sequence[Anchors], ignore: Callable[[Any, Any], bool]
) -> list[Copy]:
    """Pairs of scenes of different splits that show one picture; one copy a pair.

    Args:
        readers: One a scene.
        splits: Split of each scene.
        anchors: Of each scene.
        ignore: Whether two places (scene, row, column) are the same ground, where equal pixels are no copy.
    """
    joined = Anchors.joined(anchors)
    owner = np.repeat(np.arange(len(anchors)), [len(one.rank) for one in anchors])
    kept = np.sort(np.argsort(joined.rank, kind="stable")[:_MAX_ANCHORS])
    candidates: dict[tuple[int, int], list[tuple[float, int, int]]] = {}
    split = np.asarray(splits)[owner[kept]] if len(kept) else np.empty(0, str)
    for name in dict.fromkeys(splits):
        mine, theirs = kept[split == name], kept[split > name]  # each pair of splits once
        chunk = max(_PRODUCTS // max(len(theirs), 1), 1)
        for start in range(0, len(mine), chunk):
            part = mine[start : start + chunk]
            cosines = joined.descriptions[part] @ joined.descriptions[theirs].T
            for at, to in np.argwhere(cosines >= _MIN_COSINE).tolist():
                one, other = int(part[at]), int(theirs[to])
                if not ignore((owner[one], *joined.places[one]), (owner[other], *joined.places[other])):
                    pair = candidates.setdefault((int(owner[one]), int(owner[other])), [])
                    pair.append((-float(cosines[at, to]), one, other))
    copies = []
    for (first, second), pairs in sorted(candidates.items()):
        for _, one, other in sorted(pairs)[:_MAX_CANDIDATES]:
            places = [(int(row), int(column)) for row, column in joined.places[[one, other]]]
            turn, correlation = compare(readers[first], places[0], readers[second], places[1])
            if correlation >= MIN_CORRELATION:
                copies.append(Copy((first, second), (places[0], places[1]), _TURNS[turn], correlation))
                break
        readers[first].close()
        readers[second].close()
    return copies


def compare(one: SceneReader, at: tuple[int, int], other: SceneReader, to: tuple[int, int]) -> tuple[int, float]:
    """How alike two places are.

    Returns:
        The turn from 0 to 7 that fits best near the places, and the correlation of the band-passed pixels within 64 pixels of
        them, the best of shifts by a pixel; -1 where fewer than 2048 pixels have data in both. Where the 25 x 25 pixels at the
        places correlate below 0.6, that correlation.
    """
    detail, valid = _around(one, at)
    theirs, known = _around(other, to)
    near = np.s_[_REACH - _RADIUS : _REACH + _RADIUS + 1, _REACH - _RADIUS : _REACH + _RADIUS + 1]
    turned = [(_turned(detail, turn), _turned(valid, turn)) for turn in range(8)]
    likeness = [_correlation(values[near], theirs[near], mask[near] & known[near]) for values, mask in turned]
    turn = int(np.argmax(likeness))
    if likeness[turn] < _MIN_NEAR:  # most candidates end here
        return turn, likeness[turn]
    values, mask = turned[turn]
    best = -1.0
    for down in (-1, 0, 1):
        for right in (-1, 0, 1):
            moved = (np.roll(part, (down, right), (0, 1))[1:-1, 1:-1] for part in (values, mask))
            shifted, shown = moved
            both = shown & known[1:-1, 1:-1]
            if both.sum() >= _MIN_PIXELS:
                best = max(best, _correlation(shifted, theirs[1:-1, 1:-1], both))
    return turn, best


def _around(reader: SceneReader, at: tuple[int, int]) -> tuple[Array, Array]:
    """Band-passed pixels of evened contrast within 64 pixels of a place, (129, 129), and where there are data."""
    margin = MARGIN - _RADIUS
    size = 2 * (_REACH + margin) + 1
    image, missing = reader.image(at[0] - _REACH - margin, at[1] - _REACH - margin, size, size)
    detail, valid = _detail(image, missing)
    contrast = np.sqrt(_smooth(detail**2, valid.astype(np.float32), _SCALES[1]))
    # What is much fainter than usual is noise. The median, since a bright road must not set the scale for the ground beside it.
    floor = _FLOOR * float(np.median(contrast[valid])) + 0.01 * float(contrast.max()) if valid.any() else 0.0
    even = detail / np.maximum(contrast + floor, 1e-12)
    return even[margin:-margin, margin:-margin], valid[margin:-margin, margin:-margin]


def _turned(array: Array, turn: int) -> Array:
    """One of the eight turns of a square: a quarter turn `turn % 4` times, of the mirrored array from 4 on."""
    return np.rot90(array.T if turn >= 4 else array, turn % 4)


def _correlation(one: Array, other: Array, both: Array) -> float:
    """Pearson correlation over the pixels `both`; 0 where one of them is flat."""
    first, second = (part[both] - part[both].mean() if both.any() else part[both] for part in (one, other))
    scale = float(np.linalg.norm(first) * np.linalg.norm(second))
    return float(first @ second) / scale if scale > 0 else 0.0
