"""The image: land cover, texture and sun, over which old landslides are hardly visible.

Fields, vegetation and moisture follow the terrain as they do everywhere, on and off landslides. Only a faint part of the land cover
knows of them: smaller and less regular fields, a greener interior; both fade with age.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from datamodules.synthetic.confusers import Terraces, parcels
from datamodules.synthetic.noise import Grid, fractal, gradient_slope_deg, smoothstep

# Reflectance in red, green, blue; invented after the look of the Loess Plateau in spring and autumn images.
_LOESS, _GRASS, _SHRUB = (0.44, 0.37, 0.27), (0.35, 0.33, 0.22), (0.19, 0.24, 0.14)
_ROAD, _GRAVEL = (0.52, 0.48, 0.41), (0.41, 0.39, 0.35)
_ROOFS = ((0.45, 0.28, 0.22), (0.58, 0.57, 0.55), (0.30, 0.33, 0.38))
_CROPS = (
    (0.40, 0.34, 0.25),
    (0.46, 0.40, 0.30),
    (0.36, 0.32, 0.21),
    (0.30, 0.32, 0.18),
    (0.22, 0.29, 0.14),
    (0.43, 0.39, 0.24),
    (0.33, 0.29, 0.22),
)


@dataclass(frozen=True)
class Sky:
    """Sun and atmosphere of one image."""

    sun_azimuth_deg: float
    sun_altitude_deg: float
    haze: float
    """Path radiance as reflectance."""
    gain: tuple[float, float, float]
    """By band; calibration and season."""
    greenness: float
    """Added to the vegetation index everywhere; the season."""

    @classmethod
    def draw(cls, rng: np.random.Generator) -> "Sky":
        """A morning or noon overpass in some season."""
        gain = 1.15 * np.exp(rng.normal(0, 0.06, 3) + rng.normal(0, 0.06))
        return cls(
            float(rng.uniform(105, 215)),
            float(rng.uniform(32, 65)),
            float(rng.uniform(0.0, 0.06)),
            (float(gain[0]), float(gain[1]), float(gain[2])),
            float(rng.uniform(-0.5, 0.5)),
        )


def render(
    rng: np.random.Generator,
    surface: Grid,
    pixel_m: float,
    sky: Sky,
    *,
    terraces: Terraces,
    road_m: Grid,
    drainage_m2: Grid,
    slides: Sequence[tuple[NDArray[np.bool_], float]],
) -> NDArray[np.uint8]:
    """Render the image of a surface.

    Args:
        rng: Source of randomness.
        surface: Elevation in metres, float32 (rows, columns).
        pixel_m: Metres a pixel.
        sky: Sun and atmosphere.
        terraces: Terraced ground of the surface.
        road_m: Distance to the edge of the nearest road in metres, negative on it.
        drainage_m2: Contributing area.
        slides: Footprint and age of each landslide.

    Returns:
        uint8 (3, rows, columns), 1 to 255.
    """
    shape = surface.shape
    slope = gradient_slope_deg(ndimage.gaussian_filter(surface, 6 / pixel_m), pixel_m)
    # Rows grow southward: ground that faces north rises along them.
    north_facing = np.clip(1.2 * np.gradient(ndimage.gaussian_filter(surface, 12 / pixel_m), pixel_m, axis=0), -0.5, 0.5)
    disturbed, toe = _traces(slides, shape, pixel_m)
    wet = smoothstep(np.log10(drainage_m2), 3.0, 5.5)
    greenness = (
        sky.greenness + 0.9 * fractal(rng, shape, pixel_m, roughness=2.6, longest_m=400) + 0.9 * north_facing + 0.8 * wet + 2.2 * toe
    )
    greenness -= 1.3 * smoothstep(slope, 26, 42)
    cover = _blend(_colours(_LOESS), _colours(_GRASS), smoothstep(greenness, -1.4, 0.2))
    shrubs = ndimage.gaussian_filter(rng.standard_normal(shape, dtype=np.float32), 0.9)
    shrubs /= shrubs.std()
    cover = _blend(cover, _colours(_SHRUB), 0.85 * smoothstep(shrubs + 0.9 * greenness, 1.1, 2.0))
    tilled = fractal(rng, shape, pixel_m, roughness=3.0, longest_m=600) + 0.9 + 0.5 * disturbed
    tilled = np.maximum(smoothstep(tilled, 0, 0.25) * smoothstep(slope, 20, 14), 0.9 * smoothstep(terraces.share, 0.35, 0.6))
    tilled *= 1 - 0.8 * smoothstep(wet, 0.5, 0.8)
    cover = _blend(cover, _fields(rng, surface, pixel_m, disturbed), tilled)
    cover = _blend(cover, _colours(_SHRUB), 0.5 * terraces.riser * smoothstep(shrubs, -0.5, 0.8))
    cover = _blend(cover, _colours(_GRAVEL), smoothstep(wet, 0.85, 1.0) * 0.8)
    cover = _blend(cover, _colours(_ROAD), 0.9 * smoothstep(road_m, 1.5, -0.5))
    _villages(rng, cover, slope, road_m, pixel_m)
    texture = 0.06 * fractal(rng, shape, pixel_m, roughness=1.0) + 0.05 * fractal(rng, shape, pixel_m, roughness=2.5, longest_m=150)
    radiance = cover * np.exp(texture) * _light(rng, surface, pixel_m, sky)
    radiance = ndimage.gaussian_filter(radiance, (0, 0.6, 0.6))
    radiance = (
        radiance * np.array(sky.gain, dtype=np.float32)[:, None, None]
        + np.array([0.7, 0.9, 1.2], dtype=np.float32)[:, None, None] * sky.haze
    )
    radiance += 0.006 * rng.standard_normal(radiance.shape, dtype=np.float32)
    # A stretch with some gamma, as image providers deliver; 0 is kept for "no data".
    return np.asarray(np.clip(255 * np.clip(radiance / 0.75, 0, 1) ** 0.8, 1, 255), dtype=np.uint8)


def _colours(colour: tuple[float, float, float]) -> Grid:
    return np.array(colour, dtype=np.float32)[:, None, None]


def _blend(below: Grid, above: Grid, share: Grid) -> Grid:
    return np.asarray(below + share[None] * (above - below), dtype=np.float32)


def _traces(slides: Sequence[tuple[NDArray[np.bool_], float]], shape: tuple[int, ...], pixel_m: float) -> tuple[Grid, Grid]:
    """How much of the field pattern is disturbed, and the moist interior of the tongues; both 0 to 1, less with age."""
    disturbed = np.zeros(shape, dtype=np.float32)
    for footprint, age in slides:
        disturbed[footprint] = np.maximum(disturbed[footprint], 0.8 * (1 - age))
    disturbed = ndimage.gaussian_filter(disturbed, 12 / pixel_m)
    patches = ndimage.gaussian_filter(disturbed, 20 / pixel_m) * disturbed
    return disturbed, patches


def _fields(rng: np.random.Generator, surface: Grid, pixel_m: float, disturbed: Grid) -> Grid:
    """Reflectance of the fields, were all ground tilled."""
    rows, columns = surface.shape
    size_m = rng.uniform(22, 40)
    number = parcels(rng, surface, pixel_m, size_m)
    small = parcels(rng, surface, pixel_m, 0.6 * size_m)
    # The change from regular to small fields is ragged, and small fields occur off landslides too.
    mixing = fractal(rng, surface.shape, pixel_m, roughness=3.0, longest_m=300)
    number = np.where(1.2 * disturbed + 0.5 * mixing > 0.55, small, number)
    crop = np.array(_CROPS, dtype=np.float32)[rng.choice(len(_CROPS), 65536, p=rng.dirichlet(np.full(len(_CROPS), 1.5)))]
    crop *= np.exp(rng.normal(0, 0.07, (65536, 1))).astype(np.float32)
    ploughing = rng.uniform(0, np.pi, 65536).astype(np.float32)[number]
    x, y = np.arange(columns, dtype=np.float32)[None] * pixel_m, np.arange(rows, dtype=np.float32)[:, None] * pixel_m
    furrows = np.sin((x * np.cos(ploughing) + y * np.sin(ploughing)) * np.float32(2 * np.pi / rng.uniform(6, 9)))
    borders = (number != np.roll(number, 1, 0)) | (number != np.roll(number, 1, 1))
    return np.asarray(np.moveaxis(crop[number], -1, 0) * (1 + 0.025 * furrows - 0.12 * borders), dtype=np.float32)


def _villages(rng: np.random.Generator, cover: Grid, slope: Grid, road_m: Grid, pixel_m: float) -> None:
    """Put houses beside roads on level ground, into `cover` itself."""
    rows, columns = slope.shape
    for _ in range(round(rows * columns * pixel_m**2 / 1.5e6)):
        row, column = rng.integers(0, rows), rng.integers(0, columns)
        for _ in range(rng.integers(10, 60)):
            top, left = (np.array([row, column]) + rng.normal(0, 60 / pixel_m, 2)).astype(int)
            height, width = (rng.uniform(6, 16, 2) / pixel_m).astype(int)
            if 0 <= top < rows - height and 0 <= left < columns - width and slope[top, left] < 12 and road_m[top, left] > 4:
                cover[:, top : top + height, left : left + width] = _colours(_ROOFS[rng.integers(len(_ROOFS))])
                cover[:, top + height - 1, left : left + width] *= 0.55


def _light(rng: np.random.Generator, surface: Grid, pixel_m: float, sky: Sky) -> Grid:
    """Irradiance relative to level ground: sun by Lambert's law plus diffuse light."""
    rough = surface + 0.06 * fractal(rng, surface.shape, pixel_m, roughness=1.5)
    south, east = np.gradient(rough, pixel_m)
    azimuth, altitude = np.radians(sky.sun_azimuth_deg), np.radians(sky.sun_altitude_deg)
    direct = (np.sin(altitude) - np.cos(altitude) * (east * np.sin(azimuth) - south * np.cos(azimuth))) / np.sqrt(1 + south**2 + east**2)
    return np.asarray(0.42 + 0.58 * np.clip(direct, 0, None) / np.sin(altitude), dtype=np.float32)
