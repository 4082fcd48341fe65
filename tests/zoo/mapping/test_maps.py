"""The files of a map: what is in them, that they are whole or absent, and which inputs are refused."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import namedtuple
from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch
from affine import Affine

from datamodules.errors import UserError
from datamodules.reading import SceneReader
from datamodules.scene import Scene
from zoo import load_checkpoint
from zoo.mapping import Ensemble, MapOptions, map_scene, predict_scene

ROOT = Path(__file__).parents[3]
QUIET = {"say": lambda line: None}
MARS = 'PROJCS["SimpleCylindrical_Mars",GEOGCS["GCS_Mars",DATUM["D_Mars",SPHEROID["Mars",3396190,0]],PRIMEM["Reference_Meridian",0],UNIT["degree",0.0174532925199433]],PROJECTION["Equirectangular"],PARAMETER["standard_parallel_1",0],PARAMETER["central_meridian",0],PARAMETER["false_easting",0],PARAMETER["false_northing",0],UNIT["metre",1]]'


def read(path):
    with rasterio.open(path) as dataset:
        return dataset.read(1), dataset.profile, dataset.tags(), dataset.scales[0]


def bytes_of(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.is_file()}


def test_files_hold_what_the_bands_say(trained, survey, tmp_path):
    checkpoint, (image, dem) = trained(), survey
    result = map_scene(checkpoint, image, dem, out=tmp_path / "maps" / "prob.tif", options=MapOptions(tile=48), **QUIET)
    exact = map_scene(checkpoint, image, dem, out=tmp_path / "exact.tif", options=MapOptions(tile=48, dtype="float32"), **QUIET)
    module = load_checkpoint(checkpoint)
    reader = SceneReader(Scene("a", image, dem, None, "predict"), None, 1, "cubic")
    bands = list(predict_scene(Ensemble([module]), reader, tile=48))
    probability, valid = (np.concatenate([getattr(band, name) for band in bands]) for name in ("probability", "valid"))
    with rasterio.open(image) as source:
        assert 0.5 < valid.mean() < (source.dataset_mask() > 0).mean()  # a hole of the elevation model is one of the map
        grid = source.crs, source.transform, source.shape
    coded, profile, tags, scale = read(result.probability)
    assert (profile["crs"], profile["transform"], (profile["height"], profile["width"])) == grid
    assert (coded[~valid] == 255).all()
    assert profile["nodata"] == 255
    assert np.abs(coded * scale - probability)[valid].max() <= 0.5 / 254 + 1e-6
    floats, profile, _, scale = read(exact.probability)
    assert scale == 1
    assert np.isnan(profile["nodata"])
    np.testing.assert_array_equal(floats, np.where(valid, probability, np.nan))
    for files in (result, exact):
        classes, profile, _, _ = read(files.classes)
        np.testing.assert_array_equal(classes, np.where(valid, probability >= np.float32(module.threshold), 255))
        assert files.uncertainty is None
    assert tags["ZOO_THRESHOLD"] == f"{module.threshold:.9g}"
    assert len(tags["ZOO_MODEL_SHA256"]) == 64
    assert result.km2 == pytest.approx(valid.sum() * 4e-6)
    assert sorted(path.name for path in (tmp_path / "maps").iterdir()) == ["prob.qml", "prob.tif", "prob_class.qml", "prob_class.tif"]


def test_an_ensemble_has_a_mean_a_spread_and_the_mean_threshold(trained, survey, tmp_path):
    paths, (image, dem) = [trained(seed=0), trained(seed=1), trained("image")], survey
    options = MapOptions(tile=64, dtype="float32")
    single = [map_scene(path, image, dem, out=tmp_path / f"{number}.tif", options=options, **QUIET) for number, path in enumerate(paths)]
    joint = map_scene(paths, image, dem, out=tmp_path / "joint.tif", options=options, **QUIET)
    maps = [read(result.probability)[0] for result in single]
    mean, spread = read(joint.probability)[0], read(joint.uncertainty)[0]
    # The member that reads the image alone goes on where elevation is missing; the ensemble does not.
    np.testing.assert_allclose(mean, np.mean(maps, axis=0), atol=1e-5)
    inner = np.isfinite(mean)
    assert np.isfinite(maps[2]).sum() > inner.sum()
    assert (np.isfinite(spread) == inner).all()
    # The spread within each tile is blended, so it is the spread of the maps or, where tiles meet, a little more.
    assert (spread[inner] > np.std(maps, axis=0)[inner] - 1e-5).all()
    np.testing.assert_allclose(spread[:40, :40][inner[:40, :40]], np.std(maps, axis=0)[:40, :40][inner[:40, :40]], atol=1e-5)
    assert joint.threshold == pytest.approx(np.mean([result.threshold for result in single]))
    turned = map_scene(paths[0], image, dem, out=tmp_path / "d4.tif", options=MapOptions(tta="d4", threshold=0.25), **QUIET)
    assert turned.threshold == 0.25
    assert read(turned.uncertainty)[0].min() < 255
    with pytest.raises(UserError, match="given twice"):
        map_scene([paths[0], paths[0]], image, dem, out=tmp_path / "e.tif", **QUIET)


def test_what_an_earlier_map_had_more_of_is_removed_and_a_file_of_others_is_not(trained, write_raster, survey, tmp_path):
    said, maps = [], tmp_path / "maps"
    for number, checkpoints in enumerate(([trained("image"), trained("image", 1)], [trained("image")])):
        result = map_scene(checkpoints, survey[0], out=maps / "p.tif", options=MapOptions(tile=128), say=said.append)
        assert (result.uncertainty is None) == bool(number)
        assert {path.name for path in maps.glob("p_uncertainty.*")} == ({"p_uncertainty.tif", "p_uncertainty.qml"} if not number else set())
    assert any("p_uncertainty.tif of an earlier map is removed" in line for line in said)
    own = write_raster(maps / "q_uncertainty.tif", np.ones((150, 200), dtype=np.uint8))
    map_scene(trained("image"), survey[0], out=maps / "q.tif", options=MapOptions(tile=128), **QUIET)
    assert own.exists()


def test_files_are_valid_cogs_and_gdalinfo_reads_them(trained, survey, tmp_path):
    from rio_cogeo import cog_validate

    big = tmp_path / "big.tif"
    with rasterio.open(survey[0]) as source:
        values, profile = np.tile(source.read(), (1, 1, 6)), source.profile
    with rasterio.open(big, "w", **{**profile, "height": values.shape[1], "width": values.shape[2]}) as target:
        target.write(values)
    for dtype in ("uint8", "float32"):
        options = MapOptions(dtype=dtype)
        result = map_scene([trained("image"), trained("image", 1)], big, out=tmp_path / f"{dtype}.tif", options=options, **QUIET)
        for path in (result.probability, result.classes, result.uncertainty):
            valid, errors, warnings = cog_validate(path, strict=True)
            assert valid, (errors, warnings)
            with rasterio.open(path) as dataset:
                assert dataset.overviews(1)
                assert dataset.profile["compress"] == "deflate"
            if program := shutil.which("gdalinfo"):
                said = subprocess.run([program, str(path)], capture_output=True, text=True, check=True).stdout
                assert "LAYOUT=COG" in said
                assert "ZOO_MODEL_SHA256" in said


@pytest.mark.parametrize("crs", ["EPSG:32648", MARS], ids=["EPSG", "WKT"])
@pytest.mark.parametrize("shape", [(1, 1), (150, 3), (3, 150), (65, 64)], ids=str)
def test_any_size_and_any_system(trained, write_raster, tmp_path, shape, crs):
    image = np.random.default_rng(0).integers(0, 255, (3, *shape)).astype(np.uint8)
    place = {"crs": crs, "transform": Affine(2, 0, 5e5, 0, -2, 1e5)}  # near the equator, where the cylinder does not stretch
    source = write_raster(tmp_path / "image.tif", image, **place)
    dem = write_raster(tmp_path / "dem.tif", np.fromfunction(lambda r, c: 500 + r + 2 * c, shape).astype(np.float32), **place)
    result = map_scene(trained(), source, dem, out=tmp_path / "prob.tif", options=MapOptions(dtype="float32"), **QUIET)
    values, profile, _, _ = read(result.probability)
    assert values.shape == shape
    assert np.isfinite(values).all()
    with rasterio.open(source) as given:
        assert profile["crs"] == given.crs
        assert profile["transform"] == given.transform


def test_a_scene_of_one_value_gives_one_answer_and_one_without_data_none(trained, write_raster, tmp_path):
    one = write_raster(tmp_path / "one.tif", np.full((3, 128, 128), 77, dtype=np.uint8))
    values = read(map_scene(trained("image"), one, out=tmp_path / "a.tif", **QUIET).probability)[0]
    assert (values != 255).all()
    none = write_raster(tmp_path / "none.tif", np.zeros((3, 128, 128), dtype=np.uint8), nodata=0)
    result = map_scene(trained("image"), none, out=tmp_path / "b.tif", **QUIET)
    assert (read(result.probability)[0] == 255).all()
    assert (read(result.classes)[0] == 255).all()


def test_a_nodata_value_can_be_stated(trained, write_raster, tmp_path):
    image = np.full((3, 100, 80), 50, dtype=np.uint8)
    image[:, :30] = 0
    source = write_raster(tmp_path / "image.tif", image)
    result = map_scene(trained("image"), source, out=tmp_path / "p.tif", options=MapOptions(image_nodata=0), **QUIET)
    np.testing.assert_array_equal(read(result.classes)[0] == 255, (image == 0).all(0))
    assert read(source)[1]["nodata"] is None


def test_another_pixel_size_is_refused_or_resampled(trained, write_raster, tmp_path):
    image = np.random.default_rng(0).integers(0, 255, (3, 101, 90)).astype(np.uint8)
    near = write_raster(tmp_path / "near.tif", image, transform=Affine(2.1, 0, 5e5, 0, -2.1, 4e6))
    map_scene(trained("image"), near, out=tmp_path / "near_map.tif", **QUIET)
    for side, shape in ((1.0, (51, 45)), (5.0, (253, 225))):
        source = write_raster(tmp_path / f"{side}.tif", image, transform=Affine(side, 0, 5e5, 0, -side, 4e6))
        with pytest.raises(UserError, match="trained on 2 m.*--resample-to-model"):
            map_scene(trained("image"), source, out=tmp_path / "p.tif", **QUIET)
        options = MapOptions(resample_to_model=True)
        result = map_scene(trained("image"), source, out=tmp_path / f"map_{side}.tif", options=options, **QUIET)
        values, profile, _, _ = read(result.probability)
        assert values.shape == shape
        assert profile["transform"] == Affine(2, 0, 5e5, 0, -2, 4e6)
        assert (values != 255).mean() > 0.95


REFUSALS = {
    "bands": (
        lambda image: np.repeat(image[:1], 5, axis=0),
        {},
        {},
        r"the image has 5 bands but .* reads 3; .*gdal_translate -b 1 -b 2 -b 3",
    ),
    "fewer bands": (lambda image: image[:1], {}, {}, "the image has 1 bands .* give the image that has them"),
    "no elevation": (lambda image: image, {}, {"dem": None}, "none is given; give it with --dem"),
    "degrees": (lambda image: image, {"crs": "EPSG:4326", "transform": Affine(1e-5, 0, 100, 0, -1e-5, 30)}, {}, "degrees"),
    "rotated": (lambda image: image, {"transform": Affine(2, 0.5, 5e5, 0.5, -2, 4e6)}, {}, "rotated"),
    "no system": (lambda image: image, {"crs": None}, {}, "no coordinate system"),
    "name": (lambda image: image, {}, {"out": "prob.png"}, "no name of a GeoTIFF"),
    "itself": (lambda image: image, {}, {"out": "image.tif"}, "would overwrite the image"),
    "class on dem": (lambda image: image, {}, {"out": "dem.tif", "dem": "dem_class.tif"}, "would overwrite the dem"),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_what_does_not_fit_is_refused_with_a_remedy_and_leaves_nothing(trained, write_raster, survey, tmp_path, case):
    change, georeference, arguments, message = REFUSALS[case]
    folder = tmp_path / "data"
    folder.mkdir()
    with rasterio.open(survey[0]) as source:
        write_raster(folder / "image.tif", change(source.read()), **georeference)
    name = arguments.get("dem", "dem.tif")
    if name:
        shutil.copy(survey[1], folder / name)
    before = bytes_of(folder)
    with pytest.raises(UserError, match=message):
        map_scene(trained(), folder / "image.tif", folder / name if name else None, out=folder / arguments.get("out", "prob.tif"), **QUIET)
    assert bytes_of(folder) == before


def test_a_map_that_the_disk_cannot_hold_is_refused_before_it_starts(trained, survey, tmp_path, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10**9, 10**9 - 50_000, 50_000))
    with pytest.raises(UserError, match=r"150|200 .*free some space"):
        map_scene(trained("image"), survey[0], out=tmp_path / "new" / "p.tif", **QUIET)
    assert not list((tmp_path / "new").iterdir())


def test_an_interrupted_run_continues_and_gives_the_same_files(trained, survey, tmp_path):
    said, rows = [], []
    options = MapOptions(tile=32)
    whole = map_scene(trained(), *survey, out=tmp_path / "whole" / "p.tif", options=options, **QUIET)

    def stop(done, total):
        rows.append(done)
        if len(rows) == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        map_scene(trained(), *survey, out=tmp_path / "p.tif", options=options, progress=stop)
    assert not (tmp_path / "p.tif").exists()
    draft = tmp_path / ".p.tif.partial"
    with (draft / "journal").open("a") as journal:
        journal.write("14")  # a line that a kill cut short is not a number of rows
    with (draft / "probability.raw").open("ab") as raw:
        raw.write(b"half a row")
    done = []
    again = map_scene(
        trained(), *survey, out=tmp_path / "p.tif", options=options, say=said.append, progress=lambda row, _: done.append(row)
    )
    assert f"{rows[-1]} of 150 rows are there" in said[0]
    assert done[0] > rows[-1]
    for name in ("probability", "classes"):
        assert getattr(again, name).read_bytes() == getattr(whole, name).read_bytes()
    assert not draft.exists()
    kept = map_scene(trained(), *survey, out=tmp_path / "p.tif", options=options, say=said.append)
    assert "kept" in said[-1]
    assert kept.km2 == 0


@pytest.mark.parametrize("change", ["image", "checkpoint", "option"])
def test_a_draft_of_other_inputs_is_not_continued(trained, survey, tmp_path, change):
    (image, dem), said = survey, []

    def stop(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        map_scene(trained(), image, dem, out=tmp_path / "p.tif", options=MapOptions(tile=32), progress=stop)
    checkpoint, options = trained(seed=1) if change == "checkpoint" else trained(), MapOptions(tile=48 if change == "option" else 32)
    if change == "image":
        with rasterio.open(image, "r+") as dataset:
            dataset.write(np.full((1, 1), 9, dtype=np.uint8), 1, window=((149, 150), (199, 200)))
    result = map_scene(checkpoint, image, dem, out=tmp_path / "p.tif", options=options, say=said.append)
    assert "starting anew" in said[0]
    fresh = map_scene(checkpoint, image, dem, out=tmp_path / "fresh.tif", options=options, **QUIET)
    assert result.probability.read_bytes() == fresh.probability.read_bytes()


def test_two_processes_do_not_write_one_map(trained, survey, tmp_path):
    def again(done, total):
        with pytest.raises(UserError, match="another process is writing this map"):
            map_scene(trained("image"), survey[0], out=tmp_path / "p.tif", **QUIET)

    map_scene(trained("image"), survey[0], out=tmp_path / "p.tif", progress=again, **QUIET)
    assert (tmp_path / "p.tif").exists()


@pytest.mark.slow
def test_a_killed_run_leaves_no_half_file_and_continues(trained, survey, tmp_path):
    command = [sys.executable, "-m", "zoo", "map", str(trained()), "--image", str(survey[0]), "--dem", str(survey[1]), "--tile", "8", "--overlap", "0.5"]  # fmt: skip
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen([*command, "--out", str(tmp_path / "p.tif")], env=environment, stdout=subprocess.DEVNULL)
    journal, deadline = tmp_path / ".p.tif.partial" / "journal", time.monotonic() + 400
    while not (journal.exists() and journal.read_text().count("\n") > 4):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not list(tmp_path.glob("p*.tif"))
    done = subprocess.run([*command, "--out", str(tmp_path / "p.tif")], env=environment, capture_output=True, text=True, check=True)
    assert "continuing" in done.stdout
    assert re.search(r"km2/h, threshold", done.stdout)
    subprocess.run([*command, "--out", str(tmp_path / "whole.tif")], env=environment, capture_output=True, check=True)
    assert (tmp_path / "p.tif").read_bytes() == (tmp_path / "whole.tif").read_bytes()
    assert not (tmp_path / ".p.tif.partial").exists()


def test_a_checkpoint_remembers_its_pixel_size_and_one_that_does_not_is_said_aloud(trained, survey, tmp_path):
    old = torch.load(trained("image"), weights_only=True)
    assert old["landslide_zoo"]["training_pixel_m"] == [2.0, 2.0]
    del old["landslide_zoo"]["training_pixel_m"]
    torch.save(old, tmp_path / "old.ckpt")
    said = []
    map_scene(tmp_path / "old.ckpt", survey[0], out=tmp_path / "p.tif", say=said.append)
    assert "that of the scene is not checked" in said[0]
