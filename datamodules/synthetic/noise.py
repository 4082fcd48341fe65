"""Random fields by spectral synthesis, shared by every stage of the generator."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import fft

Grid = NDArray[np.float32]
"""Raster of the generator: float32 (rows, columns), row 0 in the north."""


def fractal(
    rng: np.random.Generator,
    shape: Sequence[int],
    pixel_m: float,
    *,
    roughness: float = 2.0,
    longest_m: float = np.inf,
    shortest_m: float = 0.0,
) -> Grid:
    """Isotropic Gaussian field with a power-law spectrum, mean 0 and standard deviation 1.

    Args:
        rng: Source of randomness.
        shape: Rows, columns.
        pixel_m: Metres a pixel.
        roughness: Exponent b of the power spectrum k^-b: 0 is white, 2 rough, 4 smooth.
        longest_m: Wavelengths above it are damped.
        shortest_m: Wavelengths below it are damped.
    """
    rows, columns = shape
    spectrum = fft.rfft2(rng.standard_normal((rows, columns), dtype=np.float32))
    frequency_y = fft.fftfreq(rows, pixel_m).astype(np.float32)[:, None]
    frequency_x = fft.rfftfreq(columns, pixel_m).astype(np.float32)[None]
    squared = frequency_y**2 + frequency_x**2
    squared[0, 0] = 1.0
    gain = squared ** (-roughness / 4)
    gain *= 1 / (1 + 1 / (squared * longest_m**2)) if np.isfinite(longest_m) else 1
    gain *= np.exp(-squared * shortest_m**2 / 2)
    gain[0, 0] = 0
    field = fft.irfft2(spectrum * gain, s=(rows, columns))
    return np.asarray(field / field.std(), dtype=np.float32)


def smoothstep(values: Grid, low: float, high: float) -> Grid:
    """Cubic ramp from 0 at `low` to 1 at `high` (which may lie below `low` for a falling ramp)."""
    ramp = np.clip((values - low) / (high - low), 0, 1)
    return np.asarray(ramp * ramp * (3 - 2 * ramp), dtype=np.float32)


def gradient_slope_deg(surface: Grid, pixel_m: float) -> Grid:
    """Slope in degrees by central differences."""
    down, right = np.gradient(surface, pixel_m)
    return np.asarray(np.degrees(np.arctan(np.hypot(down, right))), dtype=np.float32)
