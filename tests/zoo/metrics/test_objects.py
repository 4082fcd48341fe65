"""Objects against scipy's labels of the whole scene, a matcher that tries everything, and the identities of panoptic quality."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from datamodules.errors import UserError
from tests.zoo.metrics.scenes import scenes
from zoo.metrics.components import overlaps_of_labels, overlaps_of_rasters
from zoo.metrics.counts import pool
from zoo.metrics.objects import ObjectRules, match_one_to_one, object_counts

EIGHT = np.ones((3, 3))


def sets_of(mask):
    labels, num = ndimage.label(mask, EIGHT)
    return [{tuple(pixel) for pixel in np.argwhere(labels == number)} for number in range(1, num + 1)]


def best_matching(iou, least):
    """Most pairs, then largest sum of IoU, by trying every subset of admissible pairs."""
    admissible = [pair for pair in itertools.product(*map(range, iou.shape)) if iou[pair] >= least]
    for size in range(min(iou.shape), 0, -1):
        sums = [
            sum(iou[pair] for pair in chosen)
            for chosen in itertools.combinations(admissible, size)
            if len({t for t, _ in chosen}) == len({p for _, p in chosen}) == size
        ]
        if sums:
            return size, max(sums)
    return 0, 0.0


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 4), st.integers(1, 4), st.sampled_from([0.1, 0.3]))
def test_matching_is_the_best_of_all(seed, num_truth, num_predicted, least):
    rng = np.random.default_rng(seed)
    # Equal values on purpose: ties, and chains where the greedy choice loses a pair.
    iou = rng.choice([0.0, 0.1, 0.2, 0.3, 0.45, 0.5], (num_truth, num_predicted))
    truth, predicted = np.nonzero(iou >= least)
    if truth.size > 9:
        truth, predicted = truth[:9], predicted[:9]
        iou = np.where(np.isin(np.arange(iou.size).reshape(iou.shape), truth * num_predicted + predicted), iou, 0)
    match = match_one_to_one(truth * 7, predicted + 5, iou[truth, predicted])
    assert len(set(truth[match])) == len(set(predicted[match])) == len(match)
    size, total = best_matching(iou, least)
    assert (len(match), iou[truth[match], predicted[match]].sum()) == (size, pytest.approx(total))


def by_definition(truth, predicted, size, rules):
    """The rules word by word, on sets of pixels; the matcher is tested above."""
    known = {tuple(p) for p in np.argwhere(truth != 255)}
    pixel_m2 = size[0] * size[1] * (1 + 1e-9)
    all_truth, all_predicted = sets_of(truth == 1), sets_of(predicted)
    actual = [t for t in all_truth if len(t) * pixel_m2 >= rules.min_area_m2]
    dropped = set().union(*[t for t in all_truth if len(t) * pixel_m2 < rules.min_area_m2])
    guess = [p for p in all_predicted if p & known and len(p & known) * pixel_m2 >= rules.min_area_m2]
    excused = [2 * (len(p - known) + len(p & dropped)) > len(p) for p in guess]
    iou = np.array([[len(t & p) / len(t | (p & known)) for p in guess] for t in actual]).reshape(len(actual), len(guess))
    result = {}
    for least, name in zip(rules.ious, rules.names, strict=False):
        t, p = np.nonzero(iou >= least)
        match = match_one_to_one(t, p, iou[t, p])
        result[name] = (set(t[match]), set(p[match]))
    on_truth, on_guess = set().union(*actual), set().union(*guess)
    for least, name in ((rules.coverage, rules.names[-2]), (0, rules.names[-1])):
        found = {i for i, t in enumerate(actual) if len(t & on_guess) >= max(least * len(t), 1)}
        result[name] = (found, {i for i, p in enumerate(guess) if len(p & on_truth) >= max(least * len(p & known), 1)})
    judged = {name: sum(i in right or not excused[i] for i in range(len(guess))) for name, (_, right) in result.items()}
    return actual, result, judged, iou


@settings(max_examples=80, deadline=None)
@given(scenes(), st.sampled_from([1, 40, 1000]), st.sampled_from([0, 3]))
def test_counts_follow_the_definitions_in_strips_of_any_height(scene, strip_pixels, min_pixels):
    truth, predicted, size = scene
    pixel_m2 = size[0] * size[1]
    rules = ObjectRules(min_area_m2=min_pixels * pixel_m2, area_edges_m2=(4 * pixel_m2, 12 * pixel_m2))
    counts = object_counts(overlaps_of_rasters(truth, predicted, strip_pixels=strip_pixels), size, rules)
    actual, result, judged, iou = by_definition(truth, predicted, size, rules)
    classes = [(len(t) >= 4) + (len(t) >= 12) for t in actual]
    assert counts.truth.tolist() == [classes.count(number) for number in range(3)]
    for row, name in enumerate(rules.names):
        found, right = result[name]
        assert counts.found[row].tolist() == [sum(classes[i] == number for i in found) for number in range(3)], name
        assert (counts.right[row], counts.predicted[row]) == (len(right), judged[name]), name
    strict = iou[iou > 0.5]
    assert (counts.panoptic_matched, counts.panoptic_iou) == (strict.size, pytest.approx(strict.sum()))
    assert counts.km2 == pytest.approx((truth != 255).sum() * pixel_m2 / 1e6)
    scores = counts.scores()
    if counts.panoptic_matched:
        assert scores["panoptic_quality"] == pytest.approx(scores["segmentation_quality"] * scores["recognition_quality"])
    recalls = [scores[f"object_recall_{name}"] for name in rules.names[:4]]
    if actual:
        assert recalls == sorted(recalls, reverse=True), "a stricter rule finds no more"


@settings(max_examples=40, deadline=None)
@given(scenes())
def test_labelled_arrays_give_what_rasters_give(scene):
    truth, predicted, size = scene
    rules = ObjectRules(min_area_m2=2 * size[0] * size[1])
    labels = ndimage.label(truth == 1, EIGHT)[0] * 10, ndimage.label(predicted, EIGHT)[0] * 3
    ours = object_counts(overlaps_of_labels(*labels, truth != 255), size, rules)
    assert ours.vector() == pytest.approx(object_counts(overlaps_of_rasters(truth, predicted), size, rules).vector())


def test_numbered_objects_that_touch_stay_two():
    truth = np.array([[1, 1, 2, 2]])
    overlaps = overlaps_of_labels(truth, np.array([[1, 1, 1, 1]]))
    assert overlaps.truth.tolist() == [2, 2]
    counts = object_counts(overlaps, (1.0, 1.0), ObjectRules(0))
    scores = counts.scores()
    assert scores["object_recall_iou0.5"] == 0.5, "one to one"
    assert scores["object_recall_coverage0.5"] == 1, "many to one"


@pytest.mark.parametrize(
    ("labelled", "guessed", "expected"), [(0, 0, (math.nan,) * 4), (1, 0, (math.nan, 0, 0, 0)), (0, 1, (0, math.nan, 0, 0))]
)
def test_empty_label_and_empty_prediction(labelled, guessed, expected):
    square = np.pad(np.ones((4, 4)), 3)
    rules = ObjectRules(0)
    scores = object_counts(overlaps_of_rasters((square * labelled).astype(np.uint8), square * guessed > 0), (10.0, 10.0), rules).scores()
    for rule in rules.names:
        found = tuple(scores[f"object_{name}_{rule}"] for name in ("precision", "recall", "f1"))
        assert (*found, scores["panoptic_quality"]) == pytest.approx(expected, nan_ok=True)
        assert scores[f"object_false_alarms_per_km2_{rule}"] == pytest.approx(guessed / 0.01)


def test_all_ignored_has_neither_objects_nor_area():
    scores = object_counts(overlaps_of_rasters(np.full((5, 5), 255, np.uint8), np.ones((5, 5), bool)), (1.0, 1.0), ObjectRules(0)).scores()
    assert scores.pop("objects") == 0
    assert all(map(math.isnan, scores.values()))


def test_what_lies_on_ignored_or_too_small_landslides_is_no_false_alarm():
    truth = np.zeros((20, 20), np.uint8)
    truth[2:5, 2:5] = 1
    truth[10:20] = 255
    predicted = np.zeros((20, 20), bool)
    predicted[2:5, 2:6] = True
    predicted[9:13, 2:6] = True  # a quarter of it is valid
    counts = object_counts(overlaps_of_rasters(truth, predicted), (1.0, 1.0), ObjectRules(0, area_edges_m2=()))
    assert (counts.predicted[0], counts.right[0]) == (1, 1)
    counts = object_counts(overlaps_of_rasters(truth, predicted), (1.0, 1.0), ObjectRules(10, area_edges_m2=()))
    assert (counts.truth.sum(), counts.predicted[0]) == (0, 0), "9 pixels labelled, 12 predicted, 10 asked for"
    predicted[15:18, 10:13] = True
    predicted[6:10, 10:14] = True
    counts = object_counts(overlaps_of_rasters(truth, predicted), (1.0, 1.0), ObjectRules(0, area_edges_m2=()))
    assert (counts.predicted[0], counts.right[0]) == (2, 1), "a false alarm on valid ground stays one"


def test_scenes_pool_by_counts_and_draws_by_vectors():
    rng = np.random.default_rng(1)
    rules = ObjectRules(3.0, area_edges_m2=(6.0,))
    units = [((rng.random((30, 20)) < 0.3).astype(np.uint8), rng.random((30, 20)) < 0.3) for _ in range(5)]
    gap = np.zeros((30, 1), np.uint8)
    counts = [object_counts(overlaps_of_rasters(*unit), (1.0, 1.0), rules) for unit in units]
    pooled = pool(counts)
    truth = np.hstack([part for unit in units for part in (unit[0], gap)])
    predicted = np.hstack([part for unit in units for part in (unit[1], gap == 1)])
    whole = object_counts(overlaps_of_rasters(truth, predicted), (1.0, 1.0), rules)
    assert whole.vector()[:-1] == pytest.approx(pooled.vector()[:-1])
    assert whole.km2 - pooled.km2 == pytest.approx(5 * 30 / 1e6)
    weights = np.array([2, 0, 1, 1, 1])
    drawn = pooled.from_vector(weights @ np.stack([unit.vector() for unit in counts]))
    assert drawn.scores() == pytest.approx(pool([counts[0], counts[0], *counts[2:]]).scores(), nan_ok=True)


def test_senseless_rules_are_refused():
    overlaps = overlaps_of_labels(np.zeros((2, 2), int), np.zeros((2, 2), int))
    for field, rules in (
        ("min_area_m2", ObjectRules(-1)),
        ("ious", ObjectRules(0, ious=(0.0,))),
        ("coverage", ObjectRules(0, coverage=1.5)),
        ("area_edges_m2", ObjectRules(0, area_edges_m2=(5, 2))),
    ):
        with pytest.raises(UserError, match=field):
            object_counts(overlaps, (1.0, 1.0), rules)
