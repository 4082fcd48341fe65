"""What a suite costs beside its runs, and what a run costs before its first batch.

    python -m benchmarks.runner_speed [--runs 12 --steps 20]

The overhead is the time of `zoo-bench run` from its first import to its report, one run at a time, over what the processes of its runs took
and the imports that are done once for all of them. The start-up is that of one run of the same suite, from the request for its process
to its first batch, with its parts: forked, as a suite starts it, and by itself. Imports are shown by package, each with what it takes
itself. All times are wall time: measure on a quiet machine.
"""

import argparse
import importlib
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final, NoReturn

from benchmarks.launchers.nursery import PRELOADED, Nursery
from datamodules.errors import UserError, exit_with

OVERHEAD_BAR: Final = 0.05
STARTUP_BAR_SECONDS: Final = 8.0
PACKAGES_SHOWN: Final = 12
SUITE: Final = """\
name: runner_speed
data:
  name: synthetic
  synthesize: {{scenes: 6, seed: 0, size: 256}}
  settings: {{tile_size: 128}}
budget: {{max_steps: {steps}, validate_every: {steps}, batch_size: 4}}
seeds: {seeds}
runs:
  - name: deeplab
    method: deeplab
    hyperparameters:
      network: {{encoder: tu-tf_efficientnet_lite0, weights: imagenet-lite0, inputs: both, terrain: [elevation, slope]}}
"""


def main(arguments: Sequence[str]) -> int:
    """Measure and print.

    Returns:
        1 if overhead or start-up is above its bar, else 0.
    """
    parser = argparse.ArgumentParser(prog="python -m benchmarks.runner_speed", description=str(__doc__).split("\n\n", maxsplit=1)[0])
    parser.add_argument("--runs", type=int, default=12, help="of the suite (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=20, help="of each run (default: %(default)s)")
    parser.add_argument("--first-batch", nargs=3, metavar=("SPEC", "ROOT", "BEGAN"), help=argparse.SUPPRESS)
    options = parser.parse_args(list(arguments))
    if options.first_batch:
        _to_first_batch(*options.first_batch)
    if options.runs < 1 or options.steps < 1:
        raise UserError("there is nothing to measure", "give numbers from 1", field="--runs, --steps", exit_code=2)
    with tempfile.TemporaryDirectory() as folder:
        suite = Path(folder) / "runner_speed.yaml"
        suite.write_text(SUITE.format(steps=options.steps, seeds=list(range(options.runs))), encoding="utf-8")
        with Nursery() as nursery:
            first, second = (_timed(lambda: nursery.ask("benchmarks.launchers.gpus")) for _ in range(2))
            overhead, root = _overhead(suite, Path(folder), first - second)
            startup = _startup(nursery, next(Path(folder).glob("runner_speed/*/spec.json")), root)
    return int(overhead > OVERHEAD_BAR or startup > STARTUP_BAR_SECONDS)


def _timed(action: Callable[[], object]) -> float:
    began = time.perf_counter()
    action()
    return time.perf_counter() - began


def _overhead(suite_file: Path, runs: Path, preloading: float) -> tuple[float, Path]:
    """Its share of the wall time, and the folder of the data."""
    began = time.perf_counter()
    from benchmarks import cli  # noqa: PLC0415 - its imports are part of what a suite costs
    from benchmarks.launchers import Ended  # noqa: PLC0415
    from benchmarks.launchers.local import LocalLauncher  # noqa: PLC0415
    from benchmarks.runner import Places, keyed_plan  # noqa: PLC0415
    from benchmarks.suite import load_suite  # noqa: PLC0415

    imported = time.perf_counter() - began
    suite = load_suite(str(suite_file))
    _, root = keyed_plan(suite, Places(runs, suite.name), make_data=True)  # the data are no part of it
    assert root is not None
    local: Any = LocalLauncher
    execute, seconds = LocalLauncher.execute, list[float]()

    def timed(launcher: LocalLauncher, jobs: Any) -> Iterator[Any]:  # noqa: ANN401 - as `execute`
        for event in execute(launcher, jobs):
            if isinstance(event, Ended):
                seconds.append(event.seconds)
            yield event

    local.execute = timed
    began = time.perf_counter()
    code = cli.main(["run", str(suite_file), "--runs", str(runs), "--max-parallel", "1", "--allow-leaks"])
    wall = imported + time.perf_counter() - began
    if code or not seconds:
        raise UserError("the suite did not run", "see what it says above", file=suite_file)
    own = sum(seconds)
    share = wall / (own + preloading) - 1
    print(
        f"{len(seconds)} runs, {wall:.1f} s: {own:.1f} in their processes, {preloading:.1f} of imports for all of them together, ", end=""
    )
    print(
        f"{wall - own - preloading:.1f} beside; overhead {share:.1%} (bar {OVERHEAD_BAR:.0%}), or {wall / own - 1:.1%} with the imports\n"
    )
    return share, root


def _startup(nursery: Nursery, spec: Path, root: Path) -> float:
    forked, alone = (_parts(start, spec, root) for start in (nursery, Nursery(forks=False)))
    print("| until the first batch [s] | forked | by itself |\n|---|---:|---:|")
    for name in alone:
        print(f"| {name} | {forked[name]:.2f} | {alone[name]:.2f} |")
    report = subprocess.run(  # noqa: S603 - our own module
        [sys.executable, "-X", "importtime", "-c", f"import {', '.join(PRELOADED)}"], capture_output=True, text=True, check=True
    ).stderr
    packages = Counter[str]()
    for microseconds, module in re.findall(r"^import time:\s*(\d+) \|\s*\d+ \|\s*(\S+)", report, re.MULTILINE):
        packages[module.partition(".")[0]] += int(microseconds)
    shown = packages.most_common(PACKAGES_SHOWN)
    print("\nimports by package [s, under -X importtime]: ", end="")
    print(", ".join(f"{name} {microseconds / 1e6:.2f}" for name, microseconds in shown))
    print(f"start-up {forked['total']:.1f} s (bar {STARTUP_BAR_SECONDS:.0f} s); by itself {alone['total']:.1f} s")
    return forked["total"]


def _parts(start: Nursery, spec: Path, root: Path) -> dict[str, float]:
    work = Path(tempfile.mkdtemp(prefix="first_batch", dir=spec.parent.parent))
    copy, log = work / "spec.json", work / "log.txt"
    copy.write_bytes(spec.read_bytes())
    command = [sys.executable, "-m", "benchmarks.runner_speed", "--first-batch", str(copy), str(root), str(time.monotonic())]
    code = start.start(command, environment={**os.environ, "PYTHONUNBUFFERED": "1"}, folder=Path.cwd(), output=log).wait()
    lines = log.read_text(encoding="utf-8").strip().splitlines() or ["it says nothing"]
    if code:
        raise UserError("a run did not reach its first batch", lines[-1])
    return dict(json.loads(lines[-1]))


def _to_first_batch(spec: str, root: str, began: str) -> NoReturn:
    """A run that tells at its first batch how it came there, and ends."""
    parts: dict[str, float] = {}

    def now() -> float:
        return time.monotonic() - float(began)

    def timed(name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - whatever the call takes and gives
            before = now()
            result = call(*args, **kwargs)
            parts[name] = parts.get(name, 0.0) + now() - before
            return result

        return wrapped

    run: Any = importlib.import_module("benchmarks.run")  # this is what is measured, and it brings what follows
    clock: Any = importlib.import_module("benchmarks.callbacks").Clock
    data: Any = importlib.import_module("datamodules.landslide").LandslideDataModule

    parts["process and imports"] = now()

    def tell(*_: object) -> NoReturn:
        total = now()
        print(json.dumps({**parts, "the rest: trainer, first batch": total - sum(parts.values()), "total": total}), flush=True)
        os._exit(0)  # what a run does at its end is not asked here

    run.make_loggers = timed("loggers", run.make_loggers)
    run.create_method = timed("model", run.create_method)
    data.setup = timed("data, indexed", data.setup)
    clock.on_train_batch_start = tell
    run.main([spec, "--data", root, "--out", str(Path(spec).parent)])
    raise AssertionError("a run without a batch")


if __name__ == "__main__":
    exit_with(main, sys.argv[1:])
