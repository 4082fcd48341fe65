"""What the runner shows while it works: a live table on a terminal, one line a started and a finished run elsewhere."""

import json
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.table import Table

from benchmarks.record import RunRecord
from benchmarks.spec import RunSpec


class Folders(Protocol):
    """What the display needs to know of `runner.Places`."""

    def run(self, key: str) -> Path:
        """Working folder of one run."""
        ...


class Display:
    """Progress of the runs of a suite.

    Args:
        specs: All runs of the suite.
        places: Their folders.
        console: Default standard output.
    """

    def __init__(self, specs: Sequence[RunSpec], places: Folders, console: Console | None = None) -> None:
        self.console = console or Console(soft_wrap=True)
        self._specs = {spec.key: spec for spec in specs}
        self._places = places
        self._running: dict[str, float] = {}
        self._done = 0
        self._total = len(specs)
        self._live = Live(console=self.console, auto_refresh=False, transient=True) if self.console.is_terminal else None
        self._last_refresh = 0.0

    def __enter__(self) -> Self:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._live is not None:
            self._live.stop()

    def skipped(self, number: int) -> None:
        """So many runs were finished before."""
        self._done = number
        if number:
            self._say(f"{number} of {self._total} runs are finished already")

    def started(self, key: str) -> None:
        """A run began."""
        self._running[key] = time.monotonic()
        if self._live is None:
            self._say(f"started   {self._specs[key].title}")
        self.refresh(force=True)

    def again(self, key: str, reason: str, attempt: int, attempts: int) -> None:
        """A run was ended from outside and waits for its next attempt."""
        self._running.pop(key, None)
        self._say(f"again     {self._specs[key].title}: {reason}; attempt {attempt} of {attempts} follows")
        self.refresh(force=True)

    def elsewhere(self, key: str, who: str) -> None:
        """A run is done by another runner's process."""
        self._running.pop(key, None)
        self._say(f"elsewhere {self._specs[key].title}: {who or 'another process'} does it")
        self.refresh(force=True)

    def ended(self, record: RunRecord, seconds: float | None) -> None:
        """A run ended here after so many seconds, or elsewhere."""
        self._running.pop(record.key, None)
        self._done += 1
        if record.error is None:
            place = "elsewhere" if seconds is None else f"in {seconds:.0f} s"
            outcome = f"finished  {self._specs[record.key].title}: IoU {record.metrics['test']['iou_landslide']:.3f} {place}"
            broken = [name for name, state in record.environment.get("loggers", {}).items() if state != "whole"]
            outcome += f"; its {' and '.join(broken)} log is not whole, see {self._places.run(record.key) / 'log.txt'}" if broken else ""
        else:
            outcome = f"FAILED    {self._specs[record.key].title}: {record.error['line']} (log: {record.error['log']})"
        self._say(f"{outcome} [{self._done}/{self._total}]")
        self.refresh(force=True)

    def refresh(self, *, force: bool = False) -> None:
        """Redraw the live table, about once a second."""
        if self._live is None or (not force and time.monotonic() - self._last_refresh < 1):
            return
        self._last_refresh = time.monotonic()
        table = Table(title=f"{self._done} of {self._total} runs done", title_justify="left", box=None)
        for column in ("running", "step", "val IoU", "seconds"):
            table.add_column(column, justify="left" if column == "running" else "right")
        for key, began in self._running.items():
            step, score = self._progress(key)
            table.add_row(escape(self._specs[key].title), step, score, f"{time.monotonic() - began:.0f}")
        self._live.update(table, refresh=True)

    def _progress(self, key: str) -> tuple[str, str]:
        path = self._places.run(key) / "progress.json"
        if not path.is_file():
            return "-", "-"
        state = json.loads(path.read_text(encoding="utf-8"))
        return f"{state['step']}/{state['max_steps']}", "-" if state["iou"] is None else f"{state['iou']:.3f}"

    def _say(self, line: str) -> None:
        self.console.print(line, markup=False, highlight=False)
