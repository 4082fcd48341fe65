"""Where the data of a suite lie, and what is in them: synthetic scenes are made once, contents are hashed once."""

import hashlib
import json
import os
import re
import shutil
from pathlib import Path
from typing import Any, Final

from benchmarks.atomic import write_json
from benchmarks.suite import Suite
from datamodules.errors import UserError

DATA_SUFFIXES: Final = frozenset(
    {".tif", ".tiff", ".vrt", ".png", ".jpg", ".jpeg", ".img", ".h5", ".gpkg", ".geojson", ".shp", ".dbf", ".shx", ".prj", ".csv"}
)
"""Files that can reach a pixel or a label; notes and previews beside them do not make results stale."""


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


def _files(root: Path) -> list[Path]:
    # Hidden files and folders are caches.
    found = []
    for folder, folders, names in os.walk(root):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        found += [Path(folder) / name for name in names if not name.startswith(".") and Path(name).suffix.lower() in DATA_SUFFIXES]
    return sorted(found, key=lambda path: path.relative_to(root).as_posix())


def fingerprint(root: Path, cache: Path) -> str:
    """Hash of all data files under a folder: relative names and contents, so that it is the same on every machine.

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
    for path in files:
        status = path.stat()
        entry = known.get(str(path.resolve()))
        if entry is None or entry[:2] != [status.st_size, status.st_mtime_ns]:
            with path.open("rb") as file:
                entry = [status.st_size, status.st_mtime_ns, hashlib.file_digest(file, "sha256").hexdigest()]
            known[str(path.resolve())] = entry
            changed = True
        total.update(f"{path.relative_to(root).as_posix()}\0{entry[2]}\n".encode())
    if changed:
        write_json(cache, known)
    return total.hexdigest()[:16]


def manifest_sha256(root: Path) -> str | None:
    """Hash of `scenes.csv`, which states scenes, labels and splits; None for a folder layout without one."""
    manifest = root / "scenes.csv"
    return hashlib.sha256(manifest.read_bytes()).hexdigest() if manifest.is_file() else None
