"""Runs as job arrays of SLURM, by submitit; nodes share the folders of suite and data.

    RUNS/SUITE/slurm/      sbatch script, logs and results of jobs, as submitit writes them; KEY.json: the job of a run

SLURM requeues a run that is preempted, whose node fails, or that comes near its time limit: it goes on from its last checkpoint. A runner
that is gone leaves its jobs in the queue; the next one finds them there and waits for them.
"""

import atexit
import getpass
import json
import math
import os
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from benchmarks.atomic import write_json
from benchmarks.launchers import Attempt, Ended, Job, Launcher, Share
from benchmarks.launchers.process import attend
from benchmarks.launchers.remote import Remote
from datamodules.errors import UserError

QUEUE_SECONDS: Final = 10.0
"""Between two looks into the queue."""
ARRAY_PARALLELISM: Final = 256
REQUEUES: Final = 50
"""How often a run may reach the time limit of its job and go on."""
DEFAULT_MINUTES: Final = 12 * 60
MARGIN_MINUTES: Final = 10
"""What a job gets beyond the timeout of its run, to start and to end."""
PREEMPTION_SECONDS: Final = 600.0
RESERVED: Final = frozenset({"array", "error", "nodes", "ntasks", "ntasks_per_node", "open_mode", "output", "requeue", "signal"})


@dataclass(frozen=True)
class Attended:
    """What each task of a SLURM job does: one process of a run, one task a device.

    Args:
        job: The run.
        share: What it gets.
    """

    job: Job
    share: Share

    def __call__(self) -> Ended:
        """Execute it; submitit keeps what the first task returns."""
        first = os.environ.get("SLURM_PROCID", "0") == "0"
        ended = attend(self.job, self.share, os.environ, announce=first)
        if ended.returncode in (-signal.SIGTERM, -signal.SIGUSR2) and not ended.timed_out:
            # SLURM told every process that the job is to go: wait to be ended, as a job that ends by itself is not requeued.
            time.sleep(PREEMPTION_SECONDS)
        if first and ended.returncode and self.share.devices * self.share.num_nodes > 1:
            # The other processes of the run would wait for this one: srun ends them when a task fails.
            atexit.register(os._exit, 1)
        return ended

    def checkpoint(self) -> Any:  # noqa: ANN401 - submitit is imported where it is used
        """What submitit requeues near the time limit: the same again, as the state of a run lies in its folder."""
        import submitit  # noqa: PLC0415 - an extra

        return submitit.helpers.DelayedSubmission(self)


class _ArrayTask(Remote):
    """A run as one member of a job array."""

    def __init__(self, job: Job, submitted: Any, queue: "_Queue", *, is_own: bool = True) -> None:  # noqa: ANN401 - submitit's Job
        super().__init__(job)
        self.submitted, self.is_own = submitted, is_own
        self._queue, self._gone_since = queue, 0.0

    def outcome(self) -> Ended | None:
        if self.submitted.paths.result_pickle.exists():
            return self._result()
        if self._queue.holds(self.submitted):
            self._gone_since = 0.0
            return None
        # A result may become visible later than the end of its job.
        now = time.monotonic()
        self._gone_since = self._gone_since or now
        if now - self._gone_since < self._queue.seconds:
            return None
        return self.lost(f"job {self.submitted.job_id} ended without a result (its log: {self.submitted.paths.stderr})")

    def _result(self) -> Ended:
        from submitit.core.utils import FailedJobError  # noqa: PLC0415 - an extra

        try:
            ended: Ended = self.submitted.result()
        except FailedJobError as error:
            raise UserError(
                f"a SLURM node cannot start runs: {' '.join(str(error).split())}",
                "every node needs this installation and these folders at the same paths",
            ) from error
        return ended


class _Queue:
    """Which jobs SLURM still has to do, asked for all of them at once, and not too often.

    `squeue` knows them also where there is no accounting, which submitit's own question (`sacct`) needs.
    """

    def __init__(self, seconds: float = QUEUE_SECONDS) -> None:
        self.seconds = seconds
        self._ids: frozenset[str] = frozenset()
        self._asked = -math.inf

    def holds(self, submitted: Any) -> bool:  # noqa: ANN401 - submitit's Job
        """Whether a job is queued or executed."""
        if type(submitted).__name__ != "SlurmJob":  # submitit's stand-in without a cluster
            return not submitted.done()
        if time.monotonic() - self._asked >= self.seconds:
            self.look()
        return submitted.job_id in self._ids

    def look(self) -> None:
        """Ask now."""
        command = ["squeue", "--noheader", "--array", f"--user={getpass.getuser()}", "--format=%i"]
        answer = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - our own command
        self._asked = time.monotonic()
        if answer.returncode == 0:  # else the controller is away for a while, and the jobs are what they were
            self._ids = frozenset(answer.stdout.split())

    def add(self, job_id: str) -> None:
        """A job that was submitted since."""
        self._ids |= {job_id}


class SlurmLauncher(Launcher):
    """One job array a suite; a task a device.

    Args:
        folder: For what submitit writes; on the shared file system.
        options: Of sbatch, as partition, account, time (minutes), gres; `gres` none: without GPUs.
        max_parallel: Runs at a time; default 256.
        devices_per_run: GPUs (processes) of each run on each of its nodes.
        num_nodes: Nodes of each run.
        threads: CPU threads of each process.
        timeout_seconds: A run that takes longer without being requeued is ended and counts as failed.
        retries: As in `Launcher`; requeues by SLURM are not counted.
        cluster: "local" executes the jobs on this machine without SLURM, for tests.
    """

    poll_seconds = 1.0

    def __init__(
        self,
        folder: Path,
        *,
        options: Mapping[str, str] | None = None,
        max_parallel: int | None = None,
        devices_per_run: int = 1,
        num_nodes: int = 1,
        threads: int = 4,
        timeout_seconds: float | None = None,
        retries: int = 0,
        cluster: str = "slurm",
    ) -> None:
        given = {name.replace("-", "_"): value for name, value in (options or {}).items()}
        uses_gpus = given.get("gres", "") != "none"
        share = Share(devices=devices_per_run, threads=threads, uses_gpus=uses_gpus, num_nodes=num_nodes, timeout_seconds=timeout_seconds)
        super().__init__(share, retries=retries)
        self._folder = folder.absolute()
        self._parameters = _parameters(given, share, max_parallel or ARRAY_PARALLELISM)
        self._cluster = cluster
        self._queue = _Queue(QUEUE_SECONDS if cluster == "slurm" else 1.0)
        _import_submitit()

    def executor(self) -> Any:  # noqa: ANN401 - submitit is imported where it is used
        """Submitit's executor with all parameters set."""
        submitit = _import_submitit()
        self._folder.mkdir(parents=True, exist_ok=True)
        if self._cluster != "slurm":
            executor = submitit.AutoExecutor(self._folder, cluster=self._cluster)
            executor.update_parameters(timeout_min=self._parameters["time"])
            return executor
        try:
            executor = submitit.SlurmExecutor(self._folder, max_num_timeout=REQUEUES)
            executor.update_parameters(**self._parameters)
        except RuntimeError as error:
            raise UserError("there is no SLURM on this machine", "submit from a login node", field="--launcher", value="slurm") from error
        return executor

    def submit(self, jobs: Sequence[Job]) -> Iterator[Attempt]:
        """Queue them as one array, but for those that an earlier runner has queued and that are waiting or at work."""
        from submitit.core.utils import FailedJobError, FailedSubmissionError  # noqa: PLC0415 - an extra

        executor, left = self.executor(), []
        if self._cluster == "slurm":
            self._queue.look()
        for job in jobs:
            earlier = self._earlier(job)
            if earlier is not None:
                yield earlier
            else:
                left.append(job)
        if not left:
            return
        try:
            with executor.batch():
                handed = [executor.submit(Attended(job, self.share)) for job in left]
        except (FailedJobError, FailedSubmissionError, subprocess.SubprocessError) as error:
            raise UserError(f"sbatch refuses: {' '.join(str(error).split())}", "change --slurm", field="--slurm") from error
        for job, submitted in zip(left, handed, strict=True):
            self._queue.add(submitted.job_id)
            write_json(self._note(job), {"job_id": submitted.job_id})
            yield _ArrayTask(job, submitted, self._queue)

    def end(self, attempts: Sequence[Attempt]) -> None:
        """Take them out of the queue; those that an earlier runner queued stay there."""
        for attempt in attempts:
            if isinstance(attempt, _ArrayTask) and attempt.is_own:
                attempt.submitted.cancel(check=False)

    def _earlier(self, job: Job) -> Attempt | None:
        note = self._note(job)
        if self._cluster != "slurm" or not note.is_file():
            return None
        submitit = _import_submitit()
        submitted = submitit.SlurmJob(self._folder, json.loads(note.read_text(encoding="utf-8"))["job_id"])
        return _ArrayTask(job, submitted, self._queue, is_own=False) if self._queue.holds(submitted) else None

    def _note(self, job: Job) -> Path:
        return self._folder / f"{job.key}.json"


def _parameters(given: Mapping[str, str], share: Share, at_once: int) -> dict[str, Any]:
    """Submitit's parameters for sbatch."""
    for name in sorted(RESERVED & set(given)):
        raise UserError("is set by the launcher", "leave it out", field="--slurm", value=name, exit_code=2)
    minutes = DEFAULT_MINUTES if share.timeout_seconds is None else math.ceil(share.timeout_seconds / 60) + MARGIN_MINUTES
    wanted = given.get("time", str(minutes))
    if not wanted.isdecimal() or int(wanted) < 1:
        raise UserError("is no number of minutes", "as time=240", field="--slurm time", value=wanted, exit_code=2)
    extra = {name.replace("_", "-"): value for name, value in given.items() if name not in {"time", "gres"}}
    resources = {"gres": given.get("gres", f"gpu:{share.devices}")} if share.uses_gpus else {}
    return {
        "job_name": "landslide-zoo",
        "time": int(wanted),
        "nodes": share.num_nodes,
        "ntasks_per_node": share.devices,
        "cpus_per_task": share.threads,
        "array_parallelism": at_once,
        # When a task of a run ends badly, the others would wait for it; and srun inherits no cores from sbatch since SLURM 22.05.
        "srun_args": ["--kill-on-bad-exit=1", f"--cpus-per-task={share.threads}"],
        "additional_parameters": {"requeue": True, **extra},
        **resources,
    }


def _import_submitit() -> Any:  # noqa: ANN401 - a module
    try:
        import submitit  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise UserError(
            "submitit is not installed", 'pip install "landslide-zoo[slurm]"', field="--launcher", value="slurm", exit_code=2
        ) from error
    return submitit
