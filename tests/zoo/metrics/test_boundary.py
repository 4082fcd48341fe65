"""Outlines against distances by brute force, and what an outline is at ignored pixels and borders."""

import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from datamodules.errors import UserError
from tests.zoo.metrics.scenes import random_mask, scenes
from zoo.metrics.boundary import BoundaryRules, boundary_counts, distances
from zoo.metrics.counts import pool


def brute_force(truth, predicted, size, rules):
    """The rules word by word: every pixel with every other."""
    known = truth != 255
    inside = {"truth": truth == 1, "predicted": predicted & known}

    def apart(a, b):
        return math.hypot((a[0] - b[0]) * size[1], (a[1] - b[1]) * size[0])

    outlines, bands = {}, {}
    for name, mask in inside.items():
        pixels = [tuple(p) for p in np.argwhere(mask)]
        background = [tuple(p) for p in np.argwhere(known & ~mask)]
        around = {p: {(p[0] + 1, p[1]), (p[0] - 1, p[1]), (p[0], p[1] + 1), (p[0], p[1] - 1)} for p in pixels}
        outlines[name] = [p for p in pixels if around[p] & set(background)]
        bands[name] = {p for p in pixels if any(apart(p, b) <= rules.band_m * (1 + 1e-9) for b in background)}

    def near(of, to):
        return [sum(any(apart(p, q) <= t * (1 + 1e-9) for q in outlines[to]) for p in outlines[of]) for t in rules.tolerances_m]

    return (
        len(outlines["predicted"]),
        len(outlines["truth"]),
        near("predicted", "truth"),
        near("truth", "predicted"),
        len(bands["truth"] & bands["predicted"]),
        len(bands["truth"] | bands["predicted"]),
    )


def plain(counts):
    values = [getattr(counts, item.name) for item in dataclasses.fields(counts) if item.name != "rules"]
    return tuple(value.tolist() if isinstance(value, np.ndarray) else value for value in values)


@settings(max_examples=60, deadline=None)
@given(scenes(largest=11), st.sampled_from([1, 1000]))
def test_counts_equal_brute_force_in_strips_of_any_height(scene, strip_pixels):
    truth, predicted, size = scene
    rules = BoundaryRules((1.5 * size[0], 3 * size[1]), 2 * max(size))
    assert plain(boundary_counts(truth, predicted, size, rules, strip_pixels=strip_pixels)) == brute_force(truth, predicted, size, rules)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([0.05, 0.5, 1.0]), st.floats(0.1, 30))
def test_distances_are_those_of_scipy(seed, share, reach):
    rng = np.random.default_rng(seed)
    to = random_mask(rng, (19, 23), share)
    to[3, 4] = True
    of = rng.random(to.shape) < 0.3
    expected = ndimage.distance_transform_edt(~to, sampling=(1.7, 0.6))[of]
    found = distances(*np.nonzero(of), to, (0.6, 1.7), reach)
    within = expected <= reach
    np.testing.assert_allclose(found[within], expected[within], atol=1e-5)
    assert (found[~within] > reach).all()


@settings(max_examples=40, deadline=None)
@given(scenes())
def test_label_and_prediction_may_change_places(scene):
    truth, predicted, size = scene
    valid = truth != 255
    rules = BoundaryRules((2 * max(size),), max(size))
    one = boundary_counts(truth, predicted, size, rules).scores()
    swapped = boundary_counts(np.where(valid, predicted, 255).astype(np.uint8), truth == 1, size, rules).scores()
    name = f"{rules.tolerances_m[0]:g}m"
    assert one[f"boundary_precision_{name}"] == pytest.approx(swapped[f"boundary_recall_{name}"], nan_ok=True)
    for key in (f"boundary_f1_{name}", f"boundary_iou_{rules.band_m:g}m"):
        assert one[key] == pytest.approx(swapped[key], nan_ok=True)


def test_borders_and_ignored_pixels_are_no_boundary():
    truth = np.ones((6, 8), np.uint8)
    counts = boundary_counts(truth, truth == 1, (1.0, 1.0), BoundaryRules((1.0,), 1.0))
    assert (counts.truth, counts.band_union) == (0, 0)
    truth[:, 4:] = 255
    counts = boundary_counts(truth, np.ones((6, 8), bool), (1.0, 1.0), BoundaryRules((1.0,), 1.0))
    assert (counts.truth, counts.predicted) == (0, 0)


@pytest.mark.parametrize(
    ("labelled", "guessed", "precision", "recall", "f1", "iou"),
    [
        (0, 0, math.nan, math.nan, math.nan, math.nan),
        (1, 0, math.nan, 0.0, 0.0, 0.0),
        (0, 1, 0.0, math.nan, 0.0, 0.0),
        (1, 1, 1.0, 1.0, 1.0, 1.0),
    ],
)
def test_empty_label_and_empty_prediction(labelled, guessed, precision, recall, f1, iou):
    square = np.pad(np.ones((4, 4)), 3)
    truth, predicted = (square * labelled).astype(np.uint8), square * guessed > 0
    scores = boundary_counts(truth, predicted, (10.0, 10.0), BoundaryRules((20.0,), 20.0)).scores()
    expected = {"boundary_precision_20m": precision, "boundary_recall_20m": recall, "boundary_f1_20m": f1, "boundary_iou_20m": iou}
    assert scores == pytest.approx(expected, nan_ok=True)


def test_a_shift_is_forgiven_from_its_length_on():
    truth = np.zeros((40, 40), np.uint8)
    truth[10:30, 10:30] = 1
    predicted = np.roll(truth, 3, axis=1) == 1
    rules = BoundaryRules((7.0, 7.5, 8.0), 2.5)
    scores = boundary_counts(truth, predicted, (2.5, 1.0), rules).scores()
    assert scores["boundary_f1_7m"] < 1
    assert scores["boundary_f1_7.5m"] == scores["boundary_f1_8m"] == 1, "three columns of 2.5 m"
    down = boundary_counts(truth, np.roll(truth, 3, axis=0) == 1, (2.5, 1.0), rules).scores()
    assert down["boundary_f1_7m"] == 1, "three rows of 1 m"


def test_scenes_pool_by_counts_and_not_by_scores():
    rng = np.random.default_rng(0)
    rules = BoundaryRules((2.0,), 2.0)
    units = [((rng.random((9, 9)) < 0.4).astype(np.uint8), rng.random((9, 9)) < 0.3) for _ in range(4)]
    # With a gap that is ignored and wider than any distance, one mosaic holds the scenes apart.
    gap = np.full((9, 6), 255, np.uint8)
    truth = np.hstack([part for unit in units for part in (unit[0], gap)])
    predicted = np.hstack([part for unit in units for part in (unit[1], gap == 255)])
    whole = boundary_counts(truth, predicted, (1.0, 1.0), rules)
    assert plain(pool(boundary_counts(*unit, (1.0, 1.0), rules) for unit in units)) == plain(whole)
    with pytest.raises(ValueError, match="rules"):
        _ = whole + boundary_counts(*units[0], (1.0, 1.0), BoundaryRules((3.0,), 2.0))


def test_senseless_distances_are_refused():
    truth = np.zeros((3, 3), np.uint8)
    with pytest.raises(UserError, match=r"band_m = 1.0: is narrower than a pixel; give at least 5"):
        boundary_counts(truth, truth == 1, (5.0, 2.0), BoundaryRules((9.0,), 1.0))
    with pytest.raises(UserError, match="tolerances_m"):
        boundary_counts(truth, truth == 1, (5.0, 2.0), BoundaryRules((0.0,), 9.0))
    with pytest.raises(ValueError, match="size"):
        boundary_counts(truth, np.zeros((4, 4), bool), (1.0, 1.0), BoundaryRules((9.0,), 9.0))
    with pytest.raises(ValueError, match="255"):
        boundary_counts(truth + 2, truth == 1, (1.0, 1.0), BoundaryRules((9.0,), 9.0))
