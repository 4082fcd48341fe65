"""Runs on this machine: one process a run, in slots of CPU cores or GPUs."""

import os
from collections.abc import Iterator, Mapping, Sequence

from benchmarks.launchers import Attempt, Ended, Job, Launcher, Share, Started
from benchmarks.launchers.gpus import COUNTED
from benchmarks.launchers.nursery import Nursery
from benchmarks.launchers.process import Process, end_all, inherited
from datamodules.errors import UserError


def visible_gpus(nursery: Nursery, environment: Mapping[str, str] = os.environ) -> list[str]:
    """Ids of the GPUs that runs may use, as CUDA_VISIBLE_DEVICES names them.

    Args:
        nursery: Forks the process that counts them, since the runner does without torch.
        environment: Of this process.
    """
    code, said = nursery.ask("benchmarks.launchers.gpus")
    told = [line.removeprefix(COUNTED) for line in said.splitlines() if line.startswith(COUNTED)]
    if code or not told:
        raise UserError(f"the GPUs cannot be counted: {(said.strip().splitlines() or ['no word why'])[-1]}")
    count = int(told[0])
    named = [name.strip() for name in environment.get("CUDA_VISIBLE_DEVICES", "").split(",") if name.strip()]
    return named[:count] if named else [str(index) for index in range(count)]


def usable_cores() -> int:
    """Cores that this process may use; containers often grant fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class _InSlot:
    """A process in a slot, which it gives back at its end."""

    def __init__(self, process: Process, slot: int, free: list[int]) -> None:
        self.process, self.job = process, process.job
        self._slot, self._free, self._told = slot, free, False

    def poll(self) -> Started | Ended | None:
        if not self._told:
            self._told = True
            return Started(self.job.key)
        ended = self.process.poll()
        if ended is not None:
            self._free.append(self._slot)
        return ended


class LocalLauncher(Launcher):
    """Device slots on one machine.

    Args:
        max_parallel: Runs at a time; default one a GPU group, or one a core without GPUs.
        devices_per_run: GPUs (processes) of each run.
        gpus: Ids of the usable GPUs; none means CPU.
        cores: CPU cores to share.
        threads: Of each process; default an equal share of the cores.
        timeout_seconds: A run that takes longer is ended and counts as failed.
        retries: As in `Launcher`.
        nursery: Forks the processes; None: each is started by itself.
    """

    def __init__(
        self,
        *,
        max_parallel: int | None = None,
        devices_per_run: int = 1,
        gpus: Sequence[str] = (),
        cores: int | None = None,
        threads: int | None = None,
        timeout_seconds: float | None = None,
        retries: int = 0,
        nursery: Nursery | None = None,
    ) -> None:
        cores = cores or usable_cores()
        if gpus and devices_per_run > len(gpus):
            raise UserError(f"there are {len(gpus)} GPUs", "ask for fewer", field="--devices-per-run", value=devices_per_run, exit_code=2)
        groups = len(gpus) // devices_per_run if gpus else max(cores // devices_per_run, 1)
        if max_parallel is not None and (max_parallel < 1 or (gpus and max_parallel > groups)):
            raise UserError(f"must be 1 to {groups} on this machine", field="--max-parallel", value=max_parallel, exit_code=2)
        self.num_slots = max_parallel or groups
        share = Share(
            devices=devices_per_run,
            threads=threads or max(cores // self.num_slots // devices_per_run, 1),
            uses_gpus=bool(gpus),
            timeout_seconds=timeout_seconds,
        )
        super().__init__(share, at_once=self.num_slots, retries=retries)
        self._free, self._nursery = list(range(self.num_slots)), nursery
        self._gpus = (
            [",".join(gpus[slot * devices_per_run : (slot + 1) * devices_per_run]) for slot in range(self.num_slots)] if gpus else []
        )

    def environment(self, slot: int) -> dict[str, str]:
        """Variables of a slot: those that are inherited, and its devices."""
        return {**inherited(), "CUDA_VISIBLE_DEVICES": self._gpus[slot]} if self._gpus else inherited()

    def submit(self, jobs: Sequence[Job]) -> Iterator[Attempt]:
        """Start a process in a free slot for each."""
        for job in jobs:
            slot = self._free.pop(0)
            yield _InSlot(Process(job, self.share, self.environment(slot), nursery=self._nursery), slot, self._free)

    def end(self, attempts: Sequence[Attempt]) -> None:
        """End them all within one time of grace."""
        end_all([attempt.process for attempt in attempts if isinstance(attempt, _InSlot)])
