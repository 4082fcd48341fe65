"""Why a run failed, as its log and its end tell it, and what to do about it."""

import json
import re
import signal
from pathlib import Path
from typing import Any, Final

from benchmarks.environment import ENVIRONMENT
from benchmarks.launchers import ATTEMPT, Ended

TAIL_LINES: Final = 20
MAX_LINE: Final = 400
"""Characters of a line of the tail."""
_ERROR: Final = re.compile(r"error: |([A-Za-z_]\w*\.)*[A-Z]\w*(Error|Exception|Interrupt|Exit)\b")
_REMEDIES: Final = (
    (
        r"out of memory|bad_alloc|MemoryError|Cannot allocate memory",
        "halve budget.batch_size and double budget.accumulate, or run fewer at a time",
    ),
    (r"No space left on device|Disk quota exceeded", "make room on the disk and run the suite again: what is finished is kept"),
    (r"No such file or directory|FileNotFoundError", "put the file where the line says, or give --data.root"),
    (r"ModuleNotFoundError|ImportError", "install what the line names, and run the suite again"),
    (r"probabilities must lie in \[0, 1\]|\bnan\b|not finite", "the training diverged: lower optim.lr, or set budget.gradient_clip"),
)
"""What the last lines say -> what to do. What the zoo itself refuses says so in its own line."""


def explain(ended: Ended, log: Path) -> dict[str, Any]:
    """What a failed record says.

    Args:
        ended: How the process ended.
        log: What it wrote.

    Returns:
        `line` (the last error line), `log` (its path), `reason` (how it ended), `attempts`, `tail` (the last lines of the last attempt) and
        `remedy`.
    """
    attempts = _attempts(log)
    tail = [_without_places(line.rstrip()[:MAX_LINE]) for line in attempts[-1] if line.strip()][-TAIL_LINES:] if attempts else []
    return {
        "line": last_error_line(log) or ended.reason,
        "log": log.as_posix(),
        "reason": ended.reason,
        "attempts": max(len(attempts), 1),
        "tail": tail,
        "remedy": _remedy(ended, tail),
    }


def environment_of(work: Path) -> dict[str, Any]:
    """What the last attempt said of code and machine when it began; empty where none came so far.

    Args:
        work: Working folder of the run.
    """
    path = work / ENVIRONMENT
    return dict(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else {}


def last_error_line(log: Path) -> str:
    """The line of the last attempt in a log that says what went wrong: the last `error: ...` or exception, else the last line at all."""
    attempts = _attempts(log)
    lines = [line for line in (" ".join(line.split()) for line in (attempts[-1] if attempts else [])) if line]
    told = [line for line in lines if _ERROR.match(line)]
    return (told or lines or [""])[-1].removeprefix("error: ")


def _attempts(log: Path) -> list[list[str]]:
    """The lines of each attempt; what stands before the first one belongs to it."""
    if not log.is_file():
        return []
    attempts: list[list[str]] = [[]]
    for line in log.read_text(encoding="utf-8", errors="replace").splitlines():
        if line.startswith(ATTEMPT):
            attempts.append([])
        else:
            attempts[-1].append(line)
    return attempts[1:] if len(attempts) > 1 and not attempts[0] else attempts


def _remedy(ended: Ended, tail: list[str]) -> str:
    if ended.timed_out:
        return "give more --timeout-minutes: the run continues from its last checkpoint"
    if ended.lost:
        return "run the suite again: the run continues from its last checkpoint"
    if ended.returncode == -signal.SIGKILL:
        return "probably out of memory: run fewer at a time with --max-parallel, or halve budget.batch_size and double budget.accumulate"
    if ended.returncode < 0:
        return "run the suite again: the run continues from its last checkpoint"
    if any(line.startswith("error: ") for line in tail):
        return "as the line says; then run the suite again"
    found = next((remedy for pattern, remedy in _REMEDIES if any(re.search(pattern, line) for line in tail)), "")
    return found or "read the log; the next run of the suite tries it again from the start"


def _without_places(line: str) -> str:
    """A record tells nothing of folders of the machine."""
    return line.replace(f"{Path.cwd()}/", "").replace(str(Path.home()), "~")
