"""What augmentation may and may not do to the layers of a window."""

import numpy as np
import pytest
import torch

from datamodules.alignment import NO_IMAGE
from datamodules.augmentation import Augmentation, crop
from datamodules.reading import Layers
from datamodules.terrain import slope

SIZE, HALO = 40, 2
WIDE = SIZE + 2 * HALO


def window(seed=0, dtype=np.uint8, channels=3):
    generator = np.random.default_rng(seed)
    image = generator.integers(1, 255, (WIDE, WIDE, channels)).astype(dtype)
    dem = generator.normal(1200, 50, (WIDE, WIDE)).astype(np.float32)
    mask = (generator.random((WIDE, WIDE)) > 0.8).astype(np.uint8)
    return Layers(image, dem, mask)


def dihedral(array):
    for turned in (array, array.swapaxes(0, 1)):
        for quarter in range(4):
            yield np.rot90(turned, quarter)


def test_flips_and_turns_move_all_layers_together():
    layers = window()
    augmentation = Augmentation(scale=0, shift=0, colour=False)
    seen = set()
    for seed in range(40):
        changed, _ = augmentation(layers, (2.0, 2.0), seed, HALO)
        matches = [
            k
            for k, (image, dem, mask) in enumerate(zip(dihedral(layers.image), dihedral(layers.dem), dihedral(layers.mask), strict=True))
            if np.array_equal(crop(image, HALO), changed.image)
            and np.array_equal(dem, changed.dem)
            and np.array_equal(crop(mask, HALO), changed.mask)
        ]
        assert len(matches) == 1
        seen.add(matches[0])
    assert len(seen) == 8


def test_colour_changes_the_image_alone():
    layers = window()
    augmentation = Augmentation(geometry=False, colour=True)
    changed = 0
    for seed in range(10):
        after, pixel_size = augmentation(layers, (2.0, 3.0), seed, HALO)
        assert np.array_equal(after.dem, layers.dem)
        assert np.array_equal(after.mask, crop(layers.mask, HALO))
        assert after.image.dtype == np.uint8
        assert pixel_size == (2.0, 3.0)
        changed += not np.array_equal(after.image, crop(layers.image, HALO))
    assert changed >= 5


@pytest.mark.parametrize("pixel_size", [(2.0, 2.0), (2.0, 3.0)])
def test_the_slope_of_a_plane_survives_every_geometry(pixel_size):
    x, y = pixel_size
    plane = (0.5 * x * np.arange(WIDE)[None] - 0.3 * y * np.arange(WIDE)[:, None] + 1000).astype(np.float32)
    expected = np.degrees(np.arctan(np.hypot(0.5, 0.3)))
    layers = Layers(window().image, plane, window().mask)
    augmentation = Augmentation(scale=0.3, shift=0.1, colour=False)
    sizes = set()
    for seed in range(40):
        changed, size = augmentation(layers, pixel_size, seed, HALO)
        dem = torch.from_numpy(np.ascontiguousarray(changed.dem))[None, None].double()
        degrees = slope(dem, torch.tensor([size], dtype=torch.float64))
        known = degrees[~degrees.isnan()]
        assert len(known) > SIZE**2 / 4
        # Heights near 1000 m in float32 are known to 6e-5 m, slopes to about 2e-3 degrees.
        assert float((known - expected).abs().max()) < 0.01
        sizes.add(round(size[0], 4))
    assert len(sizes) > 20


def test_a_window_of_a_true_scale_shows_the_pixel_size_it_says():
    """A ramp that rises 1 m a metre eastward must still do so, measured in the new pixels."""
    ramp = (2.0 * np.arange(WIDE)[None] + np.zeros((WIDE, 1))).astype(np.float32)
    augmentation = Augmentation(scale=0.3, shift=0, colour=False)
    for seed in range(10):
        changed, size = augmentation(Layers(window().image, ramp, window().mask), (2.0, 2.0), seed, HALO)
        across, down = np.diff(changed.dem, axis=1), np.diff(changed.dem, axis=0)
        rise = max(abs(np.nanmedian(across)), abs(np.nanmedian(down)))
        assert rise / size[0] == pytest.approx(1.0, abs=1e-3)


def test_what_comes_from_outside_has_no_data_in_any_layer():
    layers = Layers(
        np.full((WIDE, WIDE, 3), 200, dtype=np.uint8), np.zeros((WIDE, WIDE), dtype=np.float32), np.zeros((WIDE, WIDE), dtype=np.uint8)
    )
    augmentation = Augmentation(scale=0.3, shift=0.2, colour=False)
    outside = 0
    for seed in range(20):
        changed, _ = augmentation(layers, (2.0, 2.0), seed, HALO)
        valid = changed.mask != NO_IMAGE
        assert (changed.image[valid] == 200).all()  # no blend with the fill value
        assert (changed.mask[valid] == 0).all()
        assert np.isin(changed.dem[~np.isnan(changed.dem)], 0).all()
        outside += (~valid).sum()
    assert outside > 0


def test_the_label_is_never_interpolated():
    augmentation = Augmentation(scale=0.3, shift=0.2, colour=False)
    layers = window()
    layers.mask[10:20] = 255
    for seed in range(20):
        changed, _ = augmentation(layers, (2.0, 2.0), seed, HALO)
        assert set(np.unique(changed.mask)) <= {0, 1, NO_IMAGE, 255}


def test_the_seed_decides_and_nothing_else():
    layers = window()
    one, other = Augmentation(), Augmentation()
    other(layers, (2.0, 2.0), 99, HALO)  # a history must not matter
    for seed in (0, 1, 2**31 - 2):
        a, size_a = one(layers, (2.0, 2.0), seed, HALO)
        b, size_b = other(layers, (2.0, 2.0), seed, HALO)
        assert size_a == size_b
        for part in ("image", "dem", "mask"):
            np.testing.assert_array_equal(getattr(a, part), getattr(b, part))


@pytest.mark.parametrize("channels", [1, 4, 7])
def test_float_images_with_any_number_of_bands_keep_range_and_gaps(channels):
    layers = window(dtype=np.float32, channels=channels)
    layers.image[...] = layers.image * 40 + 300  # 12 bit reflectances
    layers.image[5, 5] = np.nan
    mean, std = tuple(np.nanmean(layers.image, axis=(0, 1)).tolist()), tuple(np.nanstd(layers.image, axis=(0, 1)).tolist())
    augmentation = Augmentation(geometry=False, image_mean=mean, image_std=std)
    changed = [augmentation(layers, (2.0, 2.0), seed, 0)[0].image for seed in range(6)]
    for image in changed:
        assert image.shape == layers.image.shape
        assert np.isnan(image[5, 5]).all()
        assert np.isnan(image).sum() == channels
        # Brightness and contrast of 20 % move values by a part of their spread and clip none to [0, 1].
        assert 0.5 < np.nanstd(image) / np.nanstd(layers.image) < 1.5
    assert any(not np.array_equal(image, layers.image, equal_nan=True) for image in changed)
    moved = Augmentation(colour=False)(layers, (2.0, 2.0), 3, 1)[0].image
    assert moved.shape == (WIDE - 2, WIDE - 2, channels)
