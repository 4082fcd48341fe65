"""Where runs are executed. A launcher takes jobs and yields how each ended; it knows nothing of suites or records."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Protocol

ATTEMPT: Final = "--- attempt of "
"""How the line begins that a launcher writes into a log before a job."""


@dataclass(frozen=True)
class Job:
    """One process to execute.

    Args:
        key: Names the job.
        command: Program and arguments; `{threads}` in an argument becomes the number of CPU threads that the launcher grants.
        log: File that takes standard output and error.
        environment: Variables on top of the inherited ones.
    """

    key: str
    command: tuple[str, ...]
    log: Path
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Started:
    """A job began."""

    key: str


@dataclass(frozen=True)
class Ended:
    """A job ended.

    Args:
        key: Names the job.
        returncode: 0 done; negative: the signal that killed it.
        seconds: Wall time.
        timed_out: The launcher ended it because it took too long.
    """

    key: str
    returncode: int
    seconds: float
    timed_out: bool = False


class Launcher(Protocol):
    """Executes jobs. Ray and SLURM join by implementing this one method."""

    def execute(self, jobs: Sequence[Job]) -> Iterator[Started | Ended | None]:
        """Run all jobs, in order as far as slots allow.

        Closing the iterator, or an exception in the loop over it, ends what still runs.

        Yields:
            An event for each start and end; None now and then, so that the caller can refresh its display.
        """
        ...
