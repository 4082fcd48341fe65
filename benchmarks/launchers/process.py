"""The process of one job on the machine where it is executed: started with its log, watched, ended with all that it started."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from benchmarks.launchers import ATTEMPT, Ended, Job, Share
from benchmarks.launchers.nursery import Child, Nursery

POLL_SECONDS: Final = 0.1
GRACE_SECONDS: Final = 10.0
"""What a process gets between SIGTERM and SIGKILL."""
GUARD: Final = Path(__file__).with_name("guard.py")


def inherited(environment: Mapping[str, str] = os.environ) -> dict[str, str]:
    """The variables that a run inherits, without those by which it would take itself for a task of the SLURM job around it.

    Args:
        environment: Of this process.
    """
    return {name: value for name, value in environment.items() if not name.startswith("SLURM_")}


class Process:
    """A job's process, with those that it starts.

    Args:
        job: What to execute.
        share: What it gets.
        environment: All of its variables but those of job and share.
        announce: Write a line into the log that tells attempts apart.
        group: Process group of this session that it joins; None: a session of its own, so that Ctrl-C reaches the runner alone, which then
            ends the whole group, loader workers included.
        nursery: Forks the process, which makes a session of its own needless; None: it is started by itself.
    """

    def __init__(
        self,
        job: Job,
        share: Share,
        environment: Mapping[str, str],
        *,
        announce: bool = True,
        group: int | None = None,
        nursery: Nursery | None = None,
    ) -> None:
        self.job = job
        self._timeout_seconds, self._timed_out = share.timeout_seconds, False
        log_path = job.folder / job.log
        log_path.parent.mkdir(parents=True, exist_ok=True)
        # Appended: another runner's process may be at work on this run and its log.
        with log_path.open("ab") as log:
            if announce:
                log.write(f"{ATTEMPT}{datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC\n".encode())
                log.flush()
            command, variables = share.granted(job.command), {**environment, **share.environment(), **job.environment}
            self._process: Child = (
                nursery.start(command, environment=variables, folder=job.folder, output=job.log)
                if nursery is not None
                else subprocess.Popen(  # noqa: S603 - our own command
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    cwd=job.folder,
                    env=variables,
                    start_new_session=group is None,
                    process_group=group,
                )
            )
        self._group = self._process.pid if group is None else group
        self._began = time.monotonic()

    def poll(self) -> Ended | None:
        """How it ended; None while it runs."""
        seconds = time.monotonic() - self._began
        if self._process.poll() is None and self._timeout_seconds is not None and seconds > self._timeout_seconds:
            self._timed_out = True
            end_all([self])
        code = self._process.poll()
        if code is None:
            return None
        self.signal(signal.SIGKILL)  # workers that outlived their parent
        return Ended(self.job.key, code, seconds, self._timed_out)

    def signal(self, number: signal.Signals) -> None:
        """Signal the process and all of its group."""
        with contextlib.suppress(ProcessLookupError):  # all of its processes have ended
            os.killpg(self._group, number)

    def wait(self, seconds: float | None = None) -> None:
        """Wait for its end, so many seconds at most."""
        with contextlib.suppress(subprocess.TimeoutExpired):  # the caller kills it
            self._process.wait(seconds)


def end_all(processes: Sequence[Process]) -> None:
    """End processes with their groups: SIGTERM, some grace, SIGKILL."""
    for process in processes:
        process.signal(signal.SIGTERM)
    deadline = time.monotonic() + GRACE_SECONDS
    for process in processes:
        process.wait(max(deadline - time.monotonic(), 0))
        process.signal(signal.SIGKILL)
        process.wait()


def attend(job: Job, share: Share, environment: Mapping[str, str], *, announce: bool = True) -> Ended:
    """Execute a job and wait for its end: what the worker of a scheduler does, on whatever machine.

    The job never outlives this process, even if that is killed: its devices are given to others then.

    Args:
        job: What to execute.
        share: What it gets.
        environment: As in `Process`.
        announce: As in `Process`.
    """
    command, process = [sys.executable, "-I", "-S", str(GUARD)], None
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as guard:  # noqa: S603 - our own command
        assert guard.stdout is not None
        # The group exists before the job does, so that an interruption at any moment knows what to end.
        group = int(guard.stdout.readline())
        guard.wait()  # the leader that it has forked stays; itself would be a zombie for as long as the job works
        try:
            process = Process(job, share, environment, announce=announce, group=group)
            while (ended := process.poll()) is None:
                time.sleep(POLL_SECONDS)
            return ended
        finally:
            end_all([process] if process else [])
            with contextlib.suppress(ProcessLookupError):
                os.killpg(group, signal.SIGKILL)
