"""Scenes by manifest and by folder: names, splits, fingerprints and what `zoo-data describe` says of them."""

import numpy as np
import rasterio

from datamodules import cli
from datamodules.scene import fingerprint, read_scenes, write_manifest
from tests.datamodules.landslide_scenes import data_of, stream, write


def test_the_folder_layout_gives_one_window_a_file_and_no_jitter(tmp_path):
    for split in ("train", "val", "test"):
        for k in range(2):
            write(tmp_path / split / "images" / f"{k}.tif", np.full((3, 32, 32), 9, dtype=np.uint8))
            write(tmp_path / split / "dem" / f"{k}.tif", np.zeros((32, 32), dtype=np.float32))
            write(tmp_path / split / "masks" / f"{k}.tif", np.eye(32, dtype=np.uint8))
    data = data_of(tmp_path, geometry=False, colour=False)
    batches = stream(data)
    assert sorted(tile for batch in batches for tile in batch["tile"]) == ["train/0:0:0"] * 2 + ["train/1:0:0"] * 2
    assert cli.main(["index", str(tmp_path)]) == 0
    assert [scene.name for scene in read_scenes(tmp_path)] == [scene.name for scene in data.scenes]


def test_the_fingerprint_follows_the_contents_and_not_the_place(root, tmp_path_factory):
    scenes = read_scenes(root)
    before = fingerprint(scenes)
    moved = tmp_path_factory.mktemp("moved") / "elsewhere"
    root.rename(moved)
    assert fingerprint(read_scenes(moved)) == before
    with rasterio.open(moved / "s0/label.tif", "r+") as file:
        label = file.read(1)
        label[5, 5] = 0
        file.write(label, 1)
    assert fingerprint(read_scenes(moved)) != before


def test_a_written_manifest_reads_back(root):
    scenes = read_scenes(root)
    (root / "sub").mkdir()
    write_manifest(scenes, root / "sub" / "scenes.csv")
    again = read_scenes(root / "sub")
    assert [(s.name, s.image.resolve(), s.split, s.region) for s in again] == [
        (s.name, s.image.resolve(), s.split, s.region) for s in scenes
    ]


def test_describe_counts_what_is_there(root, capsys):
    assert cli.main(["describe", str(root), "--tile-size", "32", "--by-scene"]) == 0
    text = capsys.readouterr().out
    assert "s3" in text
    assert f"{100 * 256 / (70 * 90):.2f} %" in text
    assert f"{2 * 70 * 90 * 4 / 1e6:.2f}" in text  # km2 of the training scenes
