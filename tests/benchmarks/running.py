"""The runner with stand-in runs, for tests."""

import io
import sys
import time
from pathlib import Path

from rich.console import Console

from benchmarks.display import Display
from benchmarks.launchers.local import LocalLauncher
from benchmarks.runner import run_suite
from benchmarks.spec import RunSpec

FAKE = (sys.executable, str(Path(__file__).with_name("fake_run.py")))


def spec(method, seed=0):
    return RunSpec("s", f"row {method}", method, {}, "d", {}, {"max_steps": 1}, seed, "f")


def run(specs, places, launcher=None, **kwargs):
    output = io.StringIO()
    launcher = launcher or LocalLauncher(max_parallel=2, cores=2, **kwargs)
    display = Display(specs, places, Console(file=output, soft_wrap=True))
    records = run_suite(specs, Path("data"), places, launcher, program=FAKE, display=display)
    return records, output.getvalue()


def attempts(places, spec):
    return len((places.run(spec.key) / "attempts").read_text())


def wait_for(condition, seconds=90):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)
