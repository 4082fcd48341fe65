"""Scores that follow from the histograms beside a record: calibration, the oracle's threshold, tiles as landslide or not.

They are taken when a report is made and stored nowhere, so records of any age have them.
"""

import functools
import math
import operator
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch

from benchmarks.record import Histograms, RunRecord, load_histograms
from benchmarks.report.rows import Derived
from zoo.metrics.calibration import calibration_scores, fit_temperature
from zoo.metrics.pixels import NUM_BINS, oracle_scores
from zoo.metrics.tiles import TileRule, tile_counts


def derive(records: Mapping[str, RunRecord], folder: Path) -> Derived:
    """Scores of all finished records.

    Args:
        records: By key.
        folder: `RESULTS/records`, which holds their histograms.
    """
    return {
        key: derived_scores(
            load_histograms(folder / f"{key}.npz"),
            record.metrics["test"]["threshold"],
            # A record without a Brier score says that its scores are no probabilities.
            calibrated=not math.isnan(record.metrics["test"].get("brier", math.nan)),
        )
        for key, record in records.items()
        if record.status == "finished"
    }


def derived_scores(histograms: Histograms, threshold: float, *, calibrated: bool) -> dict[str, float]:
    """Scores of one run on the test split; see `zoo.metrics` for their rules.

    Args:
        histograms: `val` sets the temperature, `test` is scored.
        threshold: The one that validation chose.
        calibrated: False for scores that order pixels but are no probabilities, such as a slope: they have no calibration.
    """
    val, test = (functools.reduce(operator.add, histograms[split].values(), np.zeros((2, NUM_BINS), np.int64)) for split in ("val", "test"))
    scores = oracle_scores(torch.from_numpy(test), threshold)
    scores |= tile_counts(histograms["test"].values(), TileRule(threshold)).scores()
    return scores | calibration_scores(test, threshold, fit_temperature(val)) if calibrated else scores
