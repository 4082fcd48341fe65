"""Real scenes: Mars with holes and a coordinate system of its own, and Rocky Mountain National Park in degrees and in metres."""

import os
from pathlib import Path

import numpy as np
import pytest
import rasterio

from datamodules.errors import UserError
from zoo.cli import main
from zoo.mapping import MapOptions, map_scene
from zoo.mapping.tiles import Axis

DATA = Path(os.environ.get("LANDSLIDE_DATA", "nowhere"))
ROOT = Path(__file__).parents[3]
QUIET = {"say": lambda line: None}

pytestmark = [pytest.mark.realdata, pytest.mark.slow, pytest.mark.skipif(not DATA.is_dir(), reason="LANDSLIDE_DATA names no folder")]


@pytest.fixture(scope="module")
def mars(tmp_path_factory):
    """A small network after thirty steps on the Mars tiles: 232 m pixels, tiles of 128."""
    folder = tmp_path_factory.mktemp("mars")
    arguments = [
        "fit", f"--config={ROOT}/zoo/configs/deeplab.yaml", f"--data.root={DATA}/mars_mmls", "--model.network.encoder=tu-test_efficientnet",
        "--model.network.weights=null", "--model.network.decoder_channels=32", "--model.network.terrain=[slope]", "--data.num_workers=0",
        "--trainer.max_steps=30", "--trainer.accelerator=cpu", "--trainer.enable_progress_bar=false", "--trainer.limit_val_batches=2",
        "--trainer.enable_model_summary=false", f"--trainer.logger.init_args.save_dir={folder}",
    ]  # fmt: skip
    assert main(arguments) == 0
    return next(folder.rglob("last.ckpt"))


def read(path):
    with rasterio.open(path) as dataset:
        return dataset.read(1), dataset.crs, dataset.transform


def steps(probability, borders, axis):
    """Mean absolute step into the pixels of `borders` along an axis, and into all others."""
    change = np.abs(np.diff(probability, axis=axis)).mean(axis=1 - axis)
    chosen = np.zeros(len(change), dtype=bool)
    chosen[np.array(sorted(borders)) - 1] = True
    return change[chosen].mean(), change[~chosen].mean()


def test_steps_across_tile_borders_are_not_larger_than_elsewhere(mars, tmp_path):
    scene = DATA / "mars_scenes" / "scene_full"
    ratios = {}
    for overlap in (0.0, 0.25):
        options = MapOptions(dtype="float32", overlap=overlap)
        out = tmp_path / f"{overlap}.tif"
        probability = read(map_scene(mars, scene / "rgb.tif", scene / "dem.tif", out=out, options=options, **QUIET).probability)[0]
        found = []
        for axis in (0, 1):
            tiles = Axis.of(probability.shape[axis], 128, overlap)
            ends = {start + tiles.size for start in tiles.starts}
            found.append(steps(probability, (ends | set(tiles.starts)) - {0, probability.shape[axis]}, axis))
        border, elsewhere = np.mean(found, axis=0)
        ratios[overlap] = border / elsewhere
    assert ratios[0.25] < 1.05
    assert ratios[0.0] > 1.3  # without blending the borders do show


@pytest.mark.parametrize("name", ["scene_val_holes", "scene_test_holes"])
def test_holes_stay_holes_also_where_only_the_elevation_knows_them(mars, tmp_path, name):
    scene = DATA / "mars_scenes" / name
    result = map_scene(mars, scene / "rgb.tif", scene / "dem.tif", out=tmp_path / "p.tif", **QUIET)
    with rasterio.open(scene / "dem.tif") as dem, rasterio.open(scene / "rgb.tif") as image:
        holes, crs, transform = dem.read(1) == dem.nodata, image.crs, image.transform
    probability, map_crs, map_transform = read(result.probability)
    classes = read(result.classes)[0]
    np.testing.assert_array_equal(probability == 255, holes)
    np.testing.assert_array_equal(classes == 255, holes)
    assert map_crs == crs
    assert map_crs.to_epsg() is None
    assert map_transform == transform
    assert result.km2 == pytest.approx((~holes).sum() * 0.232**2, rel=1e-6)


def test_a_scene_in_degrees_is_refused_and_its_projected_copy_asks_for_the_models_pixel_size(mars, tmp_path):
    folder = DATA / "rmnp_rgb_dem"
    with pytest.raises(UserError, match=r"degrees"):
        map_scene(mars, folder / "original" / "rmnp-rgb.tif", folder / "original" / "rmnp-dem.tif", out=tmp_path / "p.tif", **QUIET)
    image, dem = folder / "utm13_120m" / "rgb.tif", folder / "utm13_120m" / "dem.tif"
    with pytest.raises(UserError, match=r"120 x 120 m .* trained on 232 m.*--resample-to-model"):
        map_scene(mars, image, dem, out=tmp_path / "p.tif", **QUIET)
    result = map_scene(mars, image, dem, out=tmp_path / "p.tif", options=MapOptions(resample_to_model=True), **QUIET)
    probability, _, transform = read(result.probability)
    assert (transform.a, -transform.e) == pytest.approx((232, 232), abs=0.01)  # the tiles differ by millimetres
    assert probability.shape == (190, 155)  # 367 x 299 pixels of 120 m
    assert 0.9 < (probability != 255).mean() < 1
