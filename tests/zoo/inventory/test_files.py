"""The files of an inventory as other programs read them."""

import json
import subprocess

import numpy as np
import pyproj
import pytest
import rasterio
import shapely
from rasterio.transform import from_origin

from datamodules.errors import UserError
from datamodules.grid import nowhere
from tests.zoo.inventory.building import blobs, read_layer, write_map, write_polygons, write_raster
from zoo.inventory import InventoryOptions, inventory, write_inventory

LAYERS = ["landslides", "crowns", "toes"]


@pytest.fixture
def made(tmp_path):
    """An inventory with everything, and what was said."""
    said = []
    probability = blobs((90, 110))
    path = write_map(tmp_path, probability)
    dem = write_raster(tmp_path / "dem.tif", (900 + 50 * blobs((90, 110), seed=4)).astype(np.float32))
    known = write_polygons(tmp_path / "known.gpkg", [shapely.box(500_010, 3_999_900, 500_080, 3_999_990), shapely.box(0, 0, 1, 1)])
    result = write_inventory(path, tmp_path / "slides.gpkg", dem, options=InventoryOptions(reference=known), say=said.append)
    return result, said, tmp_path


def ogrinfo(path, *arguments):
    done = subprocess.run(["ogrinfo", "-ro", "-so", *arguments, str(path)], capture_output=True, text=True, check=True)
    assert not done.stderr, done.stderr
    return done.stdout


def test_ogrinfo_reads_every_layer(made):
    result, said, folder = made
    text = ogrinfo(result.geopackage, "-al")
    for layer in (*LAYERS, "matched", "missed", "false"):
        assert f"Layer name: {layer}\n" in text
    assert text.count('ID["EPSG",32648]') == 6
    assert f"Feature Count: {result.landslides}\n" in text
    assert sum(result.comparison[name] for name in ("matched", "false")) == result.landslides
    assert any("1 missed" in line or "1 matched" in line for line in said)
    assert "Layer name: slides" in ogrinfo(result.geojson, "-al") or "landslides" in ogrinfo(result.geojson, "-al")
    assert {path.name for path in folder.iterdir() if path.name.startswith("slides")} == {"slides.gpkg", "slides.geojson", "slides.qml"}


def test_polygons_of_the_file_drawn_again_are_the_class_raster(made):
    result, _, folder = made
    shapes, fields = read_layer(result.geopackage, "landslides")
    with rasterio.open(folder / "prob_class.tif") as dataset:
        classes = dataset.read(1)
        drawn = rasterio.features.rasterize(shapes, dataset.shape, transform=dataset.transform)
    np.testing.assert_array_equal(drawn, classes)
    assert (fields["model"] == "abc123").all()
    assert (fields["threshold"] == 0.5).all()
    np.testing.assert_allclose(fields["area_m2"].sum(), result.area_m2)


def test_a_geojson_of_an_earlier_inventory_is_removed_and_one_of_others_is_not(made):
    result, said, folder = made
    assert result.geojson.exists()
    options = InventoryOptions(geojson=False)
    assert write_inventory(folder / "prob.tif", result.geopackage, options=options, say=said.append).geojson is None
    assert not result.geojson.exists()
    assert "slides.geojson of an earlier inventory is removed" in said[-1]
    for content in ('{"type": "FeatureCollection", "features": []}', "mine"):
        result.geojson.write_text(content)
        write_inventory(folder / "prob.tif", result.geopackage, options=options, say=said.append)
        assert result.geojson.read_text() == content


def test_terrain_is_resampled_as_the_map_says(tmp_path):
    path = write_map(tmp_path, blobs((90, 110)))
    coarse = from_origin(499_980, 4_000_020, 11, 11)
    dem = write_raster(tmp_path / "dem.tif", (900 + 50 * blobs((40, 40), sigma=1, seed=4)).astype(np.float32), transform=coarse)
    slopes = {}
    for kind in ("cubic", "bilinear", None):
        with rasterio.open(path, "r+") as dataset:
            dataset.update_tags(ZOO_DEM_RESAMPLING=kind or "")
        result = write_inventory(path, tmp_path / f"{kind}.gpkg", dem, say=lambda line: None)
        slopes[kind] = read_layer(result.geopackage, "landslides")[1]["slope_deg"]
    np.testing.assert_array_equal(slopes[None], slopes["cubic"])
    assert np.nanmax(np.abs(slopes["bilinear"] - slopes["cubic"])) > 0.1


def test_geojson_is_rfc_7946(made):
    result, _, _ = made
    text = result.geojson.read_text()
    content = json.loads(text)
    assert "crs" not in content  # longitude and latitude on WGS 84 are the only system
    assert content["type"] == "FeatureCollection"
    native, _ = read_layer(result.geopackage, "landslides")
    to = pyproj.Transformer.from_crs(32648, 4326, always_xy=True)
    assert len(content["features"]) == result.landslides
    for feature, shape in zip(content["features"], native, strict=True):
        geometry = feature["geometry"]
        parts = [geometry["coordinates"]] if geometry["type"] == "Polygon" else geometry["coordinates"]
        for shell, *holes in parts:
            assert shapely.LinearRing(shell).is_ccw
            assert not any(shapely.LinearRing(hole).is_ccw for hole in holes)
            for x, y in (point for ring in (shell, *holes) for point in ring):
                assert (round(x, 7), round(y, 7)) == (x, y)
        expected = shapely.transform(shape, lambda points: np.column_stack(to.transform(*points.T)))
        assert shapely.hausdorff_distance(shapely.geometry.shape(geometry), expected) < 2e-7
        assert feature["properties"]["uncertainty_mean"] is None


def test_a_scene_without_landslides_gives_empty_layers_with_their_schema(tmp_path):
    path = write_map(tmp_path, np.full((9, 7), np.nan))
    known = write_polygons(tmp_path / "known.gpkg", [shapely.box(500_000, 3_999_990, 500_010, 4_000_000)])
    result = write_inventory(path, tmp_path / "none.gpkg", options=InventoryOptions(reference=known, simplify_m=3), say=lambda line: None)
    assert (result.landslides, result.area_m2) == (0, 0)
    text = ogrinfo(result.geopackage, "-al")
    assert text.count("Feature Count: 0") == 6
    for attribute in ("area_m2: Real", "aspect_deg: Real", "model: String", "id: Integer"):
        assert attribute in text
    assert json.loads(result.geojson.read_text())["features"] == []


@pytest.mark.parametrize(
    "crs", ["+proj=eqc +lat_ts=0 +lon_0=0 +a=3396190 +b=3396190 +units=m +no_defs", nowhere().to_wkt()], ids=["Mars", "no place"]
)
def test_off_the_earth_there_is_no_geojson(tmp_path, crs):
    place = from_origin(-4_000_000, -800_000, 200, 200) if "eqc" in crs else from_origin(1e8, 1e8, 200, 200)
    path = write_map(tmp_path, blobs((30, 30)), crs=crs, transform=place)
    said = []
    result = write_inventory(path, tmp_path / "s.gpkg", say=said.append)
    assert result.geojson is None
    assert not (tmp_path / "s.geojson").exists()
    assert any("no GeoJSON" in line for line in said)
    assert result.area_m2 > 0
    if "eqc" in crs:
        assert 'ELLIPSOID["' in ogrinfo(result.geopackage, "-al")
        assert "3396190" in ogrinfo(result.geopackage, "-al")
    with pytest.raises(UserError, match="no place on the Earth.*leave out --geojson"):
        write_inventory(path, tmp_path / "t.gpkg", options=InventoryOptions(geojson=True), say=said.append)
    assert not (tmp_path / "t.gpkg").exists()


def test_a_failure_leaves_the_earlier_inventory_and_nothing_else(tmp_path, monkeypatch):
    path = write_map(tmp_path, blobs((30, 30)))
    write_inventory(path, tmp_path / "s.gpkg", say=lambda line: None)
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(inventory, "write_geojson", full)
    with pytest.raises(UserError, match="No space left"):
        write_inventory(path, tmp_path / "s.gpkg", say=lambda line: None)
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before


def test_an_uncertainty_that_an_earlier_map_left_is_left_out(tmp_path):
    path = write_map(tmp_path, blobs((30, 30)), uncertainty=blobs((30, 30)) / 2)
    said = []
    write_inventory(path, tmp_path / "s.gpkg", say=said.append)
    assert np.isfinite(read_layer(tmp_path / "s.gpkg", "landslides")[1]["uncertainty_mean"]).all()
    write_raster(tmp_path / "prob_uncertainty.tif", np.zeros((30, 30), np.float32), tags={"ZOO_FINGERPRINT": "earlier"})
    write_inventory(path, tmp_path / "s.gpkg", say=said.append)
    assert np.isnan(read_layer(tmp_path / "s.gpkg", "landslides")[1]["uncertainty_mean"]).all()
    assert any("prob_uncertainty.tif does not belong" in line for line in said)


def test_the_style_lies_in_the_geopackage_too(made):
    import sqlite3

    result, _, _ = made
    with sqlite3.connect(result.geopackage) as database:
        styles = dict(database.execute("SELECT f_table_name, styleQML FROM layer_styles WHERE useAsDefault"))
    assert set(styles) == {*LAYERS, "matched", "missed", "false"}
    assert styles["landslides"] == result.geopackage.with_suffix(".qml").read_text()
