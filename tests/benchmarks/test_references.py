"""The reference rows against plain NumPy on small batches."""

import math

import numpy as np
import pytest
import torch

from benchmarks.references import background_score, histograms_of, reference_scores, slope_score
from zoo.metrics.pixels import NUM_BINS


def horn_slope(dem, x_m, y_m):
    """Horn's slope in degrees of the inner pixels, one by one."""
    height, width = dem.shape
    slopes = np.full((height - 2, width - 2), np.nan)
    for row in range(1, height - 1):
        for column in range(1, width - 1):
            a = dem[row - 1 : row + 2, column - 1 : column + 2]
            if np.isnan(a).any():
                continue
            east = (a[0, 2] + 2 * a[1, 2] + a[2, 2] - a[0, 0] - 2 * a[1, 0] - a[2, 0]) / (8 * x_m)
            south = (a[2, 0] + 2 * a[2, 1] + a[2, 2] - a[0, 0] - 2 * a[0, 1] - a[0, 2]) / (8 * y_m)
            slopes[row - 1, column - 1] = math.degrees(math.atan(math.hypot(east, south)))
    return slopes


@pytest.fixture
def batches():
    generator = np.random.default_rng(5)
    made = []
    for name in ("a", "b"):
        dem = generator.normal(0, 6, (3, 1, 22, 26)).cumsum(-1)
        dem[0, 0, 4, 7] = np.nan
        mask = (generator.random((3, 20, 24)) < 0.3).astype(np.uint8)
        mask[1, :, :5] = 255
        made.append(
            {
                "image": torch.zeros(3, 3, 20, 24),
                "dem": torch.from_numpy(dem).float(),
                "mask": torch.from_numpy(mask),
                "pixel_size": torch.tensor([[8.0, 12.0]] * 3),
                "tile": [f"{name}:{index}:0" for index in range(3)],
            }
        )
    return made


def steepness(batch):
    return np.stack([horn_slope(dem[0].double().numpy(), 8.0, 12.0) for dem in batch["dem"]])


def test_the_score_is_the_slope_over_90_and_0_where_there_is_none(batches):
    expected = np.nan_to_num(steepness(batches[0])) / 90
    np.testing.assert_allclose(slope_score(batches[0]).numpy(), expected, atol=1e-5)
    assert (slope_score(batches[0])[0, 2:5, 5:8] == 0).all()


def test_the_threshold_is_the_best_of_validation_and_the_scores_are_those_of_counting(batches):
    val, test = batches
    metrics = reference_scores({"val": histograms_of([val], slope_score), "test": histograms_of([test], slope_score)}, "slope_threshold")
    degrees = metrics["test"]["threshold_deg"]
    assert metrics["val"]["threshold"] * 90 == pytest.approx(degrees)

    def f1(batch, threshold):
        mask, steep = batch["mask"].numpy(), slope_score(batch).numpy() * 90
        called, counted = steep >= threshold, mask != 255
        hit = (called & (mask == 1)).sum()
        return 2 * hit / ((called & counted).sum() + (mask == 1).sum())

    candidates = np.arange(1, NUM_BINS) * 90 / NUM_BINS
    assert np.diff(candidates).max() <= 0.5
    assert f1(val, degrees - 1e-4) == pytest.approx(max(f1(val, candidate - 1e-4) for candidate in candidates), abs=1e-9)
    assert metrics["test"]["f1"] == pytest.approx(f1(test, degrees - 1e-4), abs=1e-9)
    assert metrics["test"]["pixels"] == (test["mask"] != 255).sum()
    assert math.isnan(metrics["test"]["brier"])


def test_all_background_finds_nothing_and_its_accuracy_is_the_share_of_background(batches):
    histograms = {split: histograms_of([batch], background_score) for split, batch in zip(("val", "test"), batches, strict=True)}
    scores = reference_scores(histograms, "all_background")["test"]
    share = float((batches[1]["mask"] == 1).sum() / (batches[1]["mask"] != 255).sum())
    assert (scores["iou_landslide"], scores["recall"]) == (0, 0)
    assert math.isnan(scores["precision"])
    assert scores["prevalence"] == scores["ap"] == pytest.approx(share)
    assert scores["miou"] == pytest.approx((1 - share) / 2)


def test_each_tile_has_its_own_histogram(batches):
    histograms = histograms_of(batches, slope_score)
    assert list(histograms) == [*batches[0]["tile"], *batches[1]["tile"]]
    for index, tile in enumerate(batches[0]["tile"]):
        assert int(histograms[tile].sum()) == int((batches[0]["mask"][index] != 255).sum())
