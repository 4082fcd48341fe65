"""Labels of windows: polygons by certainty, uncertain boundaries and weights, against whole scenes, scipy and shapely."""

import json

import numpy as np
import pytest
import rasterio
import shapely
import torch
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from pyogrio.raw import write as write_vector
from scipy.ndimage import distance_transform_edt

from datamodules import cli
from datamodules.augmentation import Augmentation
from datamodules.batch import validate_batch
from datamodules.errors import UserError
from datamodules.grid import image_grid
from datamodules.label_rules import LabelColumns, LabelRules
from datamodules.labels import SceneLabels, boundary_band, within
from datamodules.landslide import LandslideDataModule
from datamodules.overrides import Overrides
from datamodules.rasters import open_raster
from datamodules.reading import Layers, SceneReader
from datamodules.scene import Scene, write_manifest

UTM = "EPSG:32648"
LEFT, TOP = 500000.0, 4000000.0


def raster(path, array, pixel=(2.0, 2.0), nodata=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    array = array if array.ndim == 3 else array[None]
    profile = {"driver": "GTiff", "count": len(array), "height": array.shape[1], "width": array.shape[2], "dtype": array.dtype.name}
    with rasterio.open(path, "w", **profile, crs=UTM, transform=Affine(pixel[0], 0, LEFT, 0, -pixel[1], TOP), nodata=nodata) as file:
        file.write(array)
    return path


def vector(path, shapes, certainty=None, layer="landslides", **options):
    fields = [] if certainty is None else ["sure"]
    data = [] if certainty is None else [np.array(certainty, dtype=object)]
    options = {"geometry_type": "Polygon", "crs": UTM} | options
    write_vector(path, shapely.to_wkb(np.array(shapes, dtype=object)), data, fields, layer=layer, **options)
    return path


def square(row, column, height, width, pixel=2.0):
    """A polygon in pixels."""
    return shapely.box(LEFT + pixel * column, TOP - pixel * (row + height), LEFT + pixel * (column + width), TOP - pixel * row)


def grid_of(path):
    with open_raster(path) as file:
        return image_grid(file, path, Overrides())


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    size=st.tuples(st.integers(1, 24), st.integers(1, 24)),
    radius_m=st.floats(0.05, 30),
    pixel=st.tuples(st.sampled_from([0.1, 0.5, 1.0, 2.0, 7.3]), st.sampled_from([0.1, 0.5, 1.0, 2.0, 3.0])),
    share=st.floats(0, 1),
)
def test_band_against_the_distance_transform(seed, size, radius_m, pixel, share):
    rng = np.random.default_rng(seed)
    region = rng.random(size) < share
    sampling = pixel[::-1]
    distance = distance_transform_edt(~region, sampling=sampling) if region.any() else np.full(size, np.inf)
    clear = abs(distance - radius_m) > 1e-3 * min(pixel)  # a tie is decided by rounding
    assert np.array_equal(within(region, radius_m, pixel)[clear], (distance <= radius_m)[clear])
    grades = rng.choice(np.array([0, 1, 2, 255], np.uint8), size)
    landslide = (grades > 0) & (grades < 255)
    if landslide.any() and (grades == 0).any():
        to_landslide, to_background = (distance_transform_edt(~kind, sampling=sampling) for kind in (landslide, grades == 0))
        across = np.where(landslide, to_background, np.where(grades == 0, to_landslide, np.inf))
        clear = abs(across - radius_m) > 1e-3 * min(pixel)
        assert np.array_equal(boundary_band(grades, radius_m, pixel)[clear], (across <= radius_m)[clear])


def test_whole_pixels_are_near():
    region = np.zeros((1, 9), bool)
    region[0, 4] = True
    assert within(region, 0.3, (0.1, 0.1)).sum() == 7  # 3 x 0.1 is not 0.3 in floats
    assert within(region, 0.09, (0.1, 0.1)).sum() == 1


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    """Random blobs as polygons with certainty and as a raster, on pixels of 2 m x 3 m."""
    folder, rng, pixel = tmp_path_factory.mktemp("scene"), np.random.default_rng(5), (2.0, 3.0)
    raster(folder / "image.tif", rng.integers(1, 255, (3, 120, 150), dtype=np.uint8), pixel)
    places = rng.uniform([0, 0, 4, 0], [300, 360, 40, 3], (40, 4))
    shapes = [shapely.Point(LEFT + x, TOP - y).buffer(size) for x, y, size, _ in places]
    certainty = [("Certain", "probable", "POSSIBLE")[int(kind)] for *_, kind in places]
    vector(folder / "inventory.gpkg", shapes, certainty)
    vector(folder / "inventory.gpkg", [shapely.box(LEFT, TOP - 360, LEFT + 300, TOP)], layer="mapped_area", append=True)
    label = (rng.random((12, 15)) < 0.3).astype(np.uint8).repeat(10, 0).repeat(10, 1)
    label[rng.random(label.shape) < 0.02] = 255
    raster(folder / "label.tif", label, pixel)
    return folder, shapes, certainty


WEIGHTS = {"certain": 1, "probable": 0.5, "possible": "ignore"}
COLUMNS = LabelColumns(label_layer="landslides", certainty_field="sure")


@pytest.mark.parametrize("kind", ["polygons", "touched", "raster"])
@pytest.mark.parametrize("cached", [False, True])
def test_windows_show_what_the_whole_scene_shows(scene, kind, cached):
    folder, _, _ = scene
    rules = LabelRules(all_touched=kind == "touched", certainty=WEIGHTS, boundary_ignore_m=9.0)
    path, columns = (folder / "label.tif", LabelColumns()) if kind == "raster" else (folder / "inventory.gpkg", COLUMNS)
    reader = SceneReader(Scene("s", folder / "image.tif", None, path, "train", labels=columns), 3, 0, "cubic", rules)
    whole = SceneLabels(path, reader.grid, columns, rules)
    raw = whole.grades_at(0, 0, 120, 150)
    landslide = (raw > 0) & (raw < 255)
    to_landslide, to_background = (distance_transform_edt(~kind, sampling=(3, 2)) for kind in (landslide, raw == 0))
    band = (landslide & (to_background <= 9 + 1e-9)) | ((raw == 0) & (to_landslide <= 9 + 1e-9))
    weight_of = np.zeros(256, np.float32)
    weight_of[[0, *range(1, 1 + len(whole.weights))]] = [1, *whole.weights]
    weight = np.where(band, 0, weight_of[raw])
    expected = np.where(weight == 0, 255, landslide).astype(np.uint8)
    if cached:
        assert reader.keep(2**24)
    assert reader.weighted == (kind != "raster")
    rng = np.random.default_rng(1)
    for row, column in [(0, 0), *rng.integers([-10, -10], [115, 145], (30, 2)).tolist()]:
        layers = reader.layers(row, column, 32, 24)
        canvas, weights = np.full((200, 250), 254, np.uint8), np.zeros((200, 250), np.float32)
        canvas[40:160, 50:200], weights[40:160, 50:200] = expected, weight
        place = np.s_[row + 40 : row + 72, column + 50 : column + 74]
        assert np.array_equal(layers.mask, canvas[place])
        if kind != "raster":
            known = layers.mask < 254
            assert np.array_equal(layers.weight[known], weights[place][known])
    assert 0.05 < band.mean() < 0.8


def test_more_certain_polygons_lie_on_top(scene):
    folder, shapes, certainty = scene
    source = SceneLabels(folder / "inventory.gpkg", grid_of(folder / "image.tif"), COLUMNS, LabelRules(certainty=WEIGHTS))
    assert source.grades == ("certain", "probable", "possible")
    assert source.weights == (1, 0.5, 0)
    raw = source.grades_at(0, 0, 120, 150)
    centres = shapely.points(LEFT + 2 * (np.arange(150) + 0.5)[None], TOP - 3 * (np.arange(120) + 0.5)[:, None])
    expected = np.zeros(raw.shape, np.uint8)
    for grade, name in ((3, "possible"), (2, "probable"), (1, "certain")):
        own = shapely.union_all([shape for shape, sure in zip(shapes, certainty, strict=True) if sure.lower() == name])
        expected[shapely.contains(own, centres)] = grade
    assert len(np.unique(expected)) == 4
    assert np.array_equal(raw, expected)


def test_all_touched_covers_what_polygons_touch(tmp_path):
    image = raster(tmp_path / "image.tif", np.ones((8, 8), np.uint8))
    path = vector(tmp_path / "thin.gpkg", [square(1.2, 2.2, 0.2, 4.6)])
    by_centre, touched = (SceneLabels(path, grid_of(image), LabelColumns(), LabelRules(all_touched=all_)) for all_ in (False, True))
    assert by_centre.read(0, 0, 8, 8)[0].sum() == 0
    assert np.argwhere(touched.read(0, 0, 8, 8)[0]).tolist() == [[1, column] for column in range(2, 7)]


def test_vector_files_that_need_a_word(scene, tmp_path):
    folder, shapes, _ = scene
    grid = grid_of(folder / "image.tif")
    path = folder / "inventory.gpkg"
    wrong = [
        (path, {}, "holds the layers landslides, mapped_area"),
        (path, {"label_layer": "slides"}, "label_layer = 'slides': is no layer; the file has landslides, mapped_area"),
        (path, {"label_layer": "landslides", "certainty_field": "grade"}, "certainty_field = 'grade': is no attribute of layer landslides"),
        (path, {"label_layer": "landslides", "landslide_values": "1"}, "landslide_values = '1': is for rasters"),
        (folder / "label.tif", {"certainty_field": "sure"}, "certainty_field = 'sure': is for polygons"),
        (vector(tmp_path / "odd.gpkg", shapes[:3], ["certain", "perhaps", None]), {"certainty_field": "sure"}, "certainties .*perhaps"),
    ]
    for file, columns, message in wrong:
        with pytest.raises(UserError, match=message) as caught:
            SceneLabels(file, grid, LabelColumns(**columns), LabelRules())
        assert file.name in str(caught.value)
    styled = vector(tmp_path / "styled.gpkg", shapes)
    write_vector(styled, None, [np.array(["qgis"], dtype=object)], ["style"], layer="layer_styles", append=True)
    assert len(SceneLabels(styled, grid, LabelColumns(), LabelRules()).source.shapes) == len(shapes)  # a table of styles is no layer


def folds_of(folder, scene_folder, columns=COLUMNS):
    scenes = [
        Scene(split, scene_folder / "image.tif", None, scene_folder / "inventory.gpkg", split, labels=columns) for split in ("train", "val")
    ]
    write_manifest(scenes, folder / "scenes.csv")
    return folder


@pytest.mark.parametrize("cache_mb", [0, 64])
def test_weights_reach_training_batches_alone(scene, tmp_path, cache_mb):
    folder, _, _ = scene
    root = folds_of(tmp_path, folder)
    options = {"tile_size": 32, "batch_size": 4, "seed": 1, "cache_mb": cache_mb, "samples_per_epoch": 24, "halo": 2}
    data = LandslideDataModule(str(root), certainty=WEIGHTS, boundary_ignore_m=5, **options)
    data.setup("fit")
    batches = list(data.train_dataloader())
    seen = set()
    for batch in batches:
        validate_batch(batch)
        seen |= set(torch.unique(batch["weight"][batch["mask"] == 1]).tolist())
        assert torch.equal(batch["weight"] == 0, batch["mask"] == 255)
        assert (batch["weight"][batch["mask"] == 0] == 1).all()
    assert seen == {0.5, 1.0}
    assert all("weight" not in batch for batch in data.val_dataloader())
    plain = LandslideDataModule(str(root), boundary_ignore_m=5, **options)
    plain.setup("fit")
    for one, other in zip(plain.train_dataloader(), batches, strict=True):
        assert "weight" not in one  # certain and probable count alike by default
        assert torch.equal(one["mask"], other["mask"])
        assert torch.equal(one["image"].nan_to_num(-1), other["image"].nan_to_num(-1))
    stated = json.loads(json.dumps(data.settings()))
    assert stated["certainty"] == {"certain": 1, "probable": 0.5, "possible": "ignore"}
    assert stated["boundary_ignore_m"] == 5
    assert plain.settings()["certainty"] == {"certain": 1, "probable": 1, "possible": "ignore"}


@pytest.mark.parametrize("seed", range(8))
def test_weights_move_with_the_mask(seed):
    mask = np.zeros((36, 36), np.uint8)
    mask[5:20, 8:30], mask[30:, 3:9] = 1, 255
    weight = np.where(mask == 1, 0.25, 1).astype(np.float32)
    layers = Layers(np.zeros((36, 36, 3), np.uint8), np.zeros((36, 36), np.float32), mask, weight)
    moved, _ = Augmentation(scale=0.3, shift=0.2)(layers, (2.0, 2.0), seed, 2)
    assert moved.weight.shape == moved.mask.shape == (32, 32)
    assert (moved.weight[moved.mask == 1] == 0.25).all()
    assert (moved.weight[moved.mask == 0] == 1).all()
    without, _ = Augmentation(scale=0.3, shift=0.2)(Layers(layers.image, layers.dem, mask), (2.0, 2.0), seed, 2)
    assert without.weight is None
    assert np.array_equal(without.mask, moved.mask)


def test_contract_of_weights():
    batch = {
        "image": torch.zeros(1, 3, 4, 4),
        "dem": torch.zeros(1, 1, 4, 4),
        "mask": torch.tensor([[[0, 1, 255, 0]] * 4], dtype=torch.uint8),
        "pixel_size": torch.ones(1, 2),
        "tile": ["a:0:0"],
    }
    good = torch.tensor([[[1, 0.5, 0, 0]] * 4])
    validate_batch({**batch, "weight": good})
    for wrong in (good.double(), good[0], good * 3, good * torch.nan, torch.ones(1, 4, 4)):
        with pytest.raises(ValueError, match="weight"):
            validate_batch({**batch, "weight": wrong})


def test_describe_and_check_tell_certainties(scene, tmp_path, capsys):
    folder, shapes, certainty = scene
    root = folds_of(tmp_path, folder)
    assert cli.main(["describe", str(root), "--certainty", "certain=1", "probable=0.4", "possible=ignore"]) == 0
    rows = [line.replace("│", " ").split() for line in capsys.readouterr().out.splitlines()]
    grid = shapely.box(LEFT, TOP - 360, LEFT + 300, TOP)
    for name, weight, ignored in (("certain", "1", "0.00"), ("probable", "0.4", "0.00"), ("possible", "ignore", "100.00")):
        inside = sum(shape.intersects(grid) for shape, sure in zip(shapes, certainty, strict=True) if sure.lower() == name)
        row = next(row for row in rows if row[:2] == ["train", name])
        assert row[2:4] == [weight, str(inside)]
        assert row[5:] == [ignored, "%"]
    vector(tmp_path / "empty.gpkg", np.array([], dtype=object))
    scenes = [Scene(name, folder / "image.tif", None, tmp_path / "empty.gpkg", "train") for name in ("a",)]
    write_manifest(scenes, tmp_path / "scenes.csv")
    assert cli.main(["check", str(root)]) == 0
    assert "holds no polygon" in " ".join(capsys.readouterr().out.split())
