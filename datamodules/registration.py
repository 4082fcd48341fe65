"""Residual shift between an elevation model and its image, from what both show: relief.

A sunlit slope is bright and a shaded one dark, from whichever side the sun shines: image brightness is, in part, a linear function of the
gradient of elevation (z_x, z_y) and of its magnitude. For every shift within reach, the share of the image's variance that the best such function
explains (R squared of a regression on the three, shifted) comes from their cross-correlations by Fourier transform, without knowing the
sun. Both sides are whitened (phase correlation, Kuglin and Hines 1975, damped), so that fine edges count and not broad tones.

Windows spread over the scene vote each with its own peak, to a fraction of a pixel by a parabola. A vote counts where its peak stands
`SIGNIFICANT` standard deviations above the surface around it; the shift is the median of these votes, the confidence the share of ALL
windows that lie within a DEM pixel of it. Below `LEAST_VOTES` agreeing votes or a confidence of `LEAST_CONFIDENCE` it cannot be told.
"""

import math
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from scipy.ndimage import gaussian_filter

from datamodules.reading import SceneReader

Array = npt.NDArray[Any]
WINDOW: Final = 64
MAX_WINDOWS: Final = 49
SIGNIFICANT: Final = 10.0
"""Of windows of unrelated images and models (Mars tiles, exchanged) 95 % stay below 9.9 and 99 % below 12.9; of related ones half are above 10."""
LEAST_VOTES: Final = 3
LEAST_CONFIDENCE: Final = 0.3
_REACH: Final = 16
_MOST_MISSING: Final = 0.2
_DAMPING: Final = 0.1
_SMOOTH: Final = 8.0


@dataclass(frozen=True)
class ResidualShift:
    """Where an elevation model lies beside its image.

    Args:
        x_m, y_m: Metres by which the model lies too far east and north; NaN where it cannot be told.
        confidence: Share of windows that agree, in [0, 1]; 0 where there was no window to look at.
        windows: Windows that were looked at.
        dem_pixel_m: Side of a pixel of the model; of the image where the model has none in metres.
    """

    x_m: float
    y_m: float
    confidence: float
    windows: int
    dem_pixel_m: float

    @property
    def told(self) -> bool:
        """Whether image and model agree enough to tell."""
        return not math.isnan(self.x_m)

    @property
    def length_m(self) -> float:
        """Metres; NaN where it cannot be told."""
        return math.hypot(self.x_m, self.y_m)


def residual_shift(reader: SceneReader) -> ResidualShift | None:
    """Measure the shift of a scene, reading at most `MAX_WINDOWS` windows.

    Windows are read in blocks of half a DEM pixel, since a finer image shows nothing that the model could match.

    Args:
        reader: The scene.

    Returns:
        The shift, perhaps one that cannot be told; None without an elevation model.
    """
    if reader.dem_pixel_size_m is None:
        return None
    side = float(np.mean(reader.grid.pixel_size))
    dem_side = float(np.mean(reader.dem_pixel_size_m))
    dem_side = side if math.isnan(dem_side) else dem_side
    block = max(1, int(dem_side / (2 * side)))
    votes, looked = [], 0
    for row, column in _places(reader.grid.height // block, reader.grid.width // block):
        image, dem = _blocks(reader, row, column, block)
        found = window_shift(image, dem, (reader.grid.pixel_size[0] * block, reader.grid.pixel_size[1] * block))
        if found is None:
            continue
        looked += 1
        if found[2] >= SIGNIFICANT:
            votes.append(found[:2])
    nothing = ResidualShift(math.nan, math.nan, 0.0, looked, max(dem_side, side))
    if not votes:
        return nothing
    pixel = np.array([-reader.grid.pixel_size[0] * block, reader.grid.pixel_size[1] * block])  # the model's rows run south
    metres = np.array(votes) * pixel
    reach = max(dem_side, side * block)
    middle = np.median(metres, axis=0)
    agree = np.hypot(*(metres - middle).T) <= reach
    confidence = float(agree.sum() / looked)
    if agree.sum() < LEAST_VOTES or confidence < LEAST_CONFIDENCE:
        return ResidualShift(math.nan, math.nan, confidence, looked, nothing.dem_pixel_m)
    x_m, y_m = (float(value) for value in np.median(metres[agree], axis=0))
    return ResidualShift(x_m, y_m, confidence, looked, nothing.dem_pixel_m)


def _places(height: int, width: int) -> list[tuple[int, int]]:
    """Upper left blocks of windows, half overlapping in a small scene and spread evenly in a large one; none in one smaller than a window."""
    if height < WINDOW or width < WINDOW:
        return []
    share = math.sqrt(MAX_WINDOWS)
    rows, columns = (
        np.unique(np.linspace(0, length - WINDOW, min(int(share), max(1, 2 * length // WINDOW - 1))).astype(int)).tolist()
        for length in (height, width)
    )
    return [(row, column) for row in rows for column in columns]


def _blocks(reader: SceneReader, row: int, column: int, block: int) -> tuple[Array, Array]:
    """Brightness and elevation of a window by means of blocks, float64 (WINDOW, WINDOW) each, NaN = no data; read in strips."""
    image, dem = np.empty((WINDOW, WINDOW)), np.empty((WINDOW, WINDOW))
    rows = max(1, 256 // block)
    for first in range(0, WINDOW, rows):
        count = min(rows, WINDOW - first)
        place = (row + first) * block, column * block, count * block, WINDOW * block
        values, missing = reader.image(*place)
        grey = values.mean(axis=2, dtype=np.float64)
        if missing is not None:
            grey[missing] = np.nan
        for target, source in ((image, grey), (dem, reader.dem(*place).astype(np.float64))):
            target[first : first + count] = source.reshape(count, block, WINDOW, block).mean(axis=(1, 3))
    return image, dem


def window_shift(image: Array, dem: Array, pixel_size: tuple[float, float]) -> tuple[float, float, float] | None:
    """Shift of one window.

    Args:
        image: Brightness (H, W), NaN = no data.
        dem: Metres (H, W), NaN = no data.
        pixel_size: Metres (x, y).

    Returns:
        Columns and rows by which the image's content lies beyond the model's (to the right, down), and how many standard deviations the peak
        stands out; None where too much is missing or nothing varies.
    """
    z_y, z_x = np.gradient(dem, pixel_size[1], pixel_size[0])
    missing = ~np.isfinite(image) | ~np.isfinite(z_x) | ~np.isfinite(z_y)
    if missing.mean() > _MOST_MISSING:
        return None
    taper = np.outer(np.hanning(image.shape[0] + 2)[1:-1], np.hanning(image.shape[1] + 2)[1:-1])
    target = _prepared(image, missing, taper)
    layers = [_prepared(layer, missing, taper) for layer in (z_x, z_y, np.hypot(z_x, z_y))]
    if not target.any() or not all(layer.any() for layer in layers):
        return None
    spectrum = _whitened(np.fft.rfft2(target))
    spectra = [_whitened(np.fft.rfft2(layer)) for layer in layers]
    surfaces = np.stack([np.fft.irfft2(spectrum * np.conj(other), s=image.shape) for other in spectra])
    products = np.array(
        [[np.vdot(np.fft.irfft2(one, s=image.shape), np.fft.irfft2(other, s=image.shape)) for other in spectra] for one in spectra]
    )
    explained = np.einsum("ihw,ij,jhw->hw", surfaces, np.linalg.pinv(products), surfaces)
    around = np.fft.fftshift(explained)
    middle = image.shape[0] // 2, image.shape[1] // 2
    near = around[middle[0] - _REACH : middle[0] + _REACH + 1, middle[1] - _REACH : middle[1] + _REACH + 1]
    row, column = (int(place) for place in np.unravel_index(near.argmax(), near.shape))
    rest = np.ones(near.shape, dtype=bool)
    rest[max(row - 3, 0) : row + 4, max(column - 3, 0) : column + 4] = False
    height = float((near[row, column] - near[rest].mean()) / max(near[rest].std(), 1e-30))
    return column + _vertex(near[row], column) - _REACH, row + _vertex(near[:, column], row) - _REACH, height


def _prepared(layer: Array, missing: Array, taper: Array) -> Array:
    """A layer without its broad tones, 0 where data lack, fading to the edges; unit variance."""
    known = ~missing
    filled = np.where(known, layer, layer[known].mean())
    weight = np.maximum(gaussian_filter(known.astype(np.float64), _SMOOTH), 1e-6)
    detail = np.where(known, filled - gaussian_filter(np.where(known, filled, 0), _SMOOTH) / weight, 0) * taper
    spread = float(detail.std())
    return detail / spread if spread > 1e-12 * max(float(np.abs(filled).max()), 1e-12) else np.zeros_like(detail)


def _whitened(spectrum: Array) -> Array:
    """A spectrum of nearly equal amplitudes: weak ones, which are noise, are damped."""
    amplitude = np.abs(spectrum)
    return np.asarray(spectrum / (amplitude + _DAMPING * amplitude.max()))


def _vertex(line: Array, at: int) -> float:
    """Offset of the maximum of the parabola through a peak and its neighbours, in [-0.5, 0.5]; 0 at an end."""
    if not 0 < at < len(line) - 1:
        return 0.0
    before, peak, after = (float(value) for value in line[at - 1 : at + 2])
    curvature = before - 2 * peak + after
    return 0.0 if curvature >= 0 else 0.5 * (before - after) / curvature
