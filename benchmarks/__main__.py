"""`python -m benchmarks` is `zoo-bench`."""

from benchmarks.cli import run

run()
