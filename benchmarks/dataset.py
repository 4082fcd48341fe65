"""Where the data of a suite lie, and what is in them: synthetic scenes are made once, contents are hashed once.

RUNS/data/synthetic-*/         synthetic scenes
RUNS/data/folds/NAME/foldN/    manifests and labels of folds, made by `datamodules.splits`
RUNS/data/audits/NAME.json     what `datamodules.audit` found
RUNS/data/fingerprints.json    hashes of files
"""

import csv
import hashlib
import json
import os
import posixpath
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from benchmarks.atomic import write_json
from benchmarks.spec import RunSpec
from benchmarks.suite import Suite
from datamodules.errors import UserError
from datamodules.scene import MANIFEST

DATA_SUFFIXES: Final = frozenset(
    {".tif", ".tiff", ".vrt", ".png", ".jpg", ".jpeg", ".img", ".h5", ".gpkg", ".geojson", ".shp", ".dbf", ".shx", ".prj", ".csv"}
)
"""Files that can reach a pixel or a label; notes and previews beside them do not make results stale."""

SHAPEFILE: Final = frozenset({".shp", ".dbf", ".shx", ".prj"})


def data_root(suite: Suite) -> Path | None:
    """The folder of `data.root` with its variables filled in; None for synthetic data.

    Raises:
        UserError: A variable is not set, or there is no such folder.
    """
    if suite.data.root is None:
        return None
    for name in re.findall(r"\$\{(\w+)\}", suite.data.root):
        if not os.environ.get(name):
            raise UserError(
                f"the environment variable {name} is not set",
                f"export {name}=FOLDER, or give --data.root",
                field="data.root",
                value=suite.data.root,
            )
    root = Path(os.path.expandvars(suite.data.root)).expanduser()
    if not root.is_dir():
        raise UserError("no such folder", "correct data.root of the suite", file=root, field="data.root", value=suite.data.root)
    return root


def synthetic_root(suite: Suite, runs: Path) -> Path:
    """Folder of the synthetic scenes of a suite, shared by all suites that ask for the same ones."""
    recipe = suite.data.synthesize
    assert recipe is not None
    return runs / "data" / f"synthetic-{recipe.scenes}x{recipe.size}-seed{recipe.seed}"


def existing_root(suite: Suite, runs: Path) -> Path | None:
    """The folder of the data if it is there already; nothing is made."""
    if suite.data.root is None:
        root = synthetic_root(suite, runs)
        return root if root.is_dir() else None
    return data_root(suite)


def provide(suite: Suite, runs: Path) -> Path:
    """The folder of the data; synthetic scenes are made if they are not there yet.

    Args:
        suite: From `load_suite`.
        runs: Working folder of all suites.
    """
    root = existing_root(suite, runs)
    if root is not None:
        return root
    recipe = suite.data.synthesize
    assert recipe is not None
    from datamodules.synthetic import synthesize  # noqa: PLC0415 - brings torch and rasterio, which a finished suite never needs

    root = synthetic_root(suite, runs)
    # Made under another name, so that an interrupted synthesis is never taken for a data set.
    unfinished = root.with_name(f".{root.name}.{os.getpid()}")
    try:
        synthesize(unfinished, scenes=recipe.scenes, seed=recipe.seed, size=recipe.size)
        unfinished.rename(root)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return root


def _files(root: Path) -> dict[str, Path]:
    """Data files by the name that counts in the fingerprint: those below the folder, and those elsewhere that its manifest names."""
    found: dict[str, Path] = {}
    for folder, folders, names in os.walk(root):
        # Hidden files and folders are caches.
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in names:
            if not name.startswith(".") and Path(name).suffix.lower() in DATA_SUFFIXES:
                path = Path(folder) / name
                found[path.relative_to(root).as_posix()] = path
    if (root / MANIFEST).is_file():
        with (root / MANIFEST).open(encoding="utf-8-sig", errors="replace", newline="") as stream:
            named = {row.get(column) or "" for row in csv.DictReader(stream) for column in ("image", "dem", "label")}
        for name in sorted({posixpath.normpath(name) for name in named if name} - found.keys()):
            # A shapefile is several files of one stem.
            suffixes = SHAPEFILE if name.endswith(".shp") else {Path(name).suffix}
            parts = [Path(name).with_suffix(suffix) for suffix in sorted(suffixes)]
            found |= {part.as_posix(): root / part for part in parts if (root / part).is_file()}
    return dict(sorted(found.items()))


def fingerprint(root: Path, cache: Path) -> str:
    """Hash of all data files of a folder: relative names and contents, so that it is the same on every machine.

    `datamodules.scene.fingerprint` is another thing: it tells scenes and splits apart whatever their files are called and samples large
    files, as checkpoints want it. This one is part of the keys of records, where no byte and no file may be missed.

    Contents are read once; later calls trust a file whose size and time of change are as before.

    Args:
        root: Folder of a data set.
        cache: JSON file that remembers the hash of each file.

    Returns:
        Sixteen hex digits.
    """
    try:
        known: dict[str, list[Any]] = json.loads(cache.read_text(encoding="utf-8"))
    except (FileNotFoundError, json.JSONDecodeError):
        known = {}  # only a cache: without it the files are read again
    files = _files(root)
    if not files:
        raise UserError("holds no raster or vector file", "give the folder that zoo-data describes", file=root, field="data.root")
    total, changed = hashlib.sha256(), False
    for name, path in files.items():
        status = path.stat()
        entry = known.get(str(path.resolve()))
        if entry is None or entry[:2] != [status.st_size, status.st_mtime_ns]:
            with path.open("rb") as file:
                entry = [status.st_size, status.st_mtime_ns, hashlib.file_digest(file, "sha256").hexdigest()]
            known[str(path.resolve())] = entry
            changed = True
        total.update(f"{name}\0{entry[2]}\n".encode())
    if changed:
        write_json(cache, known)
    return total.hexdigest()[:16]


def manifest_sha256(root: Path) -> str | None:
    """Hash of the manifest, which states scenes, labels and splits; None for a folder layout without one.

    Args:
        root: A manifest, or the folder of a data set.
    """
    manifest = root / MANIFEST if root.is_dir() else root
    return hashlib.sha256(manifest.read_bytes()).hexdigest() if manifest.is_file() else None


@dataclass(frozen=True)
class Portion:
    """What one run reads: a data set as it is, or one fold of it.

    Args:
        root: Folder of the data set.
        fingerprint: Of the data set.
        runs: Working folder of all suites.
        split: `suite.Split.settings`; None without folds.
        fold: From 0; None without folds.
    """

    root: Path
    fingerprint: str
    runs: Path
    split: Mapping[str, Any] | None = None
    fold: int | None = None

    @classmethod
    def of(cls, spec: RunSpec, root: Path, runs: Path) -> "Portion":
        """The portion that a run reads."""
        return cls(root, spec.data_fingerprint, runs, spec.split, spec.fold)

    @property
    def folds(self) -> Path:
        """Folder of all folds that these settings make of these data."""
        settings = hashlib.sha256(json.dumps(self.split, sort_keys=True).encode()).hexdigest()[:8]
        return self.runs / "data" / "folds" / f"{self.fingerprint}-{settings}"

    @property
    def folder(self) -> Path:
        """Folder of the scenes."""
        return self.root if self.fold is None else self.folds / f"fold{self.fold}"

    @property
    def audit(self) -> Path:
        """File of what the audit found."""
        name = self.fingerprint if self.fold is None else f"{self.folds.name}-fold{self.fold}"
        return self.runs / "data" / "audits" / f"{name}.json"
