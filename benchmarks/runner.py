"""Plan, resume, status: which runs of a suite are still to be done, and doing them.

    RUNS/SUITE/KEY/     spec.json, audit.json, log.txt, checkpoints/, csv/, tensorboard/, wandb/ of one run (working state); scenes.csv of its fold
    RESULTS/records/    one record a run; RESULTS is RUNS/SUITE unless --results says otherwise

A finished record is never made again. A failed run is tried again, from the start if it failed by itself; a run that was
interrupted, killed or ran out of time continues from its last checkpoint. Several runners may work on one suite, on one machine or on many
that share the folders: the process of a run holds its lease (`benchmarks.leases`), and who finds a run leased waits for its record.
"""

import shutil
import signal
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from types import FrameType
from typing import Final, Literal

from benchmarks.atomic import write_json
from benchmarks.auditing import furnish
from benchmarks.dataset import Portion, existing_root, fingerprint, provide
from benchmarks.display import Display
from benchmarks.failures import environment_of, explain
from benchmarks.launchers import Again, Ended, Job, Launcher, Started
from benchmarks.leases import ELSEWHERE, holder
from benchmarks.record import RunRecord, load_record, load_records, save_record
from benchmarks.spec import RunSpec
from benchmarks.suite import Suite, plan
from datamodules.scene import MANIFEST

State = Literal["finished", "failed", "interrupted", "waiting"]
OTHERS_SECONDS: Final = 1.0
"""Between two looks at what other runners do."""
DEFAULT_PROGRAM = (sys.executable, "-m", "benchmarks.run")


@dataclass(frozen=True)
class Places:
    """Folders of a suite.

    Args:
        runs: Working folder of all suites.
        suite: Name of the suite.
        results: Where records and reports go; default the suite's working folder.
    """

    runs: Path
    suite: str
    results: Path | None = None

    @property
    def work(self) -> Path:
        """Working folder of the suite."""
        return self.runs / self.suite

    @property
    def report(self) -> Path:
        """Folder of the report."""
        return self.results or self.work

    @property
    def records(self) -> Path:
        """Folder of the records."""
        return self.report / "records"

    @property
    def fingerprints(self) -> Path:
        """Cache of the hashes of data files."""
        return self.runs / "data" / "fingerprints.json"

    def run(self, key: str) -> Path:
        """Working folder of one run."""
        return self.work / key

    def log(self, key: str) -> Path:
        """What a run wrote to its standard output and error."""
        return self.run(key) / "log.txt"


def state_of(spec: RunSpec, records: dict[str, RunRecord], places: Places) -> State:
    """How far a run has come."""
    if spec.key in records:
        return records[spec.key].status
    return "interrupted" if (places.run(spec.key) / "checkpoints" / "last.ckpt").is_file() else "waiting"


def keyed_plan(
    suite: Suite,
    places: Places,
    *,
    seeds: Sequence[int] | None = None,
    only_folds: Sequence[int] | None = None,
    only_rows: Sequence[str] | None = None,
    make_data: bool = False,
) -> tuple[list[RunSpec], Path | None]:
    """The specs of a suite with the fingerprint of its data, and the folder of the data.

    Args:
        suite: From `load_suite`.
        places: Its folders.
        seeds: Instead of the suite's own.
        only_folds: Some of the suite's folds.
        only_rows: Names or patterns of some of its rows.
        make_data: Make synthetic data that do not exist yet; otherwise keys stay without a fingerprint and the folder is None.
    """
    root = provide(suite, places.runs) if make_data else existing_root(suite, places.runs)
    contents = fingerprint(root, places.fingerprints) if root is not None else ""
    return plan(suite, fingerprint=contents, seeds=seeds, only_folds=only_folds, only_rows=only_rows), root


def portions_of(specs: Sequence[RunSpec], root: Path, places: Places) -> list[Portion]:
    """What the specs read, each portion once."""
    return list({spec.fold: Portion.of(spec, root, places.runs) for spec in specs}.values())


def command(
    spec: RunSpec, root: Path, places: Places, *, options: Sequence[str] = (), program: Sequence[str] = DEFAULT_PROGRAM
) -> tuple[str, ...]:
    """The command line of one run; `{threads}` is left for the launcher."""
    data = root if spec.fold is None else places.run(spec.key) / MANIFEST
    arguments = [str(places.run(spec.key) / "spec.json"), "--data", str(data), "--out", str(places.records), "--threads", "{threads}"]
    return (*program, *arguments, *options)


def run_suite(
    specs: Sequence[RunSpec],
    root: Path,
    places: Places,
    launcher: Launcher,
    *,
    options: Sequence[str] = (),
    program: Sequence[str] = DEFAULT_PROGRAM,
    display: Display | None = None,
) -> dict[str, RunRecord]:
    """Do the runs that are not finished.

    Args:
        specs: From `keyed_plan`.
        root: Folder of the data.
        places: Folders of the suite.
        launcher: Executes them.
        options: Further arguments of each run.
        program: What executes one specification.
        display: Shows progress.

    Returns:
        The records of the given specs by key, failed ones included.
    """
    records = load_records(places.records)
    pending = {spec.key: spec for spec in specs if state_of(spec, records, places) != "finished"}
    for key, spec in pending.items():
        write_json(places.run(key) / "spec.json", spec.to_dict())
        furnish(Portion.of(spec, root, places.runs), places.run(key))
    display = display or Display(specs, places)
    display.skipped(len(specs) - len(pending))
    with _interruptible() as asked, display:
        while pending:
            jobs = [
                Job(key, command(spec, root, places, options=options, program=program), places.log(key)) for key, spec in pending.items()
            ]
            elsewhere = _execute(jobs, pending, places, launcher, display, asked)
            pending = _await_others({key: pending[key] for key in elsewhere}, places, display, asked)
    records = load_records(places.records)
    return {spec.key: records[spec.key] for spec in specs if spec.key in records}


def _execute(
    jobs: Sequence[Job], specs: Mapping[str, RunSpec], places: Places, launcher: Launcher, display: Display, asked: Event
) -> list[str]:
    """Run jobs; the keys of those that another runner's process is doing."""
    elsewhere = []
    events = launcher.execute(jobs)
    try:
        for event in events:
            if asked.is_set():
                raise KeyboardInterrupt
            if isinstance(event, Started):
                display.started(event.key)
            elif isinstance(event, Again):
                display.again(event.key, event.reason, event.attempt, event.attempts)
            elif isinstance(event, Ended) and event.returncode == ELSEWHERE:
                elsewhere.append(event.key)
                display.elsewhere(event.key, holder(places.run(event.key)))
            elif isinstance(event, Ended):
                display.ended(_record_of(specs[event.key], event, places), event.seconds)
            else:
                display.refresh()
    finally:
        close = getattr(events, "close", None)
        if close is not None:
            close()  # ends children also when the loop is left by an exception
    return elsewhere


def _await_others(waiting: dict[str, RunSpec], places: Places, display: Display, asked: Event) -> dict[str, RunSpec]:
    """Wait for runs that others do, until all have a record, or one has neither a record nor a process: those are to be done here."""
    while waiting:
        for key in list(waiting):
            path = places.records / f"{key}.json"
            # In this order: a process that ends between the two questions has left its record.
            held = holder(places.run(key))
            if path.is_file() and not held:
                display.ended(load_record(path), None)
                del waiting[key]
            elif not held:
                return waiting
        if asked.wait(OTHERS_SECONDS):
            raise KeyboardInterrupt
        display.refresh()
    return {}


def _record_of(spec: RunSpec, ended: Ended, places: Places) -> RunRecord:
    """The record that a run left, or a failed one in its stead."""
    path = places.records / f"{spec.key}.json"
    if path.is_file() and (record := load_record(path)).status == "finished":
        return record  # also where the process or its node was killed on its last metres
    if ended.returncode >= 0 and not ended.timed_out:
        # It failed by itself and would fail again from the same state, so the next attempt starts afresh.
        shutil.rmtree(places.run(spec.key) / "checkpoints", ignore_errors=True)
    record = RunRecord(
        key=spec.key,
        status="failed",
        spec=spec.to_dict(),
        cost={"seconds": round(ended.seconds, 3)},
        environment=environment_of(places.run(spec.key)),
        error=explain(ended, places.log(spec.key)),
    )
    save_record(record, places.records)
    return record


@contextmanager
def _interruptible() -> Iterator[Event]:
    """SIGTERM and Ctrl-C leave by one door, where children are ended and their state stays resumable.

    The handlers are set for both, because a runner that a script started in the background inherits a SIGINT that is ignored. The event
    stays set, because an exception that is raised while Python destroys an object is lost.
    """
    asked = Event()

    def interrupt(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 - the signature of handlers
        asked.set()
        raise KeyboardInterrupt

    previous = {number: signal.signal(number, interrupt) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield asked
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
