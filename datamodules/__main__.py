"""`python -m datamodules` is `zoo-data`."""

from datamodules.cli import run

run()
