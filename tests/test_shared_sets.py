"""Every shared data set as a user runs it: index where needed, check, describe, preview, and two epochs of training where it is labelled."""

import os
import re
from pathlib import Path

import pytest

from datamodules import cli
from datamodules.errors import UserError
from datamodules.preview import FILES
from datamodules.scene import read_scenes
from zoo.cli import main as zoo

pytestmark = [
    pytest.mark.realdata,
    pytest.mark.slow,
    pytest.mark.skipif("LANDSLIDE_DATA" not in os.environ, reason="LANDSLIDE_DATA is not set"),
]
CONFIG = Path(__file__).parents[1] / "zoo" / "configs" / "deeplab.yaml"
SHARED = Path(os.environ.get("LANDSLIDE_DATA", "."))


def data(*arguments):
    return cli.main([str(argument) for argument in arguments])


def manifest(folder, *rows):
    folder.mkdir()
    lines = [",".join(str(part) for part in row) for row in rows]
    (folder / "scenes.csv").write_text("\n".join(["scene,image,dem,label,split,region", *lines]))
    return folder


def looked_at(root, out, capsys, *options):
    """What `check --full` found, after `describe` and `preview`."""
    capsys.readouterr()
    code = data("check", root, "--full")
    found = " ".join(capsys.readouterr().out.split())
    assert data("describe", root) == 0
    assert "prevalence" in capsys.readouterr().out
    assert data("preview", root, "--out", out, "--windows", 4, *options) == 0
    assert sorted(path.name for path in out.iterdir()) == sorted(FILES)
    return code, found


def trained(root, folder, *options):
    """Two epochs of a tiny network; the losses of both are there and the checkpoint holds a threshold."""
    tiny = {
        "model.network.encoder": "tu-test_efficientnet",
        "model.network.weights": "null",
        "model.network.decoder_channels": 16,
        "data.tile_size": 64,
        "data.batch_size": 2,
        "data.num_workers": 0,
        "data.samples_per_epoch": 4,
        "trainer.max_steps": -1,
        "trainer.max_epochs": 2,
        "trainer.limit_val_batches": 4,
        "trainer.log_every_n_steps": 1,
        "trainer.accelerator": "cpu",
        "trainer.enable_progress_bar": "false",
        "trainer.enable_model_summary": "false",
        "trainer.logger.init_args.save_dir": folder,
    }
    arguments = [f"--{name}={value}" for name, value in tiny.items()]
    assert zoo(["fit", "--config", str(CONFIG), "--data.root", str(root), *arguments, *options]) == 0
    (checkpoint,) = folder.rglob("best.ckpt")
    assert checkpoint.stat().st_size > 100_000


def refused(capsys, message, *arguments):
    with pytest.raises(UserError, match=message):
        data(*arguments)
    capsys.readouterr()


def test_rocky_mountains_in_degrees_are_refused_with_the_remedy(tmp_path, capsys):
    folder = SHARED / "rmnp_rgb_dem" / "original"
    root = manifest(tmp_path / "data", ("rmnp", folder / "rmnp-rgb.tif", folder / "rmnp-dem.tif", "", "predict", ""))
    assert data("check", root, "--full") == 1
    assert "gdalwarp" in capsys.readouterr().out
    for command in (("describe", root), ("preview", root, "--out", tmp_path / "out")):
        refused(capsys, "EPSG:4326.*in degrees.*gdalwarp", *command)
    assert not (tmp_path / "out").exists()
    for command in (("check", root, "--full"), ("describe", root), ("preview", root, "--out", tmp_path / "out")):
        assert data(*command, "--regrid", "reproject") == 0
    assert (tmp_path / "out" / "index.html").is_file()


def test_mars_scenes_with_holes(tmp_path, capsys):
    names = {"train": "scene_full", "val": "scene_val_holes", "test": "scene_test_holes"}
    files = {split: [SHARED / "mars_scenes" / name / f"{role}.tif" for role in ("rgb", "dem", "mask")] for split, name in names.items()}
    root = manifest(tmp_path / "data", *((split, *paths, split, "") for split, paths in files.items()))
    code, found = looked_at(root, tmp_path / "out", capsys)
    assert code == 0
    assert "val 42.86 %" in re.sub(r"\S*/\S*", "", found) or "42.86 %" in found  # holes have no elevation, and are not labelled
    trained(root, tmp_path / "runs")


def test_hokkaido_without_transform(tmp_path, capsys):
    source = SHARED / "hokkaido_rgb"
    refused(capsys, "--resolution-m", "index", source, "--out", tmp_path / "data")
    assert not (tmp_path / "data").exists()
    assert data("index", source, "--resolution-m", 3, "--out", tmp_path / "data") == 0
    looked_at(tmp_path / "data", tmp_path / "out", capsys)
    assert "no known place" in (tmp_path / "out" / "index.html").read_text()
    trained(tmp_path / "data", tmp_path / "runs", "--model.network.inputs=image")


def test_kashmir_polygons_on_the_elevation_alone(tmp_path, capsys):
    source = SHARED / "kashmir_inventory"
    refused(capsys, "layout", "index", source)
    rows = ("kashmir", source / "dem.tif", source / "dem.tif", source / "polygons" / "landslides.shp", "train", "")
    whole = manifest(tmp_path / "whole", rows)
    folds = tmp_path / "folds"
    assert data("split", whole, "--block-m", 4000, "--buffer-m", 100, "--folds", 3, "--out", folds) == 0
    code, _ = looked_at(folds / "fold0", tmp_path / "out", capsys)
    assert code == 0
    channels = ("--model.network.image_channels=1", "--data.image_channels=1")
    trained(folds / "fold0", tmp_path / "runs", "--model.network.inputs=dem", *channels)


def test_mars_tiles_in_the_original_layout(tmp_path, capsys):
    refused(capsys, "--split", "index", SHARED / "mars_mmls_original", "--out", tmp_path / "data")
    assert data("index", SHARED / "mars_mmls_original", "--split", "train", "--out", tmp_path / "data") == 0
    assert data("split", tmp_path / "data", "--by", "scene", "--folds", 3, "--out", tmp_path / "folds") == 0
    root = tmp_path / "folds" / "fold0"
    looked_at(root, tmp_path / "out", capsys)
    trained(root, tmp_path / "runs")


def test_landslide4sense_has_images_and_nothing_else(tmp_path, capsys):
    pytest.importorskip("h5py")
    assert data("index", SHARED / "l4s_h5", "--out", tmp_path / "data") == 0
    assert {scene.split for scene in read_scenes(tmp_path / "data")} == {"predict"}
    code, _ = looked_at(tmp_path / "data", tmp_path / "out", capsys, "--bands", 4, 3, 2)
    assert code == 0
    page = (tmp_path / "out" / "index.html").read_text()
    assert "bands 4 3 2" in page
    assert "no elevation model" in page
    with pytest.raises(UserError, match=r"split = 'train'.*no scene|no scene is in this split"):
        trained(tmp_path / "data", tmp_path / "runs", "--model.network.inputs=image")


@pytest.mark.timeout(1500)  # a minute of one quiet core for the audit alone
def test_bijie_leaks_between_its_own_splits(tmp_path, capsys):
    assert data("index", SHARED / "bijie_rgb", "--out", tmp_path / "data") == 0
    code, found = looked_at(tmp_path / "data", tmp_path / "out", capsys)
    # Pictures of neighbours overlap, shifted by up to a hundred pixels; correlations are 0.96 and above.
    pairs = re.findall(r"(?:train|val|test)/(n?ls_\d+), (?:train|val|test)/(n?ls_\d+)", found)
    assert code == 1
    assert sorted(tuple(sorted(pair)) for pair in pairs) == [
        ("ls_0086", "ls_0087"),
        ("ls_0245", "ls_0246"),
        ("ls_0475", "ls_0478"),
        ("ls_0694", "ls_0695"),
        ("ls_0765", "ls_0766"),
    ]
    refused_both(tmp_path)
    trained(tmp_path / "data", tmp_path / "runs", "--model.network.inputs=image")


def refused_both(folder):
    """Training on image and elevation says that there is no elevation."""
    with pytest.raises(UserError, match="inputs"):
        trained(folder / "data", folder / "none")
