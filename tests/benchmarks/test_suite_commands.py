"""`zoo-bench run` on folds and on splits that leak, with the runs themselves left out."""

import shutil

import numpy as np
import pytest
import rasterio
import yaml
from affine import Affine

from benchmarks import cli
from benchmarks.auditing import prepare
from datamodules.errors import UserError
from datamodules.scene import Scene, write_manifest

CONTENT = {
    "name": "small",
    "data": {"name": "set", "root": "/nowhere", "split": {"by": "scene", "buffer_m": 0}},
    "budget": {"max_steps": 2, "validate_every": 2},
    "seeds": [0, 1],
    "runs": [{"name": "row", "method": "deeplab", "grid": {"optim.lr": [0.1, 0.2]}}],
}


@pytest.fixture
def root(tmp_path):
    """Three scenes of 64 x 64 pixels, 10 km apart."""
    scenes = []
    for number, split in enumerate(("train", "val", "test")):
        folder = tmp_path / "set" / f"scene{number}"
        folder.mkdir(parents=True)
        layers = {
            "image": np.random.default_rng(number).integers(0, 255, (3, 64, 64)),
            "label": np.pad(np.ones((1, 9, 9)), ((0, 0), (20, 35), (20, 35))),
        }
        for name, values in layers.items():
            profile = {"driver": "GTiff", "count": len(values), "height": 64, "width": 64, "dtype": "uint8", "crs": "EPSG:32648"}
            with rasterio.open(folder / f"{name}.tif", "w", transform=Affine(10, 0, 5e5 + 1e4 * number, 0, -10, 4e6), **profile) as file:
                file.write(values.astype(np.uint8))
        scenes.append(Scene(f"s{number}", folder / "image.tif", None, folder / "label.tif", split))
    write_manifest(scenes, tmp_path / "set" / "scenes.csv")
    return tmp_path / "set"


@pytest.fixture
def call(root, tmp_path, monkeypatch):
    """The command line; returns what would have been run."""
    ran = []
    monkeypatch.setattr(cli, "check_in_child", lambda nursery, specs, portions=(): prepare(portions))
    monkeypatch.setattr("benchmarks.launchers.options.visible_gpus", lambda nursery: [])
    monkeypatch.setattr("benchmarks.launchers.options.usable_cores", lambda: 1)
    monkeypatch.setattr(cli, "run_suite", lambda specs, *arguments, **options: ran.extend(specs))
    monkeypatch.setattr(cli, "_report", lambda *arguments: 0)
    (tmp_path / "small.yaml").write_text(yaml.safe_dump(CONTENT))

    def call(*arguments):
        ran.clear()
        command = ["run", str(tmp_path / "small.yaml"), "--runs", str(tmp_path / "runs"), "--data.root", str(root), *arguments]
        assert cli.main(command) == 0
        return list(ran)

    return call


def test_a_dry_run_prints_the_runs_and_commands_of_the_chosen_folds(call, tmp_path, capsys):
    assert call("--dry-run", "--folds", "3", "--fold", "0,2", "--seeds", "1") == []
    lines = capsys.readouterr().out.splitlines()
    assert lines[::2] == [f"# row, lr={lr}, fold {fold}, seed 1: waiting" for lr in (0.1, 0.2) for fold in (0, 2)]
    for line in lines[1::2]:
        spec = line.split("benchmarks.run ")[1].split()[0]
        assert f"--data {spec.replace('spec.json', 'scenes.csv')} " in line
        assert spec.startswith(str(tmp_path / "runs" / "small"))
    assert not (tmp_path / "runs" / "data" / "folds").exists(), "nothing is made"


def test_folds_are_run(call, tmp_path):
    assert [(spec.fold, spec.seed) for spec in call("--folds", "3", "--fold", "1")] == [(1, 0), (1, 1)] * 2
    assert len(call("--folds", "3")) == 3 * 2 * 2
    assert len(list((tmp_path / "runs" / "data" / "folds").iterdir())) == 1
    assert len(list((tmp_path / "runs" / "data" / "audits").iterdir())) == 3


def test_a_suite_on_splits_that_leak_is_not_run_unless_that_is_allowed(call, root, capsys):
    for name in ("image.tif", "label.tif"):
        shutil.copy(root / "scene0" / name, root / "scene2" / name)
    with pytest.raises(UserError, match=r"its splits leak.*--allow-leaks") as caught:
        call()
    assert caught.value.exit_code == 1
    assert len(call("--allow-leaks")) == 4
    assert "LEAK, allowed by --allow-leaks" in capsys.readouterr().out


def test_some_rows_are_run_by_name_or_pattern(call, tmp_path):
    everything = {spec.key for spec in call()}
    assert [spec.name for spec in call("--rows", "row, lr=0.2")] == ["row, lr=0.2"] * 2, "a name is a name, whatever it is made of"
    some = call("--seeds", "0", "--rows", "*=0.1", "row, lr=0.2")
    assert [spec.name for spec in some] == ["row, lr=0.1", "row, lr=0.2"], "in the order of the suite"
    assert {spec.key for spec in some} < everything, "the same runs as those of the whole suite"
    with pytest.raises(UserError, match=r"no such row.*did you mean row, lr=0.2"):
        call("--rows", "row, lr=0.3")
