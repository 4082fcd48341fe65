"""From a checkpoint to the inventory of a scene of Mars, whose coordinate system has no EPSG code."""

import os
import subprocess
from pathlib import Path

import numpy as np
import pytest
import rasterio
import rasterio.features
import torch

from datamodules.errors import UserError
from tests.zoo.inventory.building import read_layer
from zoo import create_method
from zoo.cli import main

DATA = Path(os.environ.get("LANDSLIDE_DATA", "nowhere"))
RADIUS_M = 3_396_190.0

pytestmark = [pytest.mark.realdata, pytest.mark.slow, pytest.mark.skipif(not DATA.is_dir(), reason="LANDSLIDE_DATA names no folder")]


@pytest.fixture
def untrained(tmp_path):
    """A checkpoint of a tiny network with random weights: its map is noise that follows the terrain."""
    torch.manual_seed(0)
    network = {"encoder": "tu-test_efficientnet", "decoder": "unet", "decoder_channels": 16, "inputs": "both", "terrain": ["slope"]}
    module = create_method("deeplab", network={**network, "weights": None})
    checkpoint = {"state_dict": module.state_dict()}
    module.on_save_checkpoint(checkpoint)
    torch.save(checkpoint, tmp_path / "random.ckpt")
    return tmp_path / "random.ckpt"


def test_an_inventory_of_mars_has_areas_on_its_own_sphere(untrained, tmp_path, capsys):
    scene, out, slides = DATA / "mars_scenes" / "scene_val_holes", tmp_path / "p.tif", tmp_path / "slides.gpkg"
    layers = ["--image", str(scene / "rgb.tif"), "--dem", str(scene / "dem.tif")]
    assert (
        main(
            [
                "map",
                str(untrained),
                *layers,
                "--out",
                str(out),
                "--tile",
                "256",
                "--overlap",
                "0",
                "--inventory",
                str(tmp_path / "own.gpkg"),
            ]
        )
        == 0
    )
    assert "own.gpkg: no GeoJSON" in capsys.readouterr().out
    with rasterio.open(tmp_path / "p_class.tif") as dataset:
        classes, tags = dataset.read(1), dataset.tags()
    shapes, fields = read_layer(tmp_path / "own.gpkg", "landslides")
    assert (fields["model"] == tags["ZOO_MODEL_SHA256"]).all()
    drawn = rasterio.features.rasterize(shapes, classes.shape, transform=dataset.transform) if len(shapes) else np.zeros_like(classes)
    np.testing.assert_array_equal(drawn == 1, classes == 1)
    assert {path.name for path in tmp_path.glob("*.qml")} == {"p.qml", "p_class.qml", "own.qml"}
    with rasterio.open(out) as dataset:
        coded, transform = dataset.read(1), dataset.transform
    threshold = np.median(coded[coded != 255]) / 254  # so that there is something on both sides
    arguments = ["inventory", str(out), *layers[2:], "--out", str(slides), "--threshold", str(threshold)]
    assert main(arguments) == 0
    assert "no GeoJSON" in capsys.readouterr().out
    assert not slides.with_suffix(".geojson").exists()
    with pytest.raises(UserError, match="no place on the Earth"):
        main([*arguments, "--geojson"])
    shapes, fields = read_layer(slides, "landslides")
    landslide = (coded != 255) & (coded / 254 >= threshold - 1e-6)
    assert 0.3 < landslide.sum() / (coded != 255).sum() <= 1
    assert (coded == 255).any()
    drawn = rasterio.features.rasterize(shapes, coded.shape, transform=transform)
    np.testing.assert_array_equal(drawn == 1, landslide)
    # A cell of the sphere: R^2 (sine of its upper latitude - sine of its lower) times its width in longitude.
    edges = np.sin((transform.f + transform.e * np.arange(len(coded) + 1)) / RADIUS_M)
    cells = RADIUS_M * (edges[:-1] - edges[1:]) * transform.a
    assert fields["area_m2"].sum() == pytest.approx((landslide * cells[:, None]).sum(), rel=1e-3)
    assert 0 < np.nanmedian(fields["slope_deg"]) < 45
    text = subprocess.run(["ogrinfo", "-ro", "-so", "-al", str(slides)], capture_output=True, text=True, check=True).stdout
    assert "3396190" in text
