"""What a run was made with: code version, packages, machine. Recorded, never hashed into a key."""

import datetime as dt
import hashlib
import importlib.metadata
import os
import platform
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

PACKAGES: Final = (
    "albumentations",
    "lightning",
    "numpy",
    "pyogrio",
    "rasterio",
    "scipy",
    "segmentation-models-pytorch",
    "timm",
    "torch",
    "torchmetrics",
)
"""Packages whose version can change a score."""
ENVIRONMENT: Final = "made_with.json"
"""What `capture` said when the run began, in its working folder."""
CODE: Final = tuple(f":(top,glob){package}/**/*.py" for package in ("datamodules", "zoo", "benchmarks"))


def _git(*arguments: str) -> str | None:
    program = shutil.which("git")
    if program is None:
        return None
    here = Path(__file__).parent
    finished = subprocess.run(  # noqa: S603 - fixed arguments
        [program, "-C", str(here), *arguments], capture_output=True, text=True, check=False
    )
    return finished.stdout if finished.returncode == 0 else None


def code_state() -> dict[str, Any]:
    """Git commit, whether code differs from it, and a hash of the differences; all None outside a repository.

    Only Python files of the three packages count: a README, a suite or a record cannot change what a specification scores.
    """
    commit, status = _git("rev-parse", "HEAD"), _git("status", "--porcelain", "--untracked-files=all", "--", *CODE)
    if commit is None or status is None:
        return {"commit": None, "dirty": None, "changes": None}
    changes = hashlib.sha256((_git("diff", "HEAD", "--", *CODE) or "").encode()).hexdigest()[:12] if status else None
    return {"commit": commit.strip(), "dirty": bool(status), "changes": changes}


def changed_since(git: Mapping[str, Any]) -> str:
    """How the code that would run now differs from the code that made a record; empty where it does not.

    Args:
        git: What `code_state` said then.
    """
    now = code_state()
    if (now["commit"], now["changes"]) == (git.get("commit"), git.get("changes")):
        return ""
    if git.get("commit") is None:
        return "made outside a repository"
    commit = str(git["commit"])
    if git.get("dirty"):
        return f"made with uncommitted changes to {commit[:12]}"
    names = _git("diff", "--name-only", commit, "--", *CODE)
    if names is None:
        return f"commit {commit[:12]} is not in this repository"
    others = _git("ls-files", "--others", "--exclude-standard", "--", *CODE) or ""
    count = len(set(names.split("\n") + others.split("\n")) - {""})
    return f"{count} files differ from {commit[:12]}" if count else ""


def versions() -> dict[str, str | None]:
    """Installed version of each package that can change a score."""
    return {package: _version(package) for package in PACKAGES}


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except FileNotFoundError:
        pass  # not Linux: the platform's own word has to do
    return platform.processor() or platform.machine()


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def capture(*, threads: int, gpu: str | None) -> dict[str, Any]:
    """Describe the machine and the software of this process.

    Args:
        threads: CPU threads of the run.
        gpu: Name of its GPU, if it used one.
    """
    return {
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "packages": versions(),
        "cpu": _processor(),
        "cores": os.cpu_count(),
        "threads": threads,
        "gpu": gpu,
        "git": code_state(),
        "date": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
    }
