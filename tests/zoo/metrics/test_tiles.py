"""Tiles as landslide or not, from their histograms, against scikit-learn on the tiles' pixels."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, f1_score

from zoo.metrics.counts import pool
from zoo.metrics.pixels import score_histogram
from zoo.metrics.tiles import TileRule, tile_counts


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(0, 6), st.sampled_from([0.001, 0.25, 1.0]), st.sampled_from([0.25, 0.7]))
def test_scores_equal_scikit_learn(seed, tiles, min_share, threshold):
    rng = np.random.default_rng(seed)
    # Shares of k / 8 of the eight pixels, so that shares equal to the minimum occur.
    mask = (rng.random((tiles, 2, 4)) < rng.random((tiles, 1, 1))).astype(np.uint8)
    mask[rng.random(mask.shape) < 0.2] = 255
    chance = rng.choice([0.0, 0.2, 0.25, 0.6, 0.8, 1.0], mask.shape)
    histograms = score_histogram(torch.from_numpy(chance), torch.from_numpy(mask)).numpy()
    counts = tile_counts(histograms, TileRule(threshold, min_share))
    edge = math.ceil(threshold * 256) / 256
    kept = [tile for tile in range(tiles) if (mask[tile] != 255).any()]
    truth = [(mask[tile][mask[tile] != 255] == 1).mean() >= min_share for tile in kept]
    guess = [(chance[tile][mask[tile] != 255] >= edge).mean() >= min_share for tile in kept]
    assert counts.tp + counts.fp + counts.fn + counts.tn == len(kept)
    scores = counts.scores()
    if not kept:
        assert all(map(math.isnan, scores.values()))
        return
    assert scores["tile_share_accuracy"] == pytest.approx(accuracy_score(truth, guess))
    assert scores["tile_share_prevalence"] == pytest.approx(np.mean(truth))
    assert scores["tile_share_f1"] == pytest.approx(f1_score(truth, guess, zero_division=np.nan), nan_ok=True)
    halves = [tile_counts(part, TileRule(threshold, min_share)) for part in (histograms[:2], histograms[2:])]
    assert pool(halves).vector().tolist() == counts.vector().tolist()


def test_a_share_outside_its_range_is_refused():
    with pytest.raises(ValueError, match="min_share"):
        TileRule(0.5, min_share=0.0)
