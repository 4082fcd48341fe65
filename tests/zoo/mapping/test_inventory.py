"""`zoo map --inventory`: from a checkpoint to polygons in one command."""

import numpy as np
import pyogrio.raw
import pytest
import rasterio
import rasterio.features
import shapely

from datamodules.errors import UserError
from datamodules.scene import Scene, write_manifest
from zoo.cli import main


def landslides(path):
    meta, _, geometries, values = pyogrio.raw.read(path, layer="landslides")
    return shapely.from_wkb(geometries), dict(zip(meta["fields"], values, strict=True))


def middle(path):
    """A threshold that parts a map in halves, so that there is something on both sides."""
    with rasterio.open(path) as dataset:
        return float(np.median(dataset.read(1, masked=True).compressed()))


def test_the_inventory_of_a_map_is_its_class_raster(trained, survey, tmp_path, capsys):
    arguments = ["map", str(trained()), "--image", str(survey[0]), "--dem", str(survey[1]), "--tta", "d4", "--device", "cpu"]
    assert main([*arguments, "--out", str(tmp_path / "probe.tif"), "--dtype", "float32"]) == 0
    out, slides = tmp_path / "prob.tif", tmp_path / "slides.gpkg"
    threshold = str(middle(tmp_path / "probe.tif"))
    assert main([*arguments, "--out", str(out), "--threshold", threshold, "--inventory", str(slides)]) == 0
    shapes, fields = landslides(slides)
    with rasterio.open(tmp_path / "prob_class.tif") as dataset:
        classes = dataset.read(1)
        drawn = rasterio.features.rasterize(shapes, classes.shape, transform=dataset.transform)
    np.testing.assert_array_equal(drawn == 1, classes == 1)
    assert 0.3 < (classes == 1).sum() / (classes != 255).sum() < 0.7
    with rasterio.open(out) as dataset:
        assert (fields["model"] == dataset.tags()["ZOO_MODEL_SHA256"]).all()
    for name in ("uncertainty_mean", "slope_deg", "elevation_max_m", "crown_x"):
        assert np.isfinite(fields[name]).all(), name
    assert f"{len(shapes)} landslides" in capsys.readouterr().out
    styles = {path.name for path in tmp_path.glob("*.qml")}
    assert {"prob.qml", "prob_class.qml", "prob_uncertainty.qml", "slides.qml"} <= styles


def test_each_scene_of_a_manifest_gets_its_own_and_a_network_without_dem_has_terrain_all_the_same(trained, survey, tmp_path):
    write_manifest([Scene(f"valley_{number}", *survey, None, "predict") for number in range(2)], tmp_path / "scenes.csv")
    arguments = ["map", str(trained("image")), "--scenes", str(tmp_path / "scenes.csv"), "--out", str(tmp_path / "maps")]
    assert main([*arguments, "--inventory", str(tmp_path / "slides"), "--threshold", "0", "--no-geojson"]) == 0
    assert {path.name for path in (tmp_path / "slides").iterdir()} == {f"valley_{n}.{end}" for n in range(2) for end in ("gpkg", "qml")}
    shapes, fields = landslides(tmp_path / "slides" / "valley_1.gpkg")
    assert len(shapes) == 1  # all of the image but its hole
    assert np.isfinite(fields["slope_deg"]).all()
    assert fields["area_m2"][0] == pytest.approx((150 * 200 - 30 * 50) * 4, rel=2e-3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--min-area-m2", "5"], "no --inventory"),
        (["--inventory", "OUT/s.shp"], "end it with .gpkg"),
        (["--inventory", "OUT/s.gpkg", "--reference", "OUT/none.gpkg"], "no such file"),
        (["--inventory", "OUT/s.gpkg", "--reference", "IMAGE"], "cannot be read as polygons"),
    ],
)
def test_a_mistake_in_the_inventory_shows_before_the_map_is_made(trained, survey, tmp_path, arguments, message):
    words = [word.replace("OUT", str(tmp_path)).replace("IMAGE", str(survey[0])) for word in arguments]
    with pytest.raises(UserError) as caught:
        main(["map", str(trained("image")), "--image", str(survey[0]), "--out", str(tmp_path / "p.tif"), *words])
    assert message in str(caught.value)
    assert not (tmp_path / "p.tif").exists()
