"""The synthetic scenes: reproducible, consistent on disk, physically sensible, and neither given away by colour nor by slope."""

import csv
import hashlib
import json
import time
from pathlib import Path

import numpy as np
import pyogrio
import pytest
import rasterio
import shapely
from rasterio import features
from scipy import ndimage
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score, roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import PolynomialFeatures, StandardScaler

from datamodules.errors import UserError
from datamodules.synthetic import dataset, figure, synthesize
from datamodules.synthetic.morphology import carve, draw_plan, place
from datamodules.synthetic.noise import gradient_slope_deg
from datamodules.synthetic.relief import drainage_area, incise, solve_along_tree, steepest_descent
from datamodules.synthetic.scene import DEM_NODATA, make_scene

SIZE = 128


@pytest.fixture(scope="module")
def manifest(tmp_path_factory):
    """Four scenes: every split, an image with a gap, an elevation model with a hole."""
    return synthesize(tmp_path_factory.mktemp("synthetic") / "data", scenes=4, seed=3, size=SIZE, processes=1)


@pytest.fixture(scope="module")
def rows(manifest):
    with manifest.open(newline="") as file:
        return list(csv.DictReader(file))


def digests(folder):
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.rglob("*.*"))}


def test_scenes_do_not_depend_on_how_many_there_are_nor_on_processes(manifest, tmp_path):
    fewer = synthesize(tmp_path / "fewer", scenes=3, seed=3, size=SIZE, processes=2)
    ours, others = digests(fewer.parent), digests(manifest.parent)
    scene_files = [name for name in ours if name.endswith((".tif", ".gpkg"))]
    assert len(scene_files) == 3 * 4
    assert {name: ours[name] for name in scene_files} == {name: others[name] for name in scene_files}
    assert fewer.read_text().splitlines() == manifest.read_text().splitlines()[:4]


def test_another_seed_gives_another_scene():
    assert not np.array_equal(make_scene(0, 0, 96).image, make_scene(1, 0, 96).image)


def test_manifest(rows):
    assert list(rows[0]) == ["scene", "image", "dem", "label", "split", "region"]
    assert [row["split"] for row in rows] == ["train", "val", "test", "train"]
    assert not any(Path(row[column]).is_absolute() for row in rows for column in ("image", "dem", "label"))


def test_every_scene_has_landslides(manifest, rows):
    for row in rows:
        with rasterio.open(manifest.parent / row["label"]) as file:
            label = file.read(1)
        share = (label == 1).sum() / (label != 255).sum()
        assert 0.02 < share < 0.09, (row["scene"], share)


@pytest.mark.parametrize(("seed", "size"), [(11, 96), (13, 258)])
def test_small_scenes_of_any_seed_have_landslides(seed, size):
    for index in range(3):
        scene = make_scene(seed, index, size)
        assert (scene.label == 1).any()
        assert scene.image.shape == (3, size, size)


def test_grids(manifest, rows):
    boxes = []
    for row in rows:
        folder = manifest.parent
        with (
            rasterio.open(folder / row["image"]) as image,
            rasterio.open(folder / row["dem"]) as dem,
            rasterio.open(folder / row["label"]) as label,
        ):
            assert image.crs.is_projected
            assert image.crs == dem.crs == label.crs
            assert (image.count, image.dtypes[0], image.res, image.nodata) == (3, "uint8", (2, 2), 0)
            assert (dem.count, dem.dtypes[0], dem.res, dem.nodata) == (1, "float32", (8, 8), DEM_NODATA)
            assert (label.dtypes[0], label.transform, label.shape) == ("uint8", image.transform, image.shape)
            assert image.block_shapes[0] == (256, 256)
            assert image.compression.name == "deflate"
            inner, outer = image.bounds, dem.bounds
            for reach in (inner.left - outer.left, outer.right - inner.right, outer.top - inner.top, inner.bottom - outer.bottom):
                assert 96 <= reach < 96 + 16
            # The grids share no corner: the shift is no multiple of the pixel of the image.
            assert (inner.left - outer.left) % 2 != 0
            assert (outer.top - inner.top) % 2 != 0
            boxes.append(shapely.box(*outer))
    assert not any(one.intersects(other) for number, one in enumerate(boxes) for other in boxes[:number])


def test_polygons_are_the_label(manifest, rows):
    seen = set()
    for row in rows:
        path = manifest.parent / row["label"]
        with rasterio.open(path) as file:
            label, transform = file.read(1), file.transform
        with rasterio.open(manifest.parent / row["image"]) as file:
            missing = (file.read() == 0).all(0)
        meta, _, geometry, values = pyogrio.raw.read(path.with_suffix(".gpkg"))
        columns = dict(zip(meta["fields"], values, strict=True))
        assert meta["crs"] == "EPSG:32648"
        polygons = shapely.from_wkb(geometry)
        assert shapely.is_valid(polygons).all()
        np.testing.assert_allclose(columns["area_m2"], shapely.area(polygons), atol=0.06)
        assert sorted(columns["landslide"]) == list(range(1, len(polygons) + 1))
        assert ((columns["age"] >= 0) & (columns["age"] <= 1)).all()
        seen |= set(columns["certainty"])
        shapes = [
            (polygon, 255 if certainty == "possible" else 1) for polygon, certainty in zip(polygons, columns["certainty"], strict=True)
        ]
        drawn = features.rasterize(shapes, label.shape, transform=transform, dtype="uint8")
        np.testing.assert_array_equal(label, np.where(missing, 255, drawn))
    assert seen <= {"certain", "probable", "possible"}


def test_some_scenes_have_nodata(manifest, rows):
    gaps, holes = [], []
    for row in rows:
        with rasterio.open(manifest.parent / row["image"]) as file:
            image = file.read()
            assert ((image == 0).all(0) == (image == 0).any(0)).all(), "0 must mean no data in all bands"
            gaps.append((image == 0).mean())
        with rasterio.open(manifest.parent / row["dem"]) as file:
            dem = file.read(1, masked=True)
            holes.append(np.ma.getmaskarray(dem).mean())
            assert 900 < dem.min() < dem.max() < 2300
    assert [gap > 0.02 for gap in gaps] == [False, True, False, True]
    assert [hole > 0.002 for hole in holes] == [False, False, True, True]


@pytest.fixture(scope="module")
def valley():
    """A slope of 22 degrees down to a level valley floor, south to north, in pixels of 4 m."""
    north = np.arange(220, dtype=np.float32)[::-1, None] * 4
    return np.repeat(np.maximum(30, 400 - 0.4 * north[::-1]).astype(np.float32)[::-1], 200, axis=1)


def settled(valley, area_m2, age, kind="landslide", seed=5):
    rng = np.random.default_rng(seed)
    slide = place(rng, valley, 4.0, draw_plan(rng, area_m2, age, kind), np.zeros(valley.shape, dtype=bool))
    assert slide is not None
    return slide, carve(valley, 4.0, slide, rng)


@pytest.mark.parametrize("area_m2", [5e3, 4e4, 1.5e5])
def test_landslide_lowers_the_head_raises_the_toe_and_keeps_the_volume(valley, area_m2):
    slide, carving = settled(valley, area_m2, 0.2)
    assert slide.area_m2 == pytest.approx(area_m2, rel=0.02)
    assert carving.deposited_m3 == pytest.approx(carving.depleted_m3, rel=0.15)
    change = carving.surface - valley
    azimuth = np.radians(slide.azimuth_deg)

    def mean_change(low, high):
        along = np.linspace(low, high, 20) * slide.length_m / 4
        row, column = slide.crown[1] / 4 - along * np.cos(azimuth), slide.crown[0] / 4 + along * np.sin(azimuth)
        return ndimage.map_coordinates(change, [row, column], order=1).mean()

    assert mean_change(0.1, 0.4) < -0.3
    assert mean_change(0.7, 0.95) > 0.3
    grown = features.rasterize([slide.polygon.buffer(60)], valley.shape, transform=rasterio.Affine(4, 0, 0, 0, 4, 0), dtype="uint8")
    assert np.abs(change[grown == 0]).max(initial=0) < 0.05


def test_landslide_moves_down_to_the_valley(valley):
    slide, _ = settled(valley, 4e4, 0.2)
    # The valley lies where the surface is lowest; its direction is that of the fall.
    downhill = 180.0 if valley[0, 0] > valley[-1, 0] else 0.0
    assert abs((slide.azimuth_deg - downhill + 180) % 360 - 180) < 35


def test_age_softens_the_scarp(valley):
    steepest = [gradient_slope_deg(settled(valley, 4e4, age)[1].surface, 4.0).max() for age in (0.0, 0.5, 1.0)]
    assert steepest[0] > steepest[1] > steepest[2]


def test_confusing_forms_are_half_a_landslide(valley):
    head = settled(valley, 4e4, 0.3, "amphitheatre")[1]
    apron = settled(valley, 4e4, 0.3, "apron")[1]
    assert head.deposited_m3 < 0.05 * head.depleted_m3
    assert apron.depleted_m3 < 0.25 * apron.deposited_m3


def test_drainage_against_a_walk_down_each_path():
    surface = np.random.default_rng(0).uniform(0, 10, (12, 15)).astype(np.float32)
    receiver, distance = steepest_descent(surface, 2.0)
    expected = np.zeros(surface.size)
    sums = np.zeros(surface.size)
    gain, factor = np.random.default_rng(1).uniform(0, 1, (2, surface.size))
    for start in range(surface.size):
        cell, weight = start, 1.0
        while True:
            expected[cell] += 4.0
            sums[start] += weight * gain[cell]
            if receiver[cell] == cell:
                break
            assert surface.flat[receiver[cell]] < surface.flat[cell]
            assert distance[cell] in {2.0, 2.0 * np.sqrt(2)}
            weight *= factor[cell]
            cell = receiver[cell]
    np.testing.assert_allclose(drainage_area(receiver, 4.0), expected)
    np.testing.assert_allclose(solve_along_tree(receiver, gain, factor), sums)


def test_incision_solves_its_equation_and_keeps_the_outlet():
    surface = np.random.default_rng(0).uniform(0, 10, (20, 20)).astype(np.float32)
    outlet = np.zeros((20, 20), dtype=bool)
    outlet[-1] = True
    after, area = incise(surface, 4.0, 0.3, uplift_m=1.0, outlet=outlet)
    np.testing.assert_array_equal(after[outlet], surface[outlet])
    receiver, distance = steepest_descent(surface, 4.0, outlet)
    flat, power = after.ravel().astype(float), 0.3 * area.ravel().astype(float) ** 0.45 / distance
    inner = receiver != np.arange(400)
    # z_new - z_old = U - K A^m (z_new - z_new_receiver) / distance
    residual = flat - surface.ravel() - 1.0 + power * (flat - flat[receiver])
    assert np.abs(residual[inner]).max() < 1e-4


def test_the_same_parameters_again_do_nothing(manifest, capsys):
    before = digests(manifest.parent), manifest.stat().st_mtime_ns
    assert synthesize(manifest.parent, scenes=4, seed=3, size=SIZE) == manifest
    assert (digests(manifest.parent), manifest.stat().st_mtime_ns) == before
    assert "nothing to do" in capsys.readouterr().err


def test_refuses_to_overwrite(manifest, tmp_path):
    with pytest.raises(UserError, match=r"seed = 3 instead of 4"):
        synthesize(manifest.parent, scenes=4, seed=4, size=SIZE)
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match="holds no synthetic scenes"):
        synthesize(tmp_path, scenes=3, size=SIZE)
    (tmp_path / dataset.METADATA).write_text("{")
    (tmp_path / dataset.MANIFEST).write_text("")
    with pytest.raises(UserError, match="is no metadata"):
        synthesize(tmp_path, scenes=3, size=SIZE)


@pytest.mark.parametrize(
    "wrong", [{"scenes": 2}, {"size": 64}, {"size": 129}, {"seed": -1}, {"split_pattern": ("train", "val")}, {"split_pattern": ()}]
)
def test_wrong_parameters(tmp_path, wrong):
    with pytest.raises(UserError) as caught:
        synthesize(tmp_path / "out", **wrong)
    assert next(iter(wrong)) in str(caught.value)
    assert caught.value.exit_code == 2
    assert not (tmp_path / "out").exists()


def test_a_failure_leaves_nothing_behind(tmp_path, monkeypatch):
    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr(dataset, "make_scene", fail)
    with pytest.raises(OSError, match="disk full"):
        synthesize(tmp_path / "out", scenes=3, size=SIZE, processes=1)
    assert list(tmp_path.iterdir()) == []


def test_metadata_tells_how_it_was_made(manifest):
    metadata = json.loads((manifest.parent / dataset.METADATA).read_text())
    assert metadata["parameters"] == {"scenes": 4, "seed": 3, "size": SIZE, "split_pattern": ["train", "val", "test", "train"]}
    assert [entry["scene"] for entry in metadata["scenes"]] == [f"scene_{index:03d}" for index in range(4)]


def test_figure(manifest, tmp_path):
    path = figure(manifest, "scene_003", tmp_path / "scene.png")
    assert path.read_bytes().startswith(b"\x89PNG")
    assert path.stat().st_size < 500_000
    assert list(tmp_path.iterdir()) == [path]
    with pytest.raises(UserError, match="scene_000"):
        figure(manifest, "scene_9", tmp_path / "scene.png")


@pytest.mark.slow
def test_the_default_scenes_are_hard_and_honest():
    """The eight default scenes: prevalence, effort, and what a pixel of colour or of slope tells, learnt on training scenes."""
    started = time.process_time()
    scenes = [make_scene(0, index, 1024) for index in range(8)]
    # Processor time of one thread; it grows somewhat on a machine that is shared.
    assert (time.process_time() - started) / 8 < 8
    landslide = np.mean([(scene.label == 1).sum() / (scene.label != 255).sum() for scene in scenes])
    assert 0.04 < landslide < 0.06

    def pixels(chosen):
        colour, slope, target = [], [], []
        for scene in chosen:
            # The slope of the elevation model at the centre of each image pixel.
            dem = np.where(scene.dem == DEM_NODATA, np.nan, scene.dem)
            every = slice(2, None, 5)
            rows, columns = np.meshgrid(*[np.arange(2, 1024, 5)] * 2, indexing="ij")
            x, y = scene.image_transform * (columns + 0.5, rows + 0.5)
            column, row = ~scene.dem_transform * (x, y)
            steep = ndimage.map_coordinates(gradient_slope_deg(dem, 8.0), [row - 0.5, column - 0.5], order=1)
            counted = (scene.label[every, every] != 255) & np.isfinite(steep)
            colour.append(scene.image[:, every, every][:, counted].T)
            slope.append(steep[counted])
            target.append(scene.label[every, every][counted] == 1)
        return np.concatenate(colour).astype(float), np.concatenate(slope), np.concatenate(target)

    train, test = pixels([scenes[index] for index in (0, 3, 4, 7)]), pixels([scenes[index] for index in (1, 2, 5, 6)])
    prevalence = test[2].mean()
    classifier = make_pipeline(StandardScaler(), PolynomialFeatures(2), LogisticRegression(max_iter=300)).fit(train[0], train[2])
    colour_ap = average_precision_score(test[2], classifier.predict_proba(test[0])[:, 1])
    slope_ap, slope_auc = average_precision_score(test[2], test[1]), roc_auc_score(test[2], test[1])
    above = [test[1] >= threshold for threshold in range(5, 50)]
    best_iou = max((test[2] & mask).sum() / (test[2] | mask).sum() for mask in above)
    print(f"prevalence {prevalence:.4f}, colour AP {colour_ap:.4f}, slope AP {slope_ap:.4f} AUC {slope_auc:.3f} best IoU {best_iou:.3f}")
    # Measured: colour .042 at prevalence .043; slope AP .12, AUC .61, best IoU .11.
    assert colour_ap < 2 * prevalence
    assert 1.5 * prevalence < slope_ap < 5 * prevalence
    assert 0.55 < slope_auc < 0.80
    assert best_iou < 0.25
