"""Who does a run: a lease in its working folder, that one process at a time holds, on whatever machine sees the folder.

    RUNS/SUITE/KEY/lease.N.json    host, pid; the highest N counts, and its time of change is a heartbeat

A lease is made by a creation that fails where the file exists, which every shared file system does at one go. It ends when it is released,
when its process is gone, as seen on the same host, or when its heartbeat is older than `EXPIRY_SECONDS` by the clock of the file system.
Who finds lease N ended makes lease N + 1: of several that try, one succeeds. The highest lease is never removed, so that numbers never
begin anew, and whoever judged an old state sees a higher lease than his own and withdraws.
"""

import contextlib
import json
import os
import re
import socket
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from benchmarks.atomic import write_json

HEARTBEAT_SECONDS: Final = 15.0
EXPIRY_SECONDS: Final = 120.0
ELSEWHERE: Final = 75
"""Exit code of a process that finds its run leased by another one: EX_TEMPFAIL of sysexits.h."""
_NAME: Final = re.compile(r"lease\.(\d+)\.json")


@dataclass
class Lease:
    """Held until `release`, or the end of the process; use it as a context manager.

    Args:
        path: Its file.
        number: N.
    """

    path: Path
    number: int

    def __post_init__(self) -> None:
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="lease", daemon=True)
        self._thread.start()

    def _beat(self) -> None:
        while not self._ended.wait(HEARTBEAT_SECONDS):
            # A file system that is away for a moment must not end a training; a lease that somebody removed is not made anew.
            with contextlib.suppress(OSError):
                os.utime(self.path)

    def release(self) -> None:
        """Let others have the run."""
        self._ended.set()
        self._thread.join()
        # On a full disk the run must not fail at its end: the lease ends with the process, or with its last heartbeat.
        with contextlib.suppress(OSError):
            write_json(self.path, {"released": True})

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.release()


def take(work: Path) -> Lease | None:
    """Lease a run.

    Args:
        work: Its working folder; made if missing.

    Returns:
        None where another process holds it.
    """
    work.mkdir(parents=True, exist_ok=True)
    leases = sorted(_leases(work))
    if leases and _holder(leases[-1][1]):
        return None
    # Counted from what was judged: who made a lease in the meantime has this number.
    number = leases[-1][0] + 1 if leases else 1
    path = work / f"lease.{number}.json"
    try:
        handle = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
    except FileExistsError:
        return None
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        json.dump({"host": socket.gethostname(), "pid": os.getpid()}, file)
    others = [(other, file) for other, file in _leases(work) if other != number]
    if any(other > number for other, _ in others):
        path.unlink()  # what was judged was old
        return None
    for _, ended in others:
        ended.unlink(missing_ok=True)
    return Lease(path, number)


def holder(work: Path) -> str:
    """Which process holds the lease of a run, in words; empty where none does.

    Args:
        work: Working folder of the run.
    """
    leases = sorted(_leases(work))
    return _holder(leases[-1][1]) if leases else ""


def _holder(path: Path) -> str:
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
        if "released" in told:
            return ""
        host, pid = str(told["host"]), int(told["pid"])
    except FileNotFoundError:
        return ""  # ended, and cleared away by a later one in this moment
    except (json.JSONDecodeError, KeyError):
        return "" if _age(path) > EXPIRY_SECONDS else "a process that is just beginning"
    if host != socket.gethostname():
        return "" if _age(path) > EXPIRY_SECONDS else f"process {pid} on {host}"
    return f"process {pid}" if _is_alive(pid, path.parent.name) else ""


def _leases(work: Path) -> Iterator[tuple[int, Path]]:
    for path in work.glob("lease.*.json"):
        if match := _NAME.fullmatch(path.name):
            yield int(match[1]), path


def _age(path: Path) -> float:
    """Seconds since the last heartbeat, by the clock that stamps files; 0 where the lease is gone, so that it is looked for again."""
    with tempfile.NamedTemporaryFile(prefix=".clock-", dir=path.parent) as clock:
        try:
            return Path(clock.name).stat().st_mtime - path.stat().st_mtime
        except FileNotFoundError:
            return 0.0


def _is_alive(pid: int, run: str) -> bool:
    """Whether a process of this host lives and does this run: the number of a dead one may belong to another by now."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass  # somebody else's, but alive
    process = Path(f"/proc/{pid}")
    try:
        if (process / "stat").read_text(encoding="utf-8").rsplit(")", 1)[1].split()[0] == "Z":
            return False  # ended, and not yet collected by its parent
        return run.encode() in (process / "cmdline").read_bytes()
    except FileNotFoundError:
        return not Path("/proc/self").exists()  # ended in this moment, unless this system has no such folder
