"""`zoo map` as a user types it."""

import numpy as np
import pytest
import rasterio

from datamodules.errors import UserError
from datamodules.scene import Scene, write_manifest
from zoo.cli import main


def values(path):
    with rasterio.open(path) as dataset:
        return dataset.read(1)


def test_options_reach_the_map_and_the_speed_is_printed(trained, survey, tmp_path, capsys):
    out = tmp_path / "prob.tif"
    arguments = [
        "map",
        str(trained()),
        "--image",
        str(survey[0]),
        "--dem",
        str(survey[1]),
        "--out",
        str(out),
        "--tile",
        "48",
        "--tta",
        "d4",
    ]
    assert main([*arguments, "--overlap", "0.5", "--batch-size", "3", "--threshold", "0.9", "--dtype", "float32", "--device", "cpu"]) == 0
    printed = capsys.readouterr()
    assert "km2/h, threshold 0.9" in printed.out
    assert not printed.err  # no bar where nobody watches
    with rasterio.open(out) as dataset:
        tags = dataset.tags()
        assert dataset.dtypes == ("float32",)
    assert tags["ZOO_TTA"] == "d4"
    assert tags["ZOO_TILE"] == "48 pixels, overlap 0.5, context 0"
    assert float(tags["ZOO_THRESHOLD"]) == 0.9
    assert (tmp_path / "prob_uncertainty.tif").exists()


def test_a_page_shows_the_scene_also_what_the_network_does_not_read(trained, survey, tmp_path):
    out, page = tmp_path / "p.tif", tmp_path / "p.html"
    arguments = ["map", str(trained("image")), "--image", str(survey[0]), "--dem", str(survey[1]), "--out", str(out), "--device", "cpu"]
    with pytest.raises(UserError, match="is no name of a page"):
        main([*arguments, "--html", str(tmp_path / "p.pdf")])
    assert not out.exists()
    assert main([*arguments, "--html", str(page)]) == 0
    assert all(f'id="picture-{name}"' in page.read_text() for name in ("image", "hillshade"))


def test_scenes_of_a_manifest_are_shared_among_ranks(trained, survey, tmp_path, monkeypatch):
    scenes = [Scene(f"valley_{number}", *survey, None, "predict") for number in range(3)]
    scenes.append(Scene("labelled", *survey, survey[0], "test"))
    write_manifest(scenes, tmp_path / "scenes.csv")
    arguments = ["map", str(trained()), "--scenes", str(tmp_path / "scenes.csv")]
    for rank in ("1", "0"):
        monkeypatch.setenv("RANK", rank)
        monkeypatch.setenv("WORLD_SIZE", "2")
        assert main([*arguments, "--out", str(tmp_path / "maps")]) == 0
        if rank == "1":
            assert {path.name for path in (tmp_path / "maps").iterdir()} == {
                f"valley_1{end}" for end in (".tif", ".qml", "_class.tif", "_class.qml")
            }
    names = {path.name for path in (tmp_path / "maps").iterdir()}
    assert names == {f"valley_{number}{suffix}.{end}" for number in range(3) for suffix in ("", "_class") for end in ("tif", "qml")}
    assert (values(tmp_path / "maps" / "valley_0.tif") == values(tmp_path / "maps" / "valley_2.tif")).all()


def test_a_mistake_in_the_last_scene_shows_before_the_first_is_mapped(trained, survey, write_raster, tmp_path):
    odd = write_raster(tmp_path / "odd.tif", np.ones((5, 70, 70), dtype=np.uint8))
    write_manifest([Scene("good", *survey, None, "predict"), Scene("odd", odd, survey[1], None, "predict")], tmp_path / "scenes.csv")
    with pytest.raises(UserError, match=r"odd.tif.*5 bands"):
        main(["map", str(trained()), "--scenes", str(tmp_path / "scenes.csv"), "--out", str(tmp_path / "maps")])
    assert not (tmp_path / "maps").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["map"], "the following arguments are required"),
        (["map", "missing.ckpt", "--image", "IMAGE", "--out", "OUT"], "no such file"),
        (["map", "CKPT", "--out", "OUT"], "either --image or --scenes"),
        (["map", "CKPT", "--image", "IMAGE", "--scenes", "IMAGE", "--out", "OUT"], "either --image or --scenes"),
        (["map", "CKPT", "--image", "nowhere.tif", "--out", "OUT"], "nowhere.tif"),
        (["map", "CKPT", "--image", "IMAGE", "--out", "OUT", "--overlap", "0.7"], "overlap = 0.7"),
        (["map", "CKPT", "--image", "IMAGE", "--out", "OUT", "--tile", "0"], "tile = 0"),
        (["map", "CKPT", "--image", "IMAGE", "--out", "OUT", "--context", "-1"], "context = -1"),
        (["map", "CKPT", "--image", "IMAGE", "--out", "OUT", "--device", "cuda:99"], "no such device"),
        (["map", "CKPT", "--image", "IMAGE", "--out", "OUT", "--tta", "d8"], "invalid choice"),
        (["map", "CKPT", "--image", "IMAGE"], "--out"),
    ],
)
def test_a_mistake_is_one_line(trained, survey, tmp_path, arguments, message):
    words = {"CKPT": str(trained("image")), "IMAGE": str(survey[0]), "OUT": str(tmp_path / "p.tif")}
    with pytest.raises(UserError) as caught:
        main([words.get(argument, argument) for argument in arguments])
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_example_runs(trained, survey, tmp_path, monkeypatch, capsys):
    from pathlib import Path

    monkeypatch.syspath_prepend(str(Path(__file__).parents[3] / "examples"))
    from map_scene import main as example

    example(str(trained()), *map(str, survey), str(tmp_path / "p.tif"))
    printed = capsys.readouterr().out
    assert "landslide at" in printed
    assert "rows 0 to " in printed
