"""What a suite costs beside its runs, and what a run costs before its first batch.

    python -m benchmarks.runner_speed [--runs 12 --steps 20]

The overhead is the time of `zoo-bench run` from its first import to its report, one run at a time, over the sum of what the processes of its
runs took. The start-up is that of one run of the same suite, from the start of its process to its first batch, with its parts; imports
are shown by package, each with what it takes itself. Wall time is what counts on a quiet machine, processor time on a busy one.
"""

import argparse
import importlib
import json
import os
import re
import resource
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final, NoReturn

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
        overhead, root = _overhead(suite, Path(folder))
        startup = _startup(next(Path(folder).glob("runner_speed/*/spec.json")), root)
    return int(overhead > OVERHEAD_BAR or startup > STARTUP_BAR_SECONDS)


def _overhead(suite_file: Path, runs: Path) -> tuple[float, Path]:
    """Its share of the wall time, and the folder of the data."""
    began = time.perf_counter()
    from benchmarks import cli  # noqa: PLC0415 - its imports are part of what a suite costs
    from benchmarks.launchers import Ended, Started  # noqa: PLC0415
    from benchmarks.launchers.local import LocalLauncher  # noqa: PLC0415
    from benchmarks.runner import Places, keyed_plan  # noqa: PLC0415
    from benchmarks.suite import load_suite  # noqa: PLC0415

    imported = time.perf_counter() - began
    suite = load_suite(str(suite_file))
    _, root = keyed_plan(suite, Places(runs, suite.name), make_data=True)  # the data are no part of it
    assert root is not None
    local: Any = LocalLauncher
    execute, seconds, checks = LocalLauncher.execute, list[float](), list[float]()

    def timed(launcher: LocalLauncher, jobs: Any) -> Iterator[Any]:  # noqa: ANN401 - as `execute`
        for event in execute(launcher, jobs):
            if isinstance(event, Started) and not checks:
                checks.append(_processor_of_children())
            if isinstance(event, Ended):
                seconds.append(event.seconds)
            yield event

    local.execute = timed
    before, began = _processor_of_children(), time.perf_counter()
    code = cli.main(["run", str(suite_file), "--runs", str(runs), "--max-parallel", "1", "--allow-leaks"])
    wall = imported + time.perf_counter() - began
    if code or not seconds:
        raise UserError("the suite did not run", "see what it says above", file=suite_file)
    of_runs, beside = _processor_of_children() - checks[0], checks[0] - before + time.process_time()
    share = wall / sum(seconds) - 1
    print(f"{len(seconds)} runs | wall: {sum(seconds):.1f} s in their processes, {wall - sum(seconds):.1f} s beside, overhead {share:.1%}")
    print(f"processor: {of_runs:.1f} s and {beside:.1f} s, {beside / of_runs:.1%} (bar {OVERHEAD_BAR:.0%} of wall)\n")
    return share, root


def _processor_of_children() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def _startup(spec: Path, root: Path) -> float:
    total: dict[str, tuple[float, float]] = json.loads(_child(spec, root).stdout.splitlines()[-1])
    print("| until the first batch | wall [s] | processor [s] |\n|---|---:|---:|")
    for name, (wall, processor) in total.items():
        print(f"| {name} | {wall:.2f} | {processor:.2f} |")
    packages = Counter[str]()
    for microseconds, module in re.findall(
        r"^import time:\s*(\d+) \|\s*\d+ \|\s*(\S+)", _child(spec, root, "-X", "importtime").stderr, re.MULTILINE
    ):
        packages[module.partition(".")[0]] += int(microseconds)
    shown = packages.most_common(PACKAGES_SHOWN)
    print(
        "\nimports by package [s of wall, under -X importtime]: "
        + ", ".join(f"{name} {microseconds / 1e6:.2f}" for name, microseconds in shown)
    )
    wall = total["total"][0]
    print(f"start-up {wall:.1f} s (bar {STARTUP_BAR_SECONDS:.0f} s)")
    return wall


def _child(spec: Path, root: Path, *flags: str) -> "subprocess.CompletedProcess[str]":
    work = spec.parent.parent / f"first_batch{len(flags)}"
    work.mkdir()
    copy = work / "spec.json"
    copy.write_bytes(spec.read_bytes())
    command = [sys.executable, *flags, "-m", "benchmarks.runner_speed", "--first-batch", str(copy), str(root), str(time.monotonic())]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, "PYTHONUNBUFFERED": "1"})  # noqa: S603 - this module
    if done.returncode:
        raise UserError("a run did not reach its first batch", (done.stderr.strip().splitlines() or ["it says nothing"])[-1])
    return done


def _to_first_batch(spec: str, root: str, began: str) -> NoReturn:
    """A run that tells at its first batch how it came there, and ends."""
    parts: dict[str, tuple[float, float]] = {}

    def now() -> tuple[float, float]:
        return time.monotonic() - float(began), time.process_time()

    def timed(name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - whatever the call takes and gives
            before = now()
            result = call(*args, **kwargs)
            so_far = parts.get(name, (0.0, 0.0))
            parts[name] = (so_far[0] + now()[0] - before[0], so_far[1] + now()[1] - before[1])
            return result

        return wrapped

    run: Any = importlib.import_module("benchmarks.run")  # this is what is measured, and it brings what follows
    clock: Any = importlib.import_module("benchmarks.callbacks").Clock
    data: Any = importlib.import_module("datamodules.landslide").LandslideDataModule

    parts["imports"] = now()

    def tell(*_: object) -> NoReturn:
        total = now()
        rest = tuple(total[index] - sum(part[index] for part in parts.values()) for index in (0, 1))
        print(json.dumps({**parts, "the rest: trainer, first batch": rest, "total": total}), flush=True)
        os._exit(0)  # what a run does at its end is not asked here

    run.make_loggers = timed("loggers", run.make_loggers)
    run.create_method = timed("model", run.create_method)
    data.setup = timed("data, indexed", data.setup)
    clock.on_train_batch_start = tell
    run.main([spec, "--data", root, "--out", str(Path(spec).parent)])
    raise AssertionError("a run without a batch")


if __name__ == "__main__":
    exit_with(main, sys.argv[1:])
