"""Splits: blocks partition, buffers hold, landslides stay whole; checked against brute force on the written labels."""

import json

import numpy as np
import pytest
import rasterio
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter
from scipy.ndimage import label as components
from scipy.spatial import cKDTree

from datamodules import cli
from datamodules.errors import UserError
from datamodules.folds import balanced_folds, roles_of_folds
from datamodules.scene import Scene, read_scenes, write_manifest
from datamodules.splits import split_scenes

PIXEL = 10.0


def write(path, array, column=0, crs="EPSG:32648"):
    path.parent.mkdir(parents=True, exist_ok=True)
    profile = {"driver": "GTiff", "count": 1, "height": array.shape[0], "width": array.shape[1], "dtype": "uint8", "crs": crs}
    with rasterio.open(path, "w", **profile, transform=Affine(PIXEL, 0, 500000 + PIXEL * column, 0, -PIXEL, 4000000)) as file:
        file.write(array, 1)


def data(folder, *labels, **options):
    scenes = []
    for number, (label, column) in enumerate(labels):
        image, mask = folder / f"image{number}.tif", folder / f"label{number}.tif"
        write(image, np.random.default_rng(number).integers(0, 255, label.shape, dtype=np.uint8), column, **options)
        write(mask, label, column, **options)
        scenes.append(Scene(f"s{number}", image, None, mask, "train", f"r{number}"))
    write_manifest(scenes, folder / "scenes.csv")
    return folder / "scenes.csv"


def read(path):
    with rasterio.open(path) as file:
        return file.read(1), file.transform.c


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.floats(0, 1e6), st.floats(0, 1e6)), min_size=5, max_size=40), st.integers(3, 5), st.integers(0, 9))
def test_folds_partition_units(sizes, folds, seed):
    assigned = balanced_folds(np.array(sizes), folds, seed)
    assert sorted(set(assigned.tolist())) == list(range(folds))
    tested = [[role == "test" for role in roles_of_folds(assigned, folds, fold)] for fold in range(folds)]
    assert (np.array(tested).sum(axis=0) == 1).all()  # each unit is tested in exactly one fold
    for fold in range(folds):
        assert set(roles_of_folds(assigned, folds, fold)) == {"train", "val", "test"}
    assert (assigned == balanced_folds(np.array(sizes), folds, seed)).all()


def test_folds_are_balanced():
    sizes = np.random.default_rng(0).gamma(1.0, 1.0, (200, 2))
    load = np.array([sizes[balanced_folds(sizes, 5, 0) == fold].sum(axis=0) for fold in range(5)])
    assert (abs(load / load.mean(axis=0) - 1) < 0.02).all()


@pytest.mark.parametrize("seed", range(4))
def test_blocks_never_cut_a_landslide_and_keep_the_buffer(tmp_path, seed):
    rng = np.random.default_rng(seed)
    label = np.zeros((300, 200), np.uint8)
    for _ in range(25):  # rows beyond 256 lie in a second strip
        row, column, height, width = rng.integers([0, 0, 3, 3], [290, 190, 40, 40])
        label[row : row + height, column : column + width] = 1
    label[rng.integers(0, 300, 200), rng.integers(0, 200, 200)] = 255
    left, right = label[:, :120], label[:, 80:]  # two scenes that overlap
    split_scenes(data(tmp_path, (left, 0), (right, 80)), tmp_path / "out", by="blocks", block_m=400, buffer_m=60, folds=3, seed=seed)
    whole, _ = components(label == 1, structure=np.ones((3, 3)))
    for fold in range(3):
        canvas = {role: np.full(label.shape, 255, np.uint8) for role in ("train", "val", "test")}
        for scene in read_scenes(tmp_path / "out" / f"fold{fold}"):
            values, x = read(scene.label)
            column = round((x - 500000) / PIXEL)
            view = canvas[scene.split][:, column : column + values.shape[1]]
            source = label[:, column : column + values.shape[1]]
            assert (source[values != 255] == values[values != 255]).all()
            view[values != 255] = values[values != 255]
        points = {role: np.argwhere(values != 255) * PIXEL for role, values in canvas.items()}
        for one, other in (("train", "val"), ("train", "test"), ("val", "test")):
            assert cKDTree(points[one]).query(points[other])[0].min() - PIXEL >= 60 - 1e-6  # between the edges of pixels
        for number in range(1, whole.max() + 1):
            shares = [(values[whole == number] == 1).mean() for values in canvas.values()]
            assert sorted(shares) in ([0, 0, 1], [0, 0, 0])
    summary = json.loads((tmp_path / "out" / "split.json").read_text())
    assert summary["settings"]["buffer_m"] == 60
    roles = [{(b["row"], b["column"]): b["split"] for b in fold["blocks"]} for fold in summary["folds"]]
    assert roles[0].keys() == roles[1].keys() == roles[2].keys()
    assert all(sorted(role[block] for role in roles) == ["test", "train", "val"] for block in roles[0])


def test_without_buffer_every_label_is_in_exactly_one_split(tmp_path):
    label = np.zeros((100, 100), np.uint8)
    label[35:48, 10:30] = 1  # crosses a border of blocks
    split_scenes(data(tmp_path, (label, 0)), tmp_path / "out", by="blocks", block_m=250, buffer_m=0, folds=4, seed=1)
    scenes = read_scenes(tmp_path / "out" / "fold2")
    known = sum((read(scene.label)[0] != 255).astype(int) for scene in scenes)
    assert known.max() == 1
    assert known.mean() > 0.9  # half a pixel along borders is what is lost
    assert sum((read(scene.label)[0] == 1).sum() for scene in scenes) == label.sum()


def test_scenes_that_touch_stay_together(tmp_path):
    label = np.zeros((20, 20), np.uint8)
    label[:5] = 1
    places = [(label, column) for column in (0, 20, 100, 200, 300)]
    manifest = data(tmp_path, *places)
    assert cli.main(["split", str(manifest), "--by", "scene", "--folds", "4", "--buffer-m", "50", "--out", str(tmp_path / "out")]) == 0
    for fold in range(4):
        splits = {scene.name: scene.split for scene in read_scenes(tmp_path / "out" / f"fold{fold}")}
        assert splits["s0"] == splits["s1"]
        assert set(splits.values()) == {"train", "val", "test"}


def test_copies_stay_together(tmp_path):
    label = np.zeros((120, 120), np.uint8)
    label[:5] = 1
    manifest = data(tmp_path, *[(label, 1000 * number) for number in range(6)])
    tones = gaussian_filter(np.random.default_rng(9).normal(size=(180, 180)), 2)
    picture = np.uint8(128 + 100 * tones / abs(tones).max())
    write(tmp_path / "image1.tif", picture[:120, :120], 1000)
    write(tmp_path / "image4.tif", np.rot90(picture[20:140, 10:130]), 4000)  # shifted and turned
    for flag, together in (((), False), (("--copies-together",), True)):
        out = tmp_path / f"out{together}"
        assert cli.main(["split", str(manifest), "--by", "scene", "--folds", "3", "--out", str(out), *flag]) == 0
        kept = []
        for fold in range(3):
            splits = {scene.name: scene.split for scene in read_scenes(out / f"fold{fold}")}
            kept.append(splits["s1"] == splits["s4"])
            assert cli.main(["check", str(out / f"fold{fold}")]) == (0 if kept[-1] else 1)
        assert all(kept) == together
    with pytest.raises(UserError, match="--by scene"):
        cli.main(["split", str(manifest), "--copies-together", "--out", str(tmp_path / "blocks")])


def test_one_region_is_left_out(tmp_path):
    label = np.zeros((20, 20), np.uint8)
    manifest = data(tmp_path, *[(label, column) for column in (0, 100, 200, 300)])
    summary = split_scenes(manifest, tmp_path / "out", by="region", block_m=1, buffer_m=0, folds=1, seed=0)
    assert [entry["tests"] for entry in summary] == [["r0"], ["r1"], ["r2"], ["r3"]]


def test_refusals_leave_nothing(tmp_path):
    label = np.zeros((20, 20), np.uint8)
    manifest = data(tmp_path / "degrees", (label, 0), crs="EPSG:4326")
    with pytest.raises(UserError, match="gdalwarp"):
        split_scenes(manifest, tmp_path / "out", by="blocks", block_m=50, buffer_m=0, folds=3, seed=0)
    manifest = data(tmp_path / "small", (label, 0))
    for changed in ({"block_m": 1e6}, {"folds": 2}, {"buffer_m": 60}, {"buffer_m": -1}):
        with pytest.raises(UserError):
            split_scenes(manifest, tmp_path / "out", **({"by": "blocks", "block_m": 50, "buffer_m": 0, "folds": 3, "seed": 0} | changed))
    assert not list(tmp_path.glob("*out*"))


@pytest.mark.parametrize("by", ["scene", "blocks"])
def test_a_giant_landslide_is_not_all_that_a_split_has(tmp_path, capsys, by):
    """Thirty scenes with a small landslide, ten with none, and one with as many landslide pixels as all of the others together."""
    labels = []
    for number in range(41):
        label = np.zeros((40, 40), np.uint8)
        if number < 30:
            label[4:10, 4:10] = 1
        elif number == 40:
            label[1:31, 1:37] = 1
        labels.append((label, 100 * number))
    manifest = data(tmp_path, *labels)
    options = ("--by", "scene", "--buffer-m", "0") if by == "scene" else ("--by", "blocks", "--block-m", "1000", "--buffer-m", "0")
    assert cli.main(["split", str(manifest), *options, "--folds", "5", "--out", str(tmp_path / "out")]) == 0
    folds = json.loads((tmp_path / "out" / "split.json").read_text())["folds"]
    tested = [fold["test"] for fold in folds]
    assert sum(test["landslides"] for test in tested) == 31
    assert all(test["landslides"] > 1 for test in tested), tested
    (giant,) = (fold for fold in folds if fold["test"]["largest"] == 30 * 36)
    assert giant["test"]["largest"] / giant["test"]["landslide"] > 0.5
    assert all(test["largest"] == 36 for test in tested if test is not giant["test"])
    sizes = np.array([[1600, label.sum()] for label, _ in labels], dtype=np.float64)
    by_pixels = balanced_folds(sizes, 5, 0)
    assert sizes[by_pixels == by_pixels[40], 1].astype(bool).sum() == 1, "pixels alone would leave it alone"
    told = [line for line in capsys.readouterr().out.splitlines() if "one landslide holds" in line]
    assert len(told) == 2, "it is told where it is tested and where it validates"
