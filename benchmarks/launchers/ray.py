"""Runs as Ray tasks, on this machine or on a cluster whose nodes share the folders of suite and data."""

import contextlib
import math
import os
from collections.abc import Iterator, Sequence
from typing import Any, Final

from benchmarks.launchers import Attempt, Ended, Job, Launcher, Share
from benchmarks.launchers.local import usable_cores
from benchmarks.launchers.process import GRACE_SECONDS, attend, inherited
from benchmarks.launchers.remote import Remote
from datamodules.errors import UserError

OBJECT_STORE_BYTES: Final = 100 * 2**20
"""Of a local instance: nothing but the ends of runs goes through it, and its default is a third of the memory."""


def attend_here(job: Job, share: Share) -> Ended:
    """Execute a job on the node that Ray chose; Ray has set CUDA_VISIBLE_DEVICES."""
    return attend(job, share, inherited())


class _Task(Remote):
    """A run as a Ray task."""

    def __init__(self, job: Job, reference: Any) -> None:  # noqa: ANN401 - ray is imported where it is used
        super().__init__(job)
        self.reference = reference

    def outcome(self) -> Ended | None:
        import ray  # noqa: PLC0415 - an extra
        from ray.exceptions import RayError, RayTaskError  # noqa: PLC0415

        ready, _ = ray.wait([self.reference], timeout=0)
        if not ready:
            return None
        try:
            ended: Ended = ray.get(self.reference)
        except RayTaskError as error:
            cause = " ".join(str(error.cause or error).split())
            raise UserError(
                f"a Ray node cannot start runs: {cause}", "every node needs this installation and these folders at the same paths"
            ) from error
        except RayError as error:
            return self.lost(f"Ray lost the run: {_first_sentence(error)}")
        return ended


def _first_sentence(error: Exception) -> str:
    """What Ray says, without its advice and addresses."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0].split('. ')[0] if lines else ''}".rstrip(": .")


class RayLauncher(Launcher):
    """Ray tasks with GPUs, or with CPU cores on a cluster that has no GPU.

    Args:
        address: Of an existing cluster (`auto`: the one on this machine); None starts Ray on this machine, as long as the suite runs.
        max_parallel: Runs at a time; default as many as the cluster has room for.
        devices_per_run: GPUs (processes) of each run, on one node.
        threads: CPU threads of each process; default a GPU's share of the cores of its node, or 1 without GPUs.
        timeout_seconds: A run that takes longer, waiting for its turn not counted, is ended and counts as failed.
        retries: As in `Launcher`.
    """

    def __init__(
        self,
        *,
        address: str | None = None,
        max_parallel: int | None = None,
        devices_per_run: int = 1,
        threads: int | None = None,
        timeout_seconds: float | None = None,
        retries: int = 0,
    ) -> None:
        nodes = _connect(address)
        gpus = [node for node in nodes if node.get("GPU", 0) >= 1]
        fitting = [node for node in gpus or nodes if node.get("GPU" if gpus else "CPU", 0) >= devices_per_run]
        if not fitting:
            kind = "GPUs" if gpus else "CPU cores"
            raise UserError(f"no node of the Ray cluster has so many {kind}", field="--devices-per-run", value=devices_per_run, exit_code=2)
        if threads is None:
            threads = max(1, min(int(node["CPU"] // node["GPU"]) for node in fitting)) if gpus else 1
        share = Share(devices=devices_per_run, threads=threads, uses_gpus=bool(gpus), timeout_seconds=timeout_seconds)
        super().__init__(share, at_once=max_parallel or math.inf, retries=retries)
        self._options = {"num_cpus": threads * devices_per_run, "num_gpus": devices_per_run if gpus else 0}

    def submit(self, jobs: Sequence[Job]) -> Iterator[Attempt]:
        """Hand them to Ray, which starts them as resources become free."""
        import ray  # noqa: PLC0415 - an extra

        # The launcher alone tries again: Ray would do so without telling.
        task = ray.remote(max_retries=0, **self._options)(attend_here)
        for job in jobs:
            yield _Task(job, task.remote(job, self.share))

    def end(self, attempts: Sequence[Attempt]) -> None:
        """Interrupt their workers, which end the runs; kill those that take too long, whose guards kill the runs."""
        import ray  # noqa: PLC0415 - an extra

        references = [attempt.reference for attempt in attempts if isinstance(attempt, _Task)]
        for force, seconds in ((False, GRACE_SECONDS + 5), (True, GRACE_SECONDS)):
            for reference in references:
                with contextlib.suppress(ray.exceptions.RayError):  # it is gone already
                    ray.cancel(reference, force=force)
            if references:
                _, references = ray.wait(references, num_returns=len(references), timeout=seconds)


def _connect(address: str | None) -> list[dict[str, float]]:
    """The resources of each living node."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # a benchmark reports to nobody
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    try:
        import ray  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise UserError("Ray is not installed", 'pip install "landslide-zoo[ray]"', field="--launcher", value="ray", exit_code=2) from error
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR", "include_dashboard": False, "ignore_reinit_error": True}
    if not ray.is_initialized():
        try:
            if address is None:
                ray.init("local", num_cpus=usable_cores(), object_store_memory=OBJECT_STORE_BYTES, **quiet)
            else:
                quiet.pop("include_dashboard")
                ray.init(address, **quiet)
        except Exception as error:  # Ray raises nothing narrower where its processes do not come up in time
            problem = "Ray does not start on this machine" if address is None else "no Ray cluster answers"
            raise UserError(f"{problem} ({' '.join(str(error).split())})", field="--ray-address", value=address, exit_code=2) from error
    return [node["Resources"] for node in ray.nodes() if node["Alive"]]
