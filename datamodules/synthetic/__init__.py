"""Synthetic relic-landslide scenes: the offline default data of the project.

Nobody may publish the relic-landslide sets that the methods were made for, so this generator stands in: a stream-dissected loess
landscape (`relief`), old landslides carved into it and weathered (`morphology`), confusers without a label (`confusers`), an image
that tells little about them (`imagery`), and an elevation model that is coarser, noisy and on another grid (`scene`).
It is meant to be hard: neither colour nor slope alone finds the landslides; `tests/datamodules/test_synthetic.py` measures that.
"""

from datamodules.synthetic.dataset import GENERATOR_VERSION, synthesize
from datamodules.synthetic.figure import figure

__all__ = ["GENERATOR_VERSION", "figure", "synthesize"]
