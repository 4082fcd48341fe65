"""Attempts that a scheduler carries out on a machine of its choice, which shares the folders with this one."""

import time
from abc import ABC, abstractmethod

from benchmarks.launchers import Ended, Job, Started


class Remote(ABC):
    """One attempt that is queued, then executed by `process.attend` on some machine.

    Args:
        job: What is attempted.
    """

    def __init__(self, job: Job) -> None:
        self.job = job
        self._written, self._began = self._size(), 0.0

    def poll(self) -> Started | Ended | None:
        """See `Attempt`. It has begun when its log grows, which no scheduler needs to be asked for."""
        ended = self.outcome()
        if ended is None and not self._began and self._size() > self._written:
            self._began = time.monotonic()
            return Started(self.job.key)
        return ended

    @abstractmethod
    def outcome(self) -> Ended | None:
        """How it ended; None while it is queued or executed."""

    def lost(self, reason: str) -> Ended:
        """Its end, where the scheduler knows no result.

        Args:
            reason: What became of it.
        """
        return Ended(self.job.key, -9, time.monotonic() - self._began if self._began else 0.0, lost=reason)

    def _size(self) -> int:
        log = self.job.folder / self.job.log
        return log.stat().st_size if log.is_file() else 0
