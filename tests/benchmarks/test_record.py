"""Records: whole or absent, NaN and null, and what a damaged one leads to."""

import json
import math
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from benchmarks.atomic import write_bytes, write_json
from benchmarks.record import RunRecord, histograms_to_bytes, load_histograms, load_record, load_records, save_record
from benchmarks.spec import RunSpec
from datamodules.errors import UserError

SPEC = RunSpec("s", "row", "deeplab", {}, "d", {}, {"max_steps": 1}, 0, "f")
HISTOGRAMS = {
    "val": {"b:0:0": np.arange(512).reshape(2, 256), "a:0:0": np.ones((2, 256), np.int64)},
    "test": {"c:0:128": np.full((2, 256), 2**40)},
}


@pytest.fixture
def record():
    return RunRecord(SPEC.key, "finished", SPEC.to_dict(), metrics={"test": {"iou_landslide": 0.25, "precision": math.nan}})


def test_nan_is_null_in_the_file_and_nan_again_when_read(record, tmp_path):
    path = save_record(record, tmp_path, HISTOGRAMS)
    assert json.loads(path.read_text())["metrics"]["test"] == {"iou_landslide": 0.25, "precision": None}
    back = load_record(path)
    assert math.isnan(back.metrics["test"].pop("precision"))
    record.metrics["test"].pop("precision")
    assert back == record


def test_histograms_come_back_and_their_file_does_not_depend_on_their_order(tmp_path):
    reverse = {split: dict(reversed(tiles.items())) for split, tiles in reversed(HISTOGRAMS.items())}
    path = tmp_path / "h.npz"
    path.write_bytes(histograms_to_bytes(HISTOGRAMS))
    back = load_histograms(path)
    assert back.keys() == HISTOGRAMS.keys()
    for split, tiles in HISTOGRAMS.items():
        assert back[split].keys() == tiles.keys()
        for tile, counts in tiles.items():
            assert back[split][tile].dtype == np.int64
            np.testing.assert_array_equal(back[split][tile], counts)
    assert {split: list(tiles) for split, tiles in back.items()} == {"val": ["a:0:0", "b:0:0"], "test": ["c:0:128"]}
    assert histograms_to_bytes({split: reverse[split] for split in HISTOGRAMS}) == histograms_to_bytes(HISTOGRAMS)


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (lambda text: text[: len(text) // 2], "corrupt record"),
        (lambda text: "", "corrupt record"),
        (lambda text: "[]", "corrupt record"),
        (lambda text: text.replace('"status"', '"state"'), "corrupt record"),
        (lambda text: text.replace('"seed": 0', '"seed": 1'), "its spec has the key"),
        (lambda text: text.replace('"seed"', '"sead"'), "corrupt record"),
        (lambda text: text.replace('"schema_version": 1', '"schema_version": 99'), "schema_version = 99"),
    ],
)
def test_a_damaged_record_is_named_with_a_remedy(record, tmp_path, damage, told):
    path = save_record(record, tmp_path, HISTOGRAMS)
    damaged = damage(path.read_text())
    assert damaged != path.read_text()
    path.write_text(damaged)
    with pytest.raises(UserError, match=told) as caught:
        load_records(tmp_path)
    assert str(path) in str(caught.value)
    assert ";" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 1


def test_a_finished_record_without_histograms_is_damaged(record, tmp_path):
    save_record(record, tmp_path, HISTOGRAMS).with_suffix(".npz").unlink()
    with pytest.raises(UserError, match="histograms are missing"):
        load_records(tmp_path)


def test_no_records_is_not_an_error(tmp_path):
    assert load_records(tmp_path / "nothing") == {}


def test_infinite_numbers_are_refused_rather_than_written_as_broken_json(tmp_path):
    with pytest.raises(ValueError, match="JSON compliant"):
        write_json(tmp_path / "x.json", {"a": math.nan})
    assert list(tmp_path.iterdir()) == []


def test_a_failed_write_leaves_the_old_file_and_no_rest(tmp_path, monkeypatch):
    path = tmp_path / "x"
    write_bytes(path, b"old")

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_bytes(path, b"new")
    assert path.read_bytes() == b"old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["x"]


def test_a_kill_at_any_moment_leaves_a_whole_file(tmp_path):
    path = tmp_path / "x.json"
    program = (
        "import sys; from pathlib import Path; from benchmarks.atomic import write_json\n"
        "print('ready', flush=True)\n"
        "n = 0\n"
        "while True:\n"
        "    n += 1; write_json(Path(sys.argv[1]), {'n': n, 'filling': ['x' * 50] * 2000})\n"
    )
    for moment in (0.01, 0.023, 0.037, 0.051):
        process = subprocess.Popen([sys.executable, "-c", program, str(path)], stdout=subprocess.PIPE)
        process.stdout.readline()
        time.sleep(moment)
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
        if path.exists():
            assert len(json.loads(path.read_text())["filling"]) == 2000
    assert path.exists()
