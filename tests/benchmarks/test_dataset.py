"""The fingerprint of a data set: contents and relative names, nothing else; read once."""

import os
import sys
import types

import pytest
import yaml

from benchmarks.dataset import existing_root, fingerprint, manifest_sha256, provide
from benchmarks.suite import load_suite
from datamodules.errors import UserError


@pytest.fixture
def root(tmp_path):
    for name, content in (("train/images/a.tif", b"aa"), ("train/masks/a.tif", b"m"), ("scenes.csv", b"scene\n")):
        path = tmp_path / "set" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return tmp_path / "set"


def test_the_same_contents_elsewhere_have_the_same_fingerprint(root, tmp_path):
    first = fingerprint(root, tmp_path / "cache.json")
    moved = root.rename(tmp_path / "elsewhere")
    assert fingerprint(moved, tmp_path / "other.json") == first


@pytest.mark.parametrize(
    "change",
    [
        lambda root: (root / "train/images/a.tif").write_bytes(b"ab"),
        lambda root: (root / "train/images/a.tif").rename(root / "train/images/b.tif"),
        lambda root: (root / "train/images/b.tif").write_bytes(b""),
        lambda root: (root / "train/masks/a.tif").unlink(),
        lambda root: (root / "scenes.csv").write_bytes(b"scene,split\n"),
    ],
)
def test_what_changes_the_data_changes_it(root, tmp_path, change):
    cache = tmp_path / "cache.json"
    before = fingerprint(root, cache)
    change(root)
    assert fingerprint(root, cache) != before


@pytest.mark.parametrize("name", ["README.md", ".cache/a.tif", ".a.tif.tmp", "train/notes.txt"])
def test_notes_and_caches_do_not(root, tmp_path, name):
    before = fingerprint(root, tmp_path / "cache.json")
    (root / name).parent.mkdir(exist_ok=True)
    (root / name).write_bytes(b"x")
    assert fingerprint(root, tmp_path / "cache.json") == before


def test_contents_are_read_once_and_a_damaged_cache_is_no_harm(root, tmp_path):
    cache, path = tmp_path / "cache.json", root / "train/images/a.tif"
    before, status = fingerprint(root, cache), path.stat()
    path.write_bytes(b"zz")
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert fingerprint(root, cache) == before, "size and time are as before, so the file was not to be read"
    cache.write_text("{")
    assert fingerprint(root, cache) != before


def test_an_empty_folder_is_refused(tmp_path):
    with pytest.raises(UserError, match="holds no raster"):
        fingerprint(tmp_path, tmp_path / "cache.json")


def test_manifest(root, tmp_path):
    assert len(manifest_sha256(root)) == 64
    assert manifest_sha256(tmp_path) is None


def test_synthetic_scenes_are_made_once_and_an_interrupted_synthesis_is_not_taken_for_data(tmp_path, monkeypatch):
    content = {
        "name": "s",
        "data": {"name": "synthetic", "synthesize": {"scenes": 2, "seed": 3, "size": 64}},
        "budget": {"max_steps": 1, "validate_every": 1},
        "seeds": [0],
        "runs": [{"name": "r", "method": "m"}],
    }
    (tmp_path / "s.yaml").write_text(yaml.safe_dump(content))
    suite, calls = load_suite(str(tmp_path / "s.yaml")), []

    def synthesize(out, *, scenes, seed, size):
        calls.append((scenes, seed, size))
        out.mkdir(parents=True)
        (out / "a.tif").write_bytes(b"x")
        if len(calls) == 1:
            raise KeyboardInterrupt

    module = types.ModuleType("datamodules.synthetic")
    module.synthesize = synthesize
    monkeypatch.setitem(sys.modules, "datamodules.synthetic", module)
    with pytest.raises(KeyboardInterrupt):
        provide(suite, tmp_path / "runs")
    assert existing_root(suite, tmp_path / "runs") is None
    root = provide(suite, tmp_path / "runs")
    assert (root / "a.tif").is_file()
    assert provide(suite, tmp_path / "runs") == root
    assert calls == [(2, 3, 64)] * 2
    assert [path.name for path in root.parent.iterdir()] == [root.name]
