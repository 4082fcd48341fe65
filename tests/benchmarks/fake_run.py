"""Stands in for `benchmarks.run` in the tests of the runner: takes the same arguments, does what the specification's method says."""

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from benchmarks.leases import ELSEWHERE, take
from benchmarks.record import RunRecord, load_record, save_record
from benchmarks.spec import RunSpec

SCORES = dict.fromkeys(("prevalence", "precision", "recall", "f1", "iou_landslide", "miou", "ap", "threshold"), 0.5)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("spec", type=Path)
    for name in ("--data", "--out", "--threads"):
        parser.add_argument(name)
    options = parser.parse_args()
    work, spec = options.spec.parent, RunSpec.from_dict(json.loads(options.spec.read_text()))
    lease = take(work)
    if lease is None:
        return ELSEWHERE
    with lease:
        record = Path(options.out) / f"{spec.key}.json"
        if record.exists() and load_record(record).status == "finished":
            return 0
        record.unlink(missing_ok=True)
        return pretend(work, spec, options)


def pretend(work, spec, options):
    attempts = work / "attempts"
    attempts.write_text(attempts.read_text() + "x" if attempts.exists() else "x")
    (work / "environment.json").write_text(json.dumps({**os.environ, "threads_granted": options.threads}))
    if spec.method in {"hang", "hang_once", "crash_once", "crash"}:
        (work / "checkpoints").mkdir(exist_ok=True)
        (work / "checkpoints" / "last.ckpt").write_text("state")
    if spec.method == "hang" or (spec.method == "hang_once" and attempts.read_text() == "x"):
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
        (work / "pids").write_text(f"{os.getpid()} {child.pid}")
        time.sleep(600)
    if spec.method == "crash" or (spec.method == "crash_once" and attempts.read_text() == "x"):
        print("about to fail")
        raise ValueError("the loss is\nnot finite | at all")
    if spec.method == "user_error":
        print("error: data.halo = 0: too small; set it to 1\nwandb: bye", file=sys.stderr)
        return 1
    if spec.method == "killed":
        os.kill(os.getpid(), 9)
    if spec.method == "slow":
        time.sleep(0.5)
    if spec.method == "silent":
        return 0
    histograms = {"val": {"a:0:0": np.ones((2, 256))}, "test": {"b:0:0": np.ones((2, 256))}}
    record = RunRecord(spec.key, "finished", spec.to_dict(), metrics={"val": SCORES, "test": SCORES}, cost={"seconds": 1.0})
    record.data.update(name="d", fingerprint="f", splits={})
    record.environment.update(git={"commit": None}, cpu="c", gpu=None, threads=1, packages={}, date="2026-01-01")
    record.environment["loggers"] = {"csv": "whole", "wandb": "OSError: gone"} if spec.method == "unlogged" else {}
    save_record(record, Path(options.out), histograms)
    return 0


if __name__ == "__main__":
    sys.exit(main())
