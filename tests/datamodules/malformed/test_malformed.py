"""Malformed input gives a clear error or a stated repair, never a traceback, never a half-written file."""

import os
import shutil
import stat
import tempfile
from pathlib import Path

import pytest

from datamodules import cli
from datamodules.batch import validate_batch
from datamodules.errors import UserError, exit_with
from datamodules.landslide import LandslideDataModule
from tests.datamodules.malformed.healthy import build
from tests.datamodules.malformed.manifests import MANIFESTS
from tests.datamodules.malformed.outlines import OUTLINES
from tests.datamodules.malformed.rasters import ELEVATIONS, IMAGES, LABELS, PLACES

CASES = MANIFESTS | IMAGES | PLACES | ELEVATIONS | LABELS | OUTLINES
NOTHING_TO_TRAIN_ON = ("0 and 255 in all", "all ignored")
"""`check` warns of what may be meant; training has no landslide, or no labelled pixel, to learn from."""
NO_MATTER_OF_TRAINING = ("another planet",)
"""Distances between splits cannot be told, but each scene can be read."""

pytestmark = pytest.mark.filterwarnings("ignore:.*'crs' was not provided:UserWarning", "ignore::rasterio.errors.NotGeoreferencedWarning")


@pytest.fixture(scope="module")
def healthy(tmp_path_factory):
    return build(tmp_path_factory.mktemp("healthy"))


@pytest.fixture
def root(healthy, tmp_path):
    return Path(shutil.copytree(healthy, tmp_path / "data"))


def told(capsys, monkeypatch, *arguments):
    """Exit code and all that a command prints, unbroken."""
    monkeypatch.setenv("COLUMNS", "4000")
    with pytest.raises(SystemExit) as left:
        exit_with(cli.main, ["check", *arguments])
    printed = capsys.readouterr()
    assert "Traceback" not in printed.out + printed.err
    return left.value.code, printed.out, printed.err


def contents(root):
    """All files of a folder and when they were written."""
    return {path: path.lstat().st_mtime_ns for path in root.rglob("*")}


def first_batch(root):
    data = LandslideDataModule(str(root), tile_size=32, batch_size=2, seed=0)
    data.setup()
    return next(iter(data.train_dataloader()))


@pytest.mark.parametrize("case", [case if case in MANIFESTS else pytest.param(case, marks=pytest.mark.slow) for case in CASES])
def test_malformed(case, root, capsys, monkeypatch):
    spoil, code, words = CASES[case]
    spoil(root)
    before = contents(root.parent)
    given, out, err = told(capsys, monkeypatch, str(root), "--full")
    assert given == code, out + err
    assert err.count("\n") <= 1, err
    for word in words:
        assert word in out + err
    if not words:
        assert "Findings" not in out
        assert not err
    if code and case in IMAGES | PLACES:  # what a check finds out that does not read each file to its end
        assert told(capsys, monkeypatch, str(root))[0] == 1
    if case in NOTHING_TO_TRAIN_ON or (code and case not in NO_MATTER_OF_TRAINING):
        with pytest.raises(UserError):
            first_batch(root)
    else:
        validate_batch(first_batch(root))
    assert contents(root.parent) == before


@pytest.mark.parametrize("locked", ["scenes.csv", "s0/image.tif", "s0", "."])
def test_what_may_not_be_read(locked, healthy, capsys, monkeypatch):
    """As a user without the right to read; root, who may read all, becomes one for a moment."""
    assert told(capsys, monkeypatch, str(healthy))[0] == 0  # modules are loaded while this is allowed
    with tempfile.TemporaryDirectory() as folder:
        root = Path(shutil.copytree(healthy, Path(folder) / "data"))
        Path(folder).chmod(0o755)
        for path in (root, *root.rglob("*")):
            path.chmod(0o755)
        (root / locked).chmod(0)
        former = os.geteuid()
        if former == 0:
            os.seteuid(65534)
        try:
            code, out, err = told(capsys, monkeypatch, str(root))
        finally:
            os.seteuid(former)
        (root / locked).chmod(stat.S_IRWXU)
    assert code == 1
    assert not out
    assert "permission denied" in err
    assert str(root if locked == "." else root / "scenes.csv") in err or str(root / locked) in err
    assert ";" in err
