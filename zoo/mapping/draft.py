"""Rows that are final, kept beside the map until it is whole, so that an interrupted run goes on where it stopped.

A draft is a folder `.NAME.partial` with one raw file a layer, to which rows are appended, and a journal. The first line of the journal is the
fingerprint of all that decides the map; each further line is a number of finished rows, written after their pixels are on the disk. A last
line that a kill cut short is not believed.
"""

import os
import shutil
from collections.abc import Mapping
from io import RawIOBase
from pathlib import Path
from typing import Any, Final, Self

import numpy as np
import numpy.typing as npt

from datamodules.errors import UserError

Array = npt.NDArray[Any]
JOURNAL: Final = "journal"
_LOCK: Final = "lock"


class Draft:
    """An unfinished map.

    Args:
        path: Where the map will be; the draft lies beside it.
        fingerprint: Of inputs, checkpoints and options.
        row_bytes: Bytes a row of each layer, by name.

    Attributes:
        rows: Rows that are finished.
        outdated: Whether a draft of other inputs was there, which is thrown away.

    Raises:
        UserError: Another process is at work on it.
    """

    def __init__(self, path: Path, fingerprint: str, row_bytes: Mapping[str, int]) -> None:
        self.folder = folder_of(path)
        self._row_bytes = dict(row_bytes)
        self.folder.mkdir(parents=True, exist_ok=True)
        self._lock = _locked(self.folder / _LOCK, path)
        known = _read_journal(self.folder / JOURNAL)
        self.outdated = known is not None and known[0] != fingerprint
        if known is None or self.outdated:
            self._clear()
            (self.folder / JOURNAL).write_text(fingerprint + "\n", encoding="utf-8")
        self.rows = 0 if known is None or self.outdated else min(known[1], *(self._rows_of(name) for name in row_bytes))
        self._files = {name: self._opened(name) for name in row_bytes}
        self._journal = (self.folder / JOURNAL).open("ab", buffering=0)

    def file(self, name: str) -> Path:
        """The raw file of a layer: its rows one after the other, without a header."""
        return self.folder / f"{name}.raw"

    def append(self, rows: Mapping[str, Array]) -> None:
        """Add finished rows.

        Args:
            rows: (rows, width) for each layer.

        Raises:
            UserError: The disk is full or gone.
        """
        try:
            for name, values in rows.items():
                _write(self._files[name], np.ascontiguousarray(values).tobytes())
            done = self.rows + len(next(iter(rows.values())))
            _write(self._journal, f"{done}\n".encode())
        except OSError as error:
            raise UserError(
                f"cannot be written ({error.strerror})", "mend that and call again: finished rows are kept", file=self.folder, field="out"
            ) from error
        self.rows = done

    def discard(self) -> None:
        """Remove the draft, once the map is whole."""
        self.close()
        shutil.rmtree(self.folder)

    def close(self) -> None:
        """Close the files; the draft stays."""
        for file in (*self._files.values(), self._journal, self._lock):
            file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _rows_of(self, name: str) -> int:
        """Whole rows that a raw file holds."""
        path = self.file(name)
        return path.stat().st_size // self._row_bytes[name] if path.exists() else 0

    def _opened(self, name: str) -> RawIOBase:
        """A raw file, cut to the finished rows and ready for the next."""
        self.file(name).touch()
        file = self.file(name).open("r+b", buffering=0)
        file.truncate(self.rows * self._row_bytes[name])
        file.seek(0, os.SEEK_END)
        return file

    def _clear(self) -> None:
        for path in self.folder.iterdir():
            if path.name != _LOCK:
                path.unlink()


def folder_of(path: Path) -> Path:
    """The folder of the draft of a map."""
    return path.with_name(f".{path.name}.partial")


def _write(file: RawIOBase, content: bytes) -> None:
    """Append bytes and wait until they are on the disk."""
    left = memoryview(content)
    while left:
        left = left[file.write(left) or 0 :]
    os.fsync(file.fileno())


def _read_journal(path: Path) -> tuple[str, int] | None:
    """Fingerprint and finished rows; None without a whole first line. A last line that was cut short is cut off."""
    if not path.exists():
        return None
    with path.open("r+b") as file:
        whole, line_break, _ = file.read().rpartition(b"\n")
        file.truncate(len(whole + line_break))
    if not line_break:
        return None
    lines = whole.decode().split("\n")
    return lines[0], int(lines[-1]) if len(lines) > 1 else 0


def _locked(path: Path, target: Path) -> RawIOBase:
    """A file that only one process holds; the system frees it when the process ends, however it ends."""
    file = path.open("wb", buffering=0)
    try:
        import fcntl  # noqa: PLC0415 - not there on every system
    except ImportError:  # Windows has no such lock, and keeps a file that is open from being removed
        return file
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        file.close()
        raise UserError("another process is writing this map", "wait for it, or choose another name", file=target, field="out") from error
    return file
