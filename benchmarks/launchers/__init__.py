"""Where runs are executed. A launcher takes jobs and yields how each ended; it knows nothing of suites or records.

What is alike for all of them stands here: the loop over jobs, the retries and their reasons, the timeout. Each launcher says how an attempt
at a job begins (`submit`), how far it is (`Attempt.poll`), and how attempts are ended (`end`).
"""

import math
import time
from abc import ABC, abstractmethod
from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from signal import Signals
from typing import ClassVar, Final, Protocol

ATTEMPT: Final = "--- attempt of "
"""How the line begins that a launcher writes into a log before a job."""
THREAD_VARIABLES: Final = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS")


@dataclass(frozen=True)
class Job:
    """One process to execute.

    Args:
        key: Names the job.
        command: Program and arguments; `{threads}` in an argument becomes the number of CPU threads that the launcher grants.
        log: File that takes standard output and error.
        environment: Variables on top of the inherited ones.
        folder: Where it is executed; relative paths of command and log begin there.
    """

    key: str
    command: tuple[str, ...]
    log: Path
    environment: Mapping[str, str] = field(default_factory=dict)
    folder: Path = field(default_factory=Path.cwd)


@dataclass(frozen=True)
class Share:
    """What each run gets.

    Args:
        devices: GPUs, or processes on CPU cores, on each of its nodes.
        threads: CPU threads of each of its processes.
        uses_gpus: Whether the devices are GPUs.
        num_nodes: Machines.
        timeout_seconds: A run that takes longer is ended and counts as failed.
    """

    devices: int = 1
    threads: int = 1
    uses_gpus: bool = False
    num_nodes: int = 1
    timeout_seconds: float | None = None

    def environment(self) -> dict[str, str]:
        """Variables of every process of a run."""
        # cuBLAS is deterministic only with a fixed workspace.
        return {
            **dict.fromkeys(THREAD_VARIABLES, str(self.threads)),
            "CUBLAS_WORKSPACE_CONFIG": ":4096:8",
            "PYTHONUNBUFFERED": "1",
        }

    def granted(self, command: Sequence[str]) -> list[str]:
        """A job's command with its number of threads filled in."""
        return [argument.replace("{threads}", str(self.threads)) for argument in command]


@dataclass(frozen=True)
class Started:
    """A job began.

    Args:
        key: Names the job.
    """

    key: str


@dataclass(frozen=True)
class Again:
    """A job ended through no fault of its own, and is put back to be tried again.

    Args:
        key: Names the job.
        reason: What ended it.
        attempt: Number of the attempt that follows, from 2.
        attempts: How many there may be.
    """

    key: str
    reason: str
    attempt: int
    attempts: int


@dataclass(frozen=True)
class Ended:
    """A job ended.

    Args:
        key: Names the job.
        returncode: 0 done; negative: the signal that killed it.
        seconds: Wall time.
        timed_out: The launcher ended it because it took too long.
        lost: Why nothing is known of its process: its worker or node is gone, and `returncode` is that of SIGKILL. Else empty.
        attempts: How many there were.
    """

    key: str
    returncode: int
    seconds: float
    timed_out: bool = False
    lost: str = ""
    attempts: int = 1

    @property
    def is_killed(self) -> bool:
        """Whether something outside ended it, so that it may well succeed if it is tried again from its last checkpoint."""
        return self.returncode < 0 and not self.timed_out

    @property
    def reason(self) -> str:
        """Why it ended, in words."""
        if self.timed_out:
            told = f"ran out of time after {self.seconds:.0f} s"
        elif self.returncode < 0:
            told = self.lost or f"killed by {Signals(-self.returncode).name}"
        else:
            told = f"exit code {self.returncode}" if self.returncode else "ended without a record"
        return f"{told}, in the last of {self.attempts} attempts" if self.attempts > 1 else told


class Attempt(Protocol):
    """One attempt at a job, under way."""

    @property
    def job(self) -> Job:
        """What is attempted."""
        ...

    def poll(self) -> Started | Ended | None:
        """News since the last call; after `Ended` there are none."""
        ...


class Launcher(ABC):
    """Executes jobs.

    Args:
        share: What each of them gets.
        at_once: How many are submitted at a time; more wait here.
        retries: A job that is killed, or whose worker or node is lost, is tried again so many times. One that fails by itself is not:
            the same seed would fail again.
    """

    poll_seconds: ClassVar[float] = 0.1

    def __init__(self, share: Share, *, at_once: float = math.inf, retries: int = 0) -> None:
        self.share, self.at_once, self.retries = share, at_once, retries

    @abstractmethod
    def submit(self, jobs: Sequence[Job]) -> Iterator[Attempt]:
        """Begin an attempt at each job, or hand it to a scheduler that will."""

    @abstractmethod
    def end(self, attempts: Sequence[Attempt]) -> None:
        """End attempts with all their processes, so that each job can go on from its last checkpoint later."""

    def execute(self, jobs: Sequence[Job]) -> Iterator[Started | Again | Ended | None]:
        """Run all jobs, in order as far as there is room.

        Closing the iterator, or an exception in the loop over it, ends what still runs.

        Yields:
            An event for each start, retry and end; None now and then, so that the caller can refresh its display.
        """
        waiting, running, tried = deque(jobs), list[Attempt](), Counter[str]()
        try:
            while waiting or running:
                room = min(self.at_once - len(running), len(waiting))
                batch = [waiting.popleft() for _ in range(int(room))]
                if batch:
                    for attempt in self.submit(batch):
                        running.append(attempt)  # one by one: an interruption ends those that have begun
                        tried[attempt.job.key] += 1
                for attempt, event in self._news(running):
                    if isinstance(event, Ended) and event.is_killed and tried[event.key] <= self.retries:
                        waiting.append(attempt.job)
                        yield Again(event.key, event.reason, tried[event.key] + 1, self.retries + 1)
                    else:
                        yield replace(event, attempts=tried[event.key]) if isinstance(event, Ended) else event
                if running:
                    yield None
                    time.sleep(self.poll_seconds)
        finally:
            self.end(running)

    @staticmethod
    def _news(running: list[Attempt]) -> Iterator[tuple[Attempt, Started | Ended]]:
        """What happened, while attempts that ended leave the list."""
        for attempt in list(running):
            event = attempt.poll()
            if isinstance(event, Ended):
                running.remove(attempt)
            if event is not None:
                yield attempt, event
