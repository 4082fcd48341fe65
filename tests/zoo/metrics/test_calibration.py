"""Calibration against scikit-learn, brute force over pixels, and temperatures that are known."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import special
from sklearn.calibration import calibration_curve
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import brier_score_loss
from sklearn.metrics import log_loss as log_loss_of_scikit_learn

from zoo.metrics.calibration import (
    CENTRES,
    at_temperature,
    brier,
    calibration_scores,
    error_of_confident,
    fit_temperature,
    log_loss,
    reliability,
)


@st.composite
def histograms(draw):
    """Histograms with empty bins, full ends, and sometimes one label only."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    counts = rng.integers(0, 5, (2, 256)) * (rng.random((2, 256)) < draw(st.sampled_from([0.02, 0.5])))
    counts[:, 0] += rng.integers(0, 50, 2)
    counts[1] *= draw(st.sampled_from([0, 1, 1]))
    return counts


def pixels_of(histogram):
    label = np.repeat([0, 1], histogram.sum(1))
    return label, np.concatenate([np.repeat(CENTRES, row) for row in histogram])


@settings(max_examples=60, deadline=None)
@given(histograms(), st.sampled_from([0.5, 1.0, 3.0]))
def test_scores_equal_scikit_learn(histogram, temperature):
    label, probability = pixels_of(histogram)
    if not label.size:
        assert math.isnan(brier(histogram))
        return
    scaled = at_temperature(temperature)
    moved = special.expit(special.logit(probability) / temperature)
    assert brier(histogram, scaled) == pytest.approx(brier_score_loss(label, moved, labels=[0, 1]))
    assert log_loss(histogram, scaled) == pytest.approx(log_loss_of_scikit_learn(label, moved, labels=[0, 1]))
    curve = reliability(histogram, scaled)
    share, mean = calibration_curve(label, moved, n_bins=16, pos_label=1) if label.any() else (None, None)
    if share is not None:
        np.testing.assert_allclose(curve.landslide_share, share)
        np.testing.assert_allclose(curve.probability, mean)
    group = np.minimum((moved * 16).astype(int), 15)
    expected = sum(abs(moved[group == g].mean() - label[group == g].mean()) * (group == g).mean() for g in set(group))
    assert curve.ece == pytest.approx(expected)
    sure = (probability >= 231 / 256) | (probability < 25 / 256)
    wrong = (probability > 0.5) != label
    assert error_of_confident(histogram) == pytest.approx(wrong[sure].mean() if sure.any() else math.nan, nan_ok=True)


@settings(max_examples=60, deadline=None)
@given(histograms())
def test_groups_of_equal_mass_hold_all_pixels_and_differ_by_no_more_than_two_bins(histogram):
    curve = reliability(histogram, grouping="mass")
    pixels = histogram.sum(0)
    assert curve.pixels.sum() == pixels.sum()
    assert (np.diff(curve.probability) > 0).all()
    assert (curve.pixels <= pixels.sum() / 16 + 2 * pixels.max()).all()
    assert (curve.landslide_share * curve.pixels).sum() == pytest.approx(histogram[1].sum())
    # Temperature keeps the order of bins, hence groups of equal mass.
    np.testing.assert_array_equal(reliability(histogram, at_temperature(2.0), grouping="mass").pixels, curve.pixels)


def test_a_calibrated_histogram_has_no_error_and_temperature_one():
    landslide = np.arange(256) * 2 + 1
    histogram = np.stack([512 - landslide, landslide]) * 1000
    assert reliability(histogram).ece == pytest.approx(0, abs=1e-12)
    assert reliability(histogram, grouping="mass").ece == pytest.approx(0, abs=1e-12)
    assert fit_temperature(histogram) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("temperature", [0.4, 1.7, 4.0])
def test_a_known_temperature_is_found_again(temperature):
    # Labels are drawn at the probabilities that the temperature gives, in exact proportion.
    truth = at_temperature(temperature)
    histogram = np.round(np.stack([1 - truth, truth]) * 1e7).astype(np.int64)
    assert fit_temperature(histogram) == pytest.approx(temperature, rel=1e-4)
    scores = calibration_scores(histogram, 0.5, temperature)
    assert scores["ece_width16_scaled"] == pytest.approx(0, abs=1e-6)
    assert scores["ece_width16"] > 0.01


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_temperature_equals_a_logistic_regression_with_one_slope(seed):
    rng = np.random.default_rng(seed)
    histogram = rng.integers(1, 40, (2, 256)) * np.stack([np.linspace(2, 1, 256), np.linspace(1, 3, 256)]).round().astype(int)
    label, probability = pixels_of(histogram)
    model = LogisticRegression(C=np.inf, fit_intercept=False, tol=1e-9).fit(special.logit(probability)[:, None], label)
    assert fit_temperature(histogram) == pytest.approx(min(1 / model.coef_[0, 0], 20), rel=1e-3)


def test_what_has_no_pixels_or_one_label_is_nan_and_not_an_opinion():
    nothing = np.zeros((2, 256), np.int64)
    assert math.isnan(fit_temperature(nothing))
    assert all(map(math.isnan, calibration_scores(nothing, 0.5, math.nan).values()))
    background = nothing.copy()
    background[0] = 1
    assert math.isnan(fit_temperature(background))
    scores = calibration_scores(background, 0.5, math.nan)
    assert scores["ece_width16"] == pytest.approx(0.5)
    assert scores["ece_predicted"] == pytest.approx(0.75), "mean probability of the upper half, all of it background"
    assert math.isnan(scores["ece_width16_scaled"])


def test_calibration_pools_over_units():
    rng = np.random.default_rng(2)
    units = rng.integers(0, 9, (6, 2, 256))
    label, probability = (np.concatenate(parts) for parts in zip(*map(pixels_of, units), strict=True))
    assert brier(units.sum(0)) == pytest.approx(brier_score_loss(label, probability))
