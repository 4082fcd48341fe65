"""Windows of a scene: the same from memory as from its files, wherever they lie."""

from contextlib import closing

import numpy as np
import pytest
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st

from datamodules.reading import SceneReader
from datamodules.scene import Scene
from tests.datamodules.landslide_scenes import ORIGIN, write

HEIGHT, WIDTH, MARGIN = 70, 90, 9


def readers(folder, dtype, dem_crs):
    """One that reads from files and one that has the scene in memory; image with a hole, elevation on another grid with a hole."""
    rng = np.random.default_rng(5)
    image = rng.integers(1, 255, (3, HEIGHT, WIDTH)).astype(dtype)
    image[:, 20:30, 40:60] = 0
    write(folder / "image.tif", image, nodata=0)
    label = (rng.random((HEIGHT, WIDTH)) < 0.3).astype(np.uint8)
    label[5:9, 5:9] = 255
    write(folder / "label.tif", label)
    dem = rng.normal(900, 50, (40, 50)).astype(np.float32)
    dem[10:14, 20:24] = -9999
    if dem_crs == "EPSG:4326":
        transform = Affine(8e-5, 0, 105 - 9e-4, 0, -7e-5, 36.1433 + 7e-4)
        write(folder / "dem.tif", dem, transform=transform, crs=dem_crs, nodata=-9999)
    else:
        write(folder / "dem.tif", dem, pixel=7.0, origin=(ORIGIN[0] - 60, ORIGIN[1] + 40), nodata=-9999)
    scene = Scene("s", folder / "image.tif", folder / "dem.tif", folder / "label.tif", "test")
    pair = [SceneReader(scene, 3, MARGIN, "cubic") for _ in range(2)]
    assert pair[1].keep(2**24)
    return pair


@pytest.fixture(scope="module", params=[("uint8", "EPSG:32648"), ("uint16", "EPSG:4326"), ("float32", "EPSG:4326")], ids=str)
def pair(request, tmp_path_factory):
    streamed, kept = readers(tmp_path_factory.mktemp("scene"), *request.param)
    with closing(streamed), closing(kept):
        yield streamed, kept


@settings(max_examples=60, deadline=None)
@given(st.integers(-20, HEIGHT - 1), st.integers(-20, WIDTH - 1), st.integers(21, 60), st.integers(21, 60), st.integers(0, MARGIN))
def test_a_scene_in_memory_gives_what_its_files_give(pair, row, column, height, width, halo):
    streamed, kept = (reader.layers(row, column, height, width, halo) for reader in pair)
    for name in ("image", "dem", "mask"):
        one, other = getattr(streamed, name), getattr(kept, name)
        assert one.dtype == other.dtype
        inside = np.ones(one.shape, dtype=bool)
        if name == "dem":  # a scene in memory ends with its margin
            rows, columns = row - halo + np.arange(one.shape[0]), column - halo + np.arange(one.shape[1])
            inside = np.logical_and.outer((rows >= -MARGIN) & (rows < HEIGHT + MARGIN), (columns >= -MARGIN) & (columns < WIDTH + MARGIN))
        assert np.array_equal(one[inside], other[inside], equal_nan=one.dtype.kind == "f"), name


def test_it_shows_holes_elevation_and_both_labels(pair):
    layers = pair[1].layers(0, 0, HEIGHT, WIDTH)
    assert set(np.unique(layers.mask)) == {0, 1, 254, 255}
    assert 0.01 < np.isnan(layers.dem).mean() < 0.6


def test_a_scene_beyond_the_budget_stays_on_disk(tmp_path):
    streamed, kept = readers(tmp_path, "uint8", "EPSG:32648")
    taken = kept.keep(2**24)
    assert taken >= HEIGHT * WIDTH * (3 + 1 + 4)
    assert not streamed.keep(taken - 1)
    assert streamed.keep(taken) == taken


def test_what_is_forgotten_is_read_from_the_files_again(tmp_path):
    streamed, kept = readers(tmp_path, "uint8", "EPSG:32648")
    with closing(streamed), closing(kept):
        (tmp_path / "image.tif").unlink()
        assert kept.layers(3, 4, 20, 20).image.any(), "no file is needed"
        write(tmp_path / "image.tif", np.full((3, HEIGHT, WIDTH), 7, np.uint8), nodata=0)
        kept.forget()
        assert (kept.layers(3, 4, 20, 20).image == 7).all()
