"""The audit finds each kind of planted leak, and passes what is clean."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine

from datamodules import cli
from datamodules.audit import audit
from datamodules.scene import Scene, read_scenes, write_manifest
from datamodules.splits import split_scenes


def write(path, array, column):
    profile = {"driver": "GTiff", "count": 1, "height": array.shape[0], "width": array.shape[1], "dtype": "uint8", "crs": "EPSG:32648"}
    with rasterio.open(path, "w", **profile, transform=Affine(10, 0, 500000 + 10 * column, 0, -10, 4000000)) as file:
        file.write(array, 1)


def picture(seed, size=128):
    rng = np.random.default_rng(seed)
    coarse = np.kron(rng.uniform(60, 180, (size // 8, size // 8)), np.ones((8, 8)))
    return np.clip(coarse + rng.normal(0, 10, (size, size)), 0, 230).astype(np.uint8)


def scenes(folder, *parts):
    made = []
    for number, (image, label, column) in enumerate(parts):
        split = ("train", "val", "test")[number % 3]
        write(folder / f"i{number}.tif", image, column)
        write(folder / f"l{number}.tif", label, column)
        made.append(Scene(f"s{number}", folder / f"i{number}.tif", None, folder / f"l{number}.tif", split))
    write_manifest(made, folder / "scenes.csv")
    return made


def spot(column=50):
    label = np.zeros((128, 128), np.uint8)
    label[40:60, column : column + 20] = 1
    return label


def kinds(report):
    return {finding.kind for finding in report.findings if finding.level != "warning"}


def test_clean_data_pass(tmp_path, capsys):
    report = audit(scenes(tmp_path, *[(picture(n), spot(), 300 * n) for n in range(3)]))
    assert report.passed
    assert not report.findings
    assert report.distance_m == {"train-test": 4720.0, "test-val": 1720.0, "train-val": 1720.0}
    assert report.splits["train"]["prevalence"] == pytest.approx(400 / 128**2)
    json.dumps(report.plain())
    assert cli.main(["check", str(tmp_path)]) == 0
    assert "passed" in capsys.readouterr().out


def test_overlap_is_counted(tmp_path, capsys):
    report = audit(scenes(tmp_path, (picture(0), spot(), 0), (picture(1), spot(), 118), (picture(2), spot(), 900)))
    (finding,) = [finding for finding in report.findings if finding.level == "leak"]
    assert finding.kind == "overlap"
    assert finding.scenes == ("s0", "s1")
    assert finding.detail.startswith("1,280 pixels")  # ten columns
    assert cli.main(["check", str(tmp_path)]) == 1


def test_a_landslide_in_two_splits_is_found_where_scenes_only_touch(tmp_path):
    report = audit(scenes(tmp_path, (picture(0), spot(108), 0), (picture(1), spot(0), 128), (picture(2), spot(), 900)))
    assert kinds(report) == {"landslide"}
    apart = audit(scenes(tmp_path, (picture(0), spot(90), 0), (picture(1), spot(0), 128), (picture(2), spot(), 900)))
    assert kinds(apart) == set()  # adjacent tiles, but no landslide in both
    assert {finding.kind for finding in apart.findings} == {"near"}


def test_copied_and_brightened_tiles_are_found(tmp_path):
    image = picture(0)
    brighter = (image * 1.1 + 5).astype(np.uint8)
    assert kinds(audit(scenes(tmp_path, (image, spot(), 0), (picture(1), spot(), 300), (image, spot(), 600)))) == {"duplicate"}
    assert kinds(audit(scenes(tmp_path, (image, spot(), 0), (picture(1), spot(), 300), (brighter, spot(), 600)))) == {"near-duplicate"}


@pytest.mark.parametrize("copy", ["shifted", "turned", "mirrored"])
def test_shifted_and_turned_copies_are_found(copy, tmp_path):
    ground = picture(0, 256)
    one = ground[:128, :128]
    other = {"shifted": ground[9:137, 21:149], "turned": np.rot90(one), "mirrored": one[:, ::-1]}[copy]
    report = audit(scenes(tmp_path, (one, spot(), 0), (picture(1), spot(), 300), (other, spot(), 600)))
    assert kinds(report) == {"near-duplicate"}
    (finding,) = [finding for finding in report.findings if finding.level == "leak"]
    assert set(finding.scenes) == {"s0", "s2"}
    assert ("as it is" if copy == "shifted" else copy) in finding.detail


def test_unreadable_and_without_landslides(tmp_path):
    made = scenes(tmp_path, (picture(0), spot(), 0), (picture(1), spot() * 0, 300), (picture(2), spot(), 600))
    (tmp_path / "i2.tif").write_bytes((tmp_path / "i2.tif").read_bytes()[:500])
    report = audit(made)
    assert kinds(report) == {"unreadable"}
    assert [finding.kind for finding in report.findings if finding.level == "warning"] == ["prevalence"]
    assert not report.passed


def test_a_block_split_passes(tmp_path):
    label = (np.random.default_rng(3).uniform(size=(256, 256)) > 0.999).astype(np.uint8)
    manifest = tmp_path / "scenes.csv"
    scenes(tmp_path, (picture(5, 256), label, 0))
    split_scenes(manifest, tmp_path / "out", by="blocks", block_m=640, buffer_m=100, folds=3, seed=0)
    report = audit(read_scenes(tmp_path / "out" / "fold1"), near_m=110)
    assert report.passed, report.findings
    gaps = [float(finding.detail.split(" are ")[1].split(" m")[0]) for finding in report.findings if finding.kind == "near"]
    assert all(100 - 14.2 <= gap < 110 for gap in gaps)  # never too long, short by at most a pixel's diagonal
    assert set(report.splits) == {"train", "val", "test"}
    assert min(report.distance_m.values()) > 0  # a lower bound: boxes of cells that a buffer crosses are nearer than their labels


@pytest.mark.realdata
@pytest.mark.slow
def test_mars_tiles_of_different_splits_are_apart():
    if "LANDSLIDE_DATA" not in os.environ:
        pytest.skip("LANDSLIDE_DATA is not set")
    report = audit(read_scenes(Path(os.environ["LANDSLIDE_DATA"]) / "mars_mmls"), near_m=300)
    assert report.passed, report.findings
    assert min(report.distance_m.values()) >= 300  # what its README says
    assert report.splits["train"]["scenes"] == 228
