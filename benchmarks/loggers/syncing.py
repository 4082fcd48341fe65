"""Finished offline runs -> the wandb server, each once, by wandb's own `wandb sync`.

What is sent is told by the marker that `wandb sync` leaves beside a log. The parts that an interrupted and resumed run left have one id,
and go together, in the order of their start.
"""

import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from filelock import FileLock, Timeout

from benchmarks.leases import holder
from benchmarks.loggers import require_server
from benchmarks.record import RunRecord
from benchmarks.runner import Places
from benchmarks.spec import RunSpec
from datamodules.errors import UserError

PROGRAM: Final = (sys.executable, "-m", "wandb")
HEADER: Final = b":W&B"
"""First bytes of a wandb log."""


@dataclass(frozen=True)
class Outcome:
    """What became of the wandb log of one run.

    Args:
        spec: The run.
        state: `sent`, `sent before`, `no offline log`, `not finished`, `in use: ...`, or `broken: ...`.
    """

    spec: RunSpec
    state: str

    @property
    def failed(self) -> bool:
        """It should have been sent and was not."""
        return self.state.startswith(("broken", "in use"))


def sync_suite(
    specs: Sequence[RunSpec],
    records: Mapping[str, RunRecord],
    places: Places,
    *,
    timeout_seconds: float = 600.0,
    program: Sequence[str] | None = None,
) -> list[Outcome]:
    """Send what is finished and not sent yet; one process at a time does so for a suite.

    Args:
        specs: The runs of a suite.
        records: By key.
        places: Folders of the suite.
        timeout_seconds: For each run.
        program: Instead of wandb's command line, whose server is asked for first.

    Raises:
        UserError: There is something to send, and wandb has no account or does not reach its server; or another process sends it.
    """
    lock = places.work / "sync.lock"
    places.work.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(lock, timeout=0):
            states = [_state(spec, records, places) for spec in specs]
            if program is None and not all(states):
                require_server()
            return [
                Outcome(spec, state or _send(places.run(spec.key), timeout_seconds, program or PROGRAM))
                for spec, state in zip(specs, states, strict=True)
            ]
    except Timeout:
        raise UserError("another process sends the runs of this suite", "wait for it", file=lock) from None


def sync_table(suite: str, outcomes: Sequence[Outcome]) -> tuple[str, list[str], list[list[str]]]:
    """Title, header and lines."""
    return f"{suite}: wandb", ["run", "key", "wandb log"], [[item.spec.title, item.spec.key, item.state] for item in outcomes]


def _parts(folder: Path) -> list[Path]:
    return sorted(folder.glob("wandb/offline-run-*"))


def _log(part: Path) -> Path | None:
    return next(iter(part.glob("run-*.wandb")), None)


def _is_sent(part: Path) -> bool:
    return any(part.glob("run-*.wandb.synced"))


def _state(spec: RunSpec, records: Mapping[str, RunRecord], places: Places) -> str:
    """Empty where there is something to send."""
    if spec.key not in records or records[spec.key].status != "finished":
        return "not finished"
    folder = places.run(spec.key)
    if who := holder(folder):
        return f"in use: {who} has written the record and is about to end"
    parts = _parts(folder)
    if not parts:
        return "no offline log"
    for part in parts:
        log = _log(part)
        if log is None:
            return f"broken: there is no log in {part.name}"
        with log.open("rb") as file:
            if file.read(len(HEADER)) != HEADER:
                return f"broken: {part.name}/{log.name} is no wandb log"
    return "sent before" if all(map(_is_sent, parts)) else ""


def _send(folder: Path, timeout_seconds: float, program: Sequence[str]) -> str:
    waiting = [part for part in _parts(folder) if not _is_sent(part)]
    try:
        done = subprocess.run(  # noqa: S603 - wandb's own command
            [*program, "sync", *map(str, waiting)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=timeout_seconds,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return f"broken: not sent within {timeout_seconds / 60:g} minutes"
    # The marker counts: a message may be reworded, and an exit code of 0 may mean that nothing was found.
    if done.returncode == 0 and all(map(_is_sent, waiting)):
        return "sent"
    lines = [" ".join(line.removeprefix("wandb:").split()) for line in done.stdout.splitlines() if line.strip()]
    told = [line for line in lines if "error" in line.lower()] or lines or [f"exit code {done.returncode}, and no marker beside the log"]
    return f"broken: {told[-1]}"
