"""Pixel metrics against scikit-learn, brute force and the identities that the papers' own numbers satisfy."""

import math

import numpy as np
import pytest
import torch
import torch.multiprocessing as mp
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, brier_score_loss, confusion_matrix, matthews_corrcoef

from zoo.metrics.pixels import (
    NUM_BINS,
    average_precision,
    best_threshold,
    confusion,
    pixel_scores,
    score_histogram,
)
from zoo.metrics.running import ScoreHistogram


@st.composite
def predictions(draw):
    """A batch of probabilities and masks with ignored pixels; edges of bins and the ends 0 and 1 included."""
    seed = draw(st.integers(0, 2**32 - 1))
    share = draw(st.sampled_from([0.0, 0.05, 0.5, 1.0]))
    rng = np.random.default_rng(seed)
    probabilities = rng.random((3, 7, 5), dtype=np.float32)
    probabilities[rng.random(probabilities.shape) < 0.2] = rng.choice([0.0, 1.0, 0.5, 0.25])
    mask = (rng.random(probabilities.shape) < share).astype(np.uint8)
    mask[rng.random(mask.shape) < 0.2] = 255
    return torch.from_numpy(probabilities), torch.from_numpy(mask)


@settings(max_examples=60, deadline=None)
@given(predictions(), st.integers(0, NUM_BINS))
def test_scores_equal_scikit_learn(batch, edge):
    probabilities, mask = batch
    threshold = edge / NUM_BINS
    histogram = score_histogram(probabilities, mask).sum(0)
    valid = mask != 255
    truth, score = mask[valid].numpy(), probabilities[valid].double().numpy()
    if truth.size == 0:
        assert int(histogram.sum()) == 0
        return
    predicted = score >= threshold if edge < NUM_BINS else np.zeros_like(truth)  # at 1 nothing is predicted
    tn, fp, fn, tp = confusion_matrix(truth, predicted, labels=[0, 1]).ravel()
    assert tuple(int(count) for count in confusion(histogram, threshold)) == (tp, fp, fn, tn)
    scores = pixel_scores(histogram, threshold)
    assert scores["prevalence"] == pytest.approx(truth.mean())
    if tp + fp + fn:
        assert scores["iou_landslide"] == pytest.approx(tp / (tp + fp + fn))
        assert scores["f1"] == pytest.approx(2 * scores["iou_landslide"] / (1 + scores["iou_landslide"]))
    if not math.isnan(scores["mcc"]):
        assert scores["mcc"] == pytest.approx(matthews_corrcoef(truth, predicted))
    binned = (np.minimum(np.floor(score * NUM_BINS), NUM_BINS - 1) + 0.5) / NUM_BINS
    assert scores["brier"] == pytest.approx(brier_score_loss(truth, binned, labels=[0, 1]))
    if truth.any():
        assert scores["ap"] == pytest.approx(average_precision_score(truth, binned))


def test_a_score_without_denominator_is_nan_and_not_an_opinion():
    nothing_predicted = score_histogram(torch.full((1, 2, 2), 0.1), torch.tensor([[[0, 1], [0, 0]]]))[0]
    scores = pixel_scores(nothing_predicted, 0.5)
    assert math.isnan(scores["precision"])
    assert scores["recall"] == 0
    assert scores["iou_landslide"] == 0
    assert math.isnan(average_precision(torch.zeros(2, NUM_BINS, dtype=torch.int64)))


@settings(max_examples=30, deadline=None)
@given(predictions())
def test_the_best_threshold_is_the_best_of_all(batch):
    histogram = score_histogram(*batch).sum(0)
    chosen = best_threshold(histogram)
    if int(histogram[1].sum()) == 0:
        assert chosen == 0.5
        return
    f1 = [pixel_scores(histogram, edge / NUM_BINS)["f1"] for edge in range(1, NUM_BINS)]
    assert pixel_scores(histogram, chosen)["f1"] == pytest.approx(max(f1))


def test_nan_probabilities_are_refused_where_they_count_and_ignored_where_not():
    probabilities = torch.tensor([[[0.5, float("nan")]]])
    with pytest.raises(ValueError, match="NaN"):
        score_histogram(probabilities, torch.tensor([[[0, 1]]]))
    assert int(score_histogram(probabilities, torch.tensor([[[0, 255]]])).sum()) == 1


def test_published_rows_satisfy_the_identity_of_one_pooled_matrix():
    # METHODS.md section 6: landslide F1 and IoU of the papers; a per-image mean would not satisfy this in all rows.
    for f1, iou in [(0.5054, 0.3381), (0.5448, 0.3743), (0.5646, 0.3934), (0.501, 0.334), (0.565, 0.394)]:
        assert f1 / (2 - f1) == pytest.approx(iou, abs=6e-4)


def _rank(rank: int, folder: str) -> None:
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2)
    generator = torch.Generator().manual_seed(0)
    probabilities, mask = torch.rand(5, 4, 4, generator=generator), torch.randint(0, 2, (5, 4, 4), generator=generator)
    metric = ScoreHistogram()
    # Uneven shares: rank 0 sees one sample, rank 1 four.
    part = slice(0, 1) if rank == 0 else slice(1, 5)
    metric.update(probabilities[part], mask[part])
    torch.save(metric.compute(), f"{folder}/{rank}.pt")
    torch.distributed.destroy_process_group()


def test_two_processes_pool_exactly(tmp_path):
    mp.spawn(_rank, args=(str(tmp_path),), nprocs=2)
    generator = torch.Generator().manual_seed(0)
    probabilities, mask = torch.rand(5, 4, 4, generator=generator), torch.randint(0, 2, (5, 4, 4), generator=generator)
    expected = score_histogram(probabilities, mask).sum(0)
    for rank in range(2):
        assert torch.equal(torch.load(tmp_path / f"{rank}.pt", weights_only=True), expected)
