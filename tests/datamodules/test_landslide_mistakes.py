"""Bad input to the data module: one line that says what is wrong, where, and what to do."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from affine import Affine

from datamodules import cli
from datamodules.errors import UserError, one_line
from datamodules.landslide import LandslideDataModule
from tests.datamodules.landslide_scenes import ORIGIN, data_of, write


def truncate(path):
    path.write_bytes(path.read_bytes()[:-2000])


def image_of(root, bands=3, **options):
    write(root / "s0/image.tif", np.ones((bands, 70, 90), dtype=np.uint8), **options)


def label_of(root, value, dtype=np.uint8, **options):
    write(root / "s0/label.tif", np.full((70, 90), value, dtype=dtype), **options)


def dem_of(root, value, **options):
    write(root / "s0/dem.tif", np.full((70, 90), value, dtype=np.float32), **options)


def edit(root, old, new, count=-1):
    path = root / "scenes.csv"
    path.write_text(path.read_text().replace(old, new, count))


DEGREES = Affine(1e-5, 0, 105, 0, -1e-5, 36)
ROTATED = Affine(2, 0.5, ORIGIN[0], 0.5, -2, ORIGIN[1])
# Mistake: how to make it, and words that the message must hold.
MISTAKES = {
    "missing file": (lambda root: (root / "s0/dem.tif").unlink(), ["scenes.csv", "dem", "s0/dem.tif", "does not exist"]),
    "truncated image": (lambda root: truncate(root / "s0/image.tif"), ["image.tif", "truncated"]),
    "truncated dem": (lambda root: truncate(root / "s0/dem.tif"), ["dem.tif", "truncated"]),
    "truncated label": (lambda root: truncate(root / "s0/label.tif"), ["label.tif", "truncated"]),
    "no raster": (lambda root: (root / "s0/image.tif").write_text("hello"), ["image.tif", "cannot be opened"]),
    "label elsewhere": (lambda root: label_of(root, 0, origin=(700000.0, 4000000.0)), ["label.tif", "does not overlap"]),
    "dem without crs": (lambda root: dem_of(root, 0, crs=None), ["dem.tif", "crs", "no coordinate system"]),
    "four bands": (lambda root: image_of(root, 4, photometric="MINISBLACK"), ["image.tif", "image_channels = 3", "4 bands"]),
    "label values": (lambda root: label_of(root, 7), ["label.tif", "7", "0 (background), 1 (landslide) or 255"]),
    "wide label values": (lambda root: label_of(root, 256, np.int16), ["label.tif", "256"]),
    "dem all nodata": (
        lambda root: dem_of(root, -9999, nodata=-9999),
        ["dem.tif", "nodata", "no data anywhere", "leave the dem column empty"],
    ),
    "degrees": (lambda root: image_of(root, crs="EPSG:4326", transform=DEGREES), ["image.tif", "degrees"]),
    "rotated": (lambda root: image_of(root, transform=ROTATED), ["image.tif", "rotated"]),
    "empty split": (lambda root: edit(root, ",val,", ",train,"), ["split = 'val'", "no scene"]),
    "unknown split": (lambda root: edit(root, ",val,", ",dev,"), ["scenes.csv", "split = 'dev'"]),
    "missing column": (lambda root: edit(root, "label", "mask", 1), ["scenes.csv", "label", "column is missing"]),
    "twice the same name": (lambda root: edit(root, "s1,", "s0,", 1), ["scenes.csv", "scene = 's0'", "more than once"]),
}


def spoil(root, what):
    """Make one mistake; returns words that the message must hold."""
    mistake, words = MISTAKES[what]
    mistake(root)
    return words


@pytest.mark.parametrize("cache_mb", [0, 64])
@pytest.mark.parametrize("what", MISTAKES)
def test_bad_input_is_one_line_that_says_what_to_do(root, what, cache_mb):
    words = spoil(root, what)
    with pytest.raises(UserError) as caught:
        data_of(root, cache_mb=cache_mb).setup()
    message = one_line(caught.value)
    assert all(word in message for word in words), message
    assert "\n" not in str(caught.value)
    assert ";" in message  # a remedy follows


@pytest.mark.parametrize("what", [what for what in MISTAKES if what not in ("four bands", "empty split")])
def test_describe_refuses_bad_input_with_exit_code_1(root, what, capsys):
    words = spoil(root, what)
    from datamodules.errors import exit_with

    with pytest.raises(SystemExit) as left:
        exit_with(cli.main, ["describe", str(root)])
    assert left.value.code == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert all(word in error for word in words if not word.startswith("image_channels")), error


@pytest.mark.slow
def test_the_command_line_has_no_traceback(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "datamodules", "describe", str(tmp_path / "nowhere")],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(cli.__file__).parents[1],
    )
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "nowhere" in done.stderr
    assert "zoo-data synthesize" in done.stderr


def test_a_file_damaged_after_setup_is_one_line_from_a_worker(root):
    data = data_of(root, cache_mb=0, num_workers=1)
    data.setup("fit")
    (root / "s0/image.tif").unlink()
    (root / "s1/image.tif").unlink()
    with pytest.raises(UserError) as caught:
        list(data.train_dataloader())
    assert "image.tif" in one_line(caught.value)
    assert "Traceback" not in one_line(caught.value)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("tile_size", 0),
        ("batch_size", 0),
        ("landslide_share", 1.5),
        ("scale", 0.9),
        ("halo", -1),
        ("samples_per_epoch", 0),
        ("train_stride", 0),
    ],
)
def test_senseless_options_are_refused_at_once(option, value):
    with pytest.raises(UserError, match=f"data.{option}") as caught:
        LandslideDataModule("x", **{option: value})
    assert caught.value.exit_code == 2
