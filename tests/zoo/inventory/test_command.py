"""`zoo inventory` as a user types it."""

import numpy as np
import pytest
import rasterio

from datamodules.errors import UserError
from tests.zoo.inventory.building import blobs, read_layer, write_map, write_raster
from zoo.cli import main


def test_options_reach_the_inventory(tmp_path, capsys):
    path = write_map(tmp_path, blobs())
    dem = write_raster(tmp_path / "dem.tif", np.full((120, 160), 100, np.float32))
    arguments = ["inventory", str(path), "--out", str(tmp_path / "out" / "s.gpkg"), "--dem", str(dem), "--dem-unit", "ft"]
    assert main([*arguments, "--threshold", "0.6", "--min-area-m2", "200", "--simplify-m", "5", "--no-geojson"]) == 0
    printed = capsys.readouterr().out
    assert "threshold 0.6 is applied to the probabilities as stored" in printed
    shapes, fields = read_layer(tmp_path / "out" / "s.gpkg", "landslides")
    assert f"{len(shapes)} landslides" in printed
    assert (fields["threshold"] == 0.6).all()
    assert (fields["elevation_max_m"] == pytest.approx(30.48)) if len(shapes) else False
    assert len(shapes) < len(read_layer_of(path, tmp_path))
    assert {file.name for file in (tmp_path / "out").iterdir()} == {"s.gpkg", "s.qml"}


def read_layer_of(path, folder):
    main(["inventory", str(path), "--out", str(folder / "all.gpkg")])
    return read_layer(folder / "all.gpkg", "landslides")[0]


def test_rounded_probabilities_keep_the_classes_of_the_map(tmp_path):
    probability = blobs()
    path = write_map(tmp_path, probability, threshold=0.5017)
    with rasterio.open(path) as dataset:
        tags = dataset.tags()
    with rasterio.open(tmp_path / "prob_class.tif") as dataset:
        classes, transform = dataset.read(1), dataset.transform
    stored = np.rint(probability * 254).astype(np.uint8)
    write_raster(path, stored, nodata=255, tags=tags)
    with rasterio.open(path, "r+") as dataset:
        dataset.scales = [1 / 254]
    assert main(["inventory", str(path), "--out", str(tmp_path / "s.gpkg")]) == 0
    shapes, fields = read_layer(tmp_path / "s.gpkg", "landslides")
    np.testing.assert_array_equal(rasterio.features.rasterize(shapes, classes.shape, transform=transform), classes)
    assert ((stored / 254 >= 0.5017) != (classes == 1)).any()  # rounding alone would have moved some
    assert fields["probability_max"].max() <= 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["MAP"], "--out"),
        (["MAP", "--out", "s.shp"], "end it with .gpkg"),
        (["MAP", "--out", "SAME"], "the name of the map's style, prob.qml"),
        (["nowhere.tif", "--out", "OUT"], "nowhere.tif"),
        (["BARE", "--out", "OUT"], "does not say its threshold"),
        (["BARE", "--out", "OUT", "--threshold", "1.5"], "threshold = 1.5"),
        (["MAP", "--out", "OUT", "--min-area-m2", "-1"], "min_area_m2 = -1"),
        (["MAP", "--out", "OUT", "--simplify-m", "nan"], "simplify_m"),
        (["MAP", "--out", "OUT", "--match", "dice"], "match = 'dice'"),
        (["MAP", "--out", "OUT", "--reference", "nowhere.gpkg"], "no such file"),
        (["MAP", "--out", "OUT", "--reference", "OUT"], "no such file"),
        (["MAP", "--out", "OUT", "--reference", "MAP"], "cannot be read as polygons"),
        (["MAP", "--out", "OUT", "--dem", "FAR"], "does not overlap"),
        (["PERCENT", "--out", "OUT", "--threshold", "0.5"], "holds 0 to 100, which are no probabilities"),
        (["TURNED", "--out", "OUT", "--threshold", "0.5"], "rotated"),
        (["STALE", "--out", "OUT"], "does not belong to prob.tif"),
    ],
)
def test_a_mistake_is_one_line(tmp_path, arguments, message):
    probability = blobs((20, 20)).astype(np.float32)
    far = rasterio.transform.from_origin(900_000, 4_000_000, 2, 2)
    files = {
        "MAP": write_map(tmp_path / "map", probability),
        "BARE": write_raster(tmp_path / "bare.tif", probability),
        "PERCENT": write_raster(tmp_path / "percent.tif", np.linspace(0, 100, 400, dtype=np.float32).reshape(20, 20)),
        "TURNED": write_raster(tmp_path / "turned.tif", probability, transform=far * rasterio.Affine.rotation(20)),
        "FAR": write_raster(tmp_path / "far.tif", probability, transform=far),
        "STALE": write_map(tmp_path / "stale", probability),
        "OUT": tmp_path / "s.gpkg",
        "SAME": tmp_path / "map" / "prob.gpkg",
    }
    write_raster(tmp_path / "stale" / "prob_class.tif", np.ones((20, 20), np.uint8), tags={"ZOO_FINGERPRINT": "another"})
    with pytest.raises(UserError) as caught:
        main(["inventory", *(str(files.get(argument, argument)) for argument in arguments)])
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.glob("*.gpkg"))


def test_an_input_is_not_overwritten(tmp_path):
    path = write_map(tmp_path, blobs((20, 20)))
    assert main(["inventory", str(path), "--out", str(tmp_path / "s.gpkg")]) == 0
    for reference, out in (("s.gpkg", "s.gpkg"), ("s.geojson", "s.gpkg")):
        with pytest.raises(UserError, match="would overwrite the reference"):
            main(["inventory", str(path), "--out", str(tmp_path / out), "--reference", str(tmp_path / reference)])
