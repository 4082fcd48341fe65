"""The options of `zoo-bench run` that say where runs are executed."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from jsonargparse import ArgumentParser

from benchmarks.launchers import Launcher, Share
from benchmarks.launchers.local import LocalLauncher, usable_cores, visible_gpus
from benchmarks.launchers.nursery import Nursery
from datamodules.errors import UserError

LAUNCHERS: Final = ("local", "ray", "slurm")
RETRIES: Final = 2
SLURM_THREADS: Final = 4
"""Of each process, unless asked otherwise: one that trains, and some loader workers."""


def add_launcher_options(parser: ArgumentParser) -> None:
    """Add them.

    Args:
        parser: Of `zoo-bench run`.
    """
    parser.add_argument("--launcher", type=str, default="local", help="where runs are executed: local, ray (Ray tasks), slurm (job array)")
    parser.add_argument("--max-parallel", type=int | None, default=None, help="runs at a time; default one a GPU, or one a core")
    parser.add_argument("--devices-per-run", type=int, default=1, help="GPUs of each run, on each of its nodes; CPU processes without GPUs")
    parser.add_argument("--num-nodes", type=int, default=1, help="nodes of each run; more than one with slurm only")
    parser.add_argument("--threads", type=int | None, default=None, help="CPU threads of each process; default its share (slurm: 4)")
    parser.add_argument("--timeout-minutes", type=float | None, default=None, help="end a run that takes longer; it counts as failed")
    parser.add_argument(
        "--retries", type=int, default=RETRIES, help="try a run again that was killed or whose node died, from its last checkpoint"
    )
    parser.add_argument(
        "--ray-address", type=str | None, default=None, help="an existing Ray cluster (auto, HOST:PORT); default: start one"
    )
    parser.add_argument(
        "--slurm",
        type=str,
        nargs="+",
        default=[],
        metavar="OPTION=VALUE",
        help="of sbatch, as partition=gpu account=me time=240 (minutes) gres=gpu:a100:1; gres=none for CPU",
    )


def launcher_of(options: Any, work: Path, nursery: Nursery) -> Launcher:  # noqa: ANN401 - jsonargparse's namespace
    """The launcher that the options ask for.

    Args:
        options: Parsed.
        work: Working folder of the suite.
        nursery: Forks the processes of a launcher that works on this machine; others end it.

    Raises:
        UserError: An option is wrong or belongs to another launcher, or an extra is missing.
    """
    name = options.launcher
    if name not in LAUNCHERS:
        raise UserError("no such launcher", f"known: {', '.join(LAUNCHERS)}", field="--launcher", value=name, exit_code=2)
    for field, value, least in (
        ("--devices-per-run", options.devices_per_run, 1),
        ("--num-nodes", options.num_nodes, 1),
        ("--threads", options.threads, 1),
        ("--max-parallel", options.max_parallel, 1),
        ("--retries", options.retries, 0),
    ):
        if value is not None and value < least:
            raise UserError(f"must be at least {least}", field=field, value=value, exit_code=2)
    for field, given, launcher in (
        ("--ray-address", options.ray_address is not None, "ray"),
        ("--slurm", bool(options.slurm), "slurm"),
        ("--num-nodes", options.num_nodes > 1, "slurm"),
    ):
        if given and name != launcher:
            raise UserError(f"is of another launcher than {name}", f"add --launcher {launcher}", field=field, exit_code=2)
    common = {
        "max_parallel": options.max_parallel,
        "devices_per_run": options.devices_per_run,
        "timeout_seconds": None if options.timeout_minutes is None else options.timeout_minutes * 60,
        "retries": options.retries,
    }
    if name != "local":
        nursery.close()  # its memory is of no use while others work
    if name == "ray":
        from benchmarks.launchers.ray import RayLauncher  # noqa: PLC0415 - an extra

        address = options.ray_address or os.environ.get("RAY_ADDRESS") or None
        return RayLauncher(address=address, threads=options.threads, **common)
    if name == "slurm":
        from benchmarks.launchers.slurm import SlurmLauncher  # noqa: PLC0415 - an extra

        threads = options.threads or SLURM_THREADS
        return SlurmLauncher(work / "slurm", options=_pairs(options.slurm), num_nodes=options.num_nodes, threads=threads, **common)
    return LocalLauncher(gpus=visible_gpus(nursery), cores=usable_cores(), threads=options.threads, nursery=nursery, **common)


def run_arguments(share: Share, *, num_workers: int | None, cache_dir: str | None, pictures: bool) -> list[str]:
    """Arguments of `benchmarks.run` that change no score.

    Args:
        share: What each run gets.
        num_workers: Loader workers of each process; None: 0 on CPU, else by threads.
        cache_dir: Folder of aligned layers, or None.
        pictures: Keep a few test tiles for the report.
    """
    if num_workers is None:
        # On a CPU the cores train; beside a GPU they have nothing else to do.
        num_workers = min(share.threads - 1, 8) if share.uses_gpus else 0
    arguments = ["--devices", str(share.devices), "--num-workers", str(num_workers)]
    if share.num_nodes > 1:
        arguments += ["--num-nodes", str(share.num_nodes)]
    if cache_dir is not None:
        arguments += ["--cache-dir", str(Path(cache_dir).resolve())]
    return arguments if pictures else [*arguments, "--no-pictures"]


def _pairs(given: Sequence[str]) -> dict[str, str]:
    pairs = [text.lstrip("-").partition("=") for text in given]
    for text, (name, equals, value) in zip(given, pairs, strict=True):
        if not (name and equals and value):
            raise UserError("is not OPTION=VALUE", "as partition=gpu time=240", field="--slurm", value=text, exit_code=2)
    return {name: value for name, _, value in pairs}
