"""Runs on this machine: one subprocess a run, in slots of CPU cores or GPUs."""

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from benchmarks.launchers import ATTEMPT, Ended, Job, Started
from datamodules.errors import UserError

POLL_SECONDS: Final = 0.1
GRACE_SECONDS: Final = 10.0
"""What a process gets between SIGTERM and SIGKILL."""
THREAD_VARIABLES: Final = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS")


def visible_gpus(environment: Mapping[str, str] = os.environ) -> list[str]:
    """Ids of the GPUs that runs may use, as CUDA_VISIBLE_DEVICES names them."""
    import torch  # noqa: PLC0415 - seconds to import, and only a suite with something to run gets here

    count = torch.cuda.device_count()
    named = [name.strip() for name in environment.get("CUDA_VISIBLE_DEVICES", "").split(",") if name.strip()]
    return named[:count] if named else [str(index) for index in range(count)]


def usable_cores() -> int:
    """Cores that this process may use; containers often grant fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@dataclass
class _Running:
    job: Job
    slot: int
    process: subprocess.Popen[bytes]
    began: float
    timed_out: bool = False


class LocalLauncher:
    """Device slots on one machine.

    Args:
        max_parallel: Runs at a time; default one a GPU group, or one a core without GPUs.
        devices_per_run: GPUs (processes) of each run.
        gpus: Ids of the usable GPUs; none means CPU.
        cores: CPU cores to share.
        timeout_seconds: A run that takes longer is ended and counts as failed.
    """

    def __init__(
        self,
        *,
        max_parallel: int | None = None,
        devices_per_run: int = 1,
        gpus: Sequence[str] = (),
        cores: int | None = None,
        timeout_seconds: float | None = None,
    ) -> None:
        cores = cores or usable_cores()
        if gpus and devices_per_run > len(gpus):
            raise UserError(f"there are {len(gpus)} GPUs", "ask for fewer", field="--devices-per-run", value=devices_per_run, exit_code=2)
        groups = len(gpus) // devices_per_run if gpus else max(cores // devices_per_run, 1)
        if max_parallel is not None and (max_parallel < 1 or (gpus and max_parallel > groups)):
            raise UserError(f"must be 1 to {groups} on this machine", field="--max-parallel", value=max_parallel, exit_code=2)
        self.num_slots = max_parallel or groups
        self.threads = max(cores // self.num_slots // devices_per_run, 1)
        self.timeout_seconds = timeout_seconds
        self.uses_gpus = bool(gpus)
        self._gpus = (
            [",".join(gpus[slot * devices_per_run : (slot + 1) * devices_per_run]) for slot in range(self.num_slots)] if gpus else []
        )

    def environment(self, slot: int) -> dict[str, str]:
        """Variables of a slot: its devices and its share of threads."""
        variables = dict.fromkeys(THREAD_VARIABLES, str(self.threads))
        # cuBLAS is deterministic only with a fixed workspace.
        variables["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"
        variables["PYTHONUNBUFFERED"] = "1"
        if self._gpus:
            variables["CUDA_VISIBLE_DEVICES"] = self._gpus[slot]
        return variables

    def granted(self, command: Sequence[str]) -> list[str]:
        """A job's command with its number of threads filled in."""
        return [argument.replace("{threads}", str(self.threads)) for argument in command]

    def execute(self, jobs: Sequence[Job]) -> Iterator[Started | Ended | None]:
        """Run all jobs; see `Launcher`."""
        waiting, running = list(jobs), dict[int, _Running]()
        try:
            while waiting or running:
                for slot in range(self.num_slots):
                    if waiting and slot not in running:
                        job = waiting.pop(0)
                        running[slot] = self._start(job, slot)
                        yield Started(job.key)
                for entry in list(running.values()):
                    ended = self._poll(entry)
                    if ended is not None:
                        del running[entry.slot]
                        yield ended
                if running:
                    yield None
                    time.sleep(POLL_SECONDS)
        finally:
            end_all([entry.process for entry in running.values()])

    def _start(self, job: Job, slot: int) -> _Running:
        job.log.parent.mkdir(parents=True, exist_ok=True)
        # Appended: another runner's process may be at work on this run and its log.
        with job.log.open("ab") as log:
            log.write(f"{ATTEMPT}{datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC\n".encode())
            log.flush()
            # A session of its own: Ctrl-C reaches the runner alone, which then ends the whole group, loader workers included.
            process = subprocess.Popen(  # noqa: S603 - our own command
                self.granted(job.command),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, **self.environment(slot), **job.environment},
                start_new_session=True,
            )
        return _Running(job, slot, process, time.monotonic())

    def _poll(self, entry: _Running) -> Ended | None:
        seconds = time.monotonic() - entry.began
        if entry.process.poll() is None and self.timeout_seconds is not None and seconds > self.timeout_seconds:
            entry.timed_out = True
            end_all([entry.process])
        code = entry.process.poll()
        if code is None:
            return None
        _signal_group(entry.process.pid, signal.SIGKILL)  # workers that outlived their parent
        return Ended(entry.job.key, code, seconds, entry.timed_out)


def _signal_group(group: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):  # all of its processes have ended
        os.killpg(group, number)


def end_all(processes: Sequence["subprocess.Popen[bytes]"]) -> None:
    """End processes with their groups: SIGTERM, some grace, SIGKILL."""
    for process in processes:
        _signal_group(process.pid, signal.SIGTERM)
    deadline = time.monotonic() + GRACE_SECONDS
    for process in processes:
        with contextlib.suppress(subprocess.TimeoutExpired):  # killed below
            process.wait(max(deadline - time.monotonic(), 0))
        _signal_group(process.pid, signal.SIGKILL)
        process.wait()
