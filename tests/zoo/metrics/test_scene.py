"""All scores of a scene at once: the same map for pixels, outlines and objects, from arrays and from files that are read in strips."""

import math
import time
import tracemalloc

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from sklearn.metrics import jaccard_score

from tests.zoo.metrics.scenes import scenes
from zoo.metrics.counts import pool
from zoo.metrics.pixels import oracle_scores, pixel_scores, score_histogram
from zoo.metrics.rasters import strips
from zoo.metrics.scene import SceneRules, scene_scores


def probability_of(predicted, seed=0):
    """At or above 0.7 where predicted, below where not."""
    draw = np.random.default_rng(seed).random(predicted.shape)
    return np.where(predicted, 0.7 + 0.3 * draw, 0.699 * draw).astype(np.float32)


@settings(max_examples=30, deadline=None)
@given(scenes())
def test_pixels_outlines_and_objects_see_one_map(scene):
    truth, predicted, size = scene
    rules = SceneRules.by_pixels(size, threshold=0.699)
    assert rules.threshold == 179 / 256, "the next edge of a bin"
    chance = probability_of(predicted)
    counts = scene_scores(chance, truth, size, rules)
    scores, valid = counts.scores(), truth != 255
    above = chance >= 179 / 256
    if (truth[valid] | above[valid]).any():
        assert scores["iou_landslide"] == pytest.approx(jaccard_score(truth[valid], above[valid]))
    if not (truth == 1).any():
        assert math.isnan(scores["object_recall_any_hit"])
        assert math.isnan(scores["oracle_gap"])
    if (above & (truth == 1)).sum() >= 1 and rules.objects.min_area_m2 <= size[0] * size[1]:
        assert scores["object_recall_any_hit"] > 0
    in_strips = scene_scores(chance, truth, size, rules, strip_pixels=1)
    assert in_strips.vector() == pytest.approx(counts.vector())


def test_a_memory_map_is_read_in_strips_and_gives_the_same(tmp_path):
    rng = np.random.default_rng(3)
    truth = np.kron(rng.random((20, 12)) < 0.2, np.ones((8, 8))).astype(np.uint8)
    chance = np.clip(truth * 0.6 + rng.random(truth.shape) * 0.4, 0, 1).astype(np.float32)
    asked = []

    class OnDisk:
        """Rows of a file, as a GeoTIFF reader would give them."""

        def __init__(self, name, array):
            self.array = np.memmap(tmp_path / name, array.dtype, "w+", shape=array.shape)
            self.array[:] = array
            self.shape = array.shape

        def __getitem__(self, rows):
            asked.append(rows.stop - rows.start)
            return self.array[rows]

    rules = SceneRules.by_pixels((3.0, 3.0), 0.5)
    found = scene_scores(OnDisk("p", chance), OnDisk("t", truth), (3.0, 3.0), rules, strip_pixels=10 * truth.shape[1])
    assert found.scores() == scene_scores(chance, truth, (3.0, 3.0), rules).scores()
    assert max(asked) <= 10 + 2 * 5, "strip and halo of four pixels and one"


def test_memory_does_not_grow_with_the_scene():
    class Discs:
        """Rows that are made when asked for: a disc in every square of 50 pixels, moved by some pixels."""

        def __init__(self, height, moved, dtype):
            self.shape, self.moved, self.dtype = (height, 400), moved, dtype

        def __getitem__(self, rows):
            y, x = np.arange(rows.start, rows.stop)[:, None] % 50 - 25, (np.arange(400)[None] + self.moved) % 50 - 25
            return ((x * x + y * y < 150) * 0.9).round(1 if self.dtype == np.float32 else 0).astype(self.dtype)

    peaks = []
    for height in (500, 4000):
        rules = SceneRules.by_pixels((2.0, 2.0), 0.5)
        tracemalloc.start()
        counts = scene_scores(Discs(height, 3, np.float32), Discs(height, 0, np.uint8), (2.0, 2.0), rules, strip_pixels=40_000)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert counts.objects.truth.sum() == height / 50 * 8
        assert counts.scores()["object_recall_iou0.5"] == 1
    assert peaks[1] < 1.2 * peaks[0]
    assert peaks[1] < 40_000 * 100, "some 40 bytes a pixel of a strip and its halo"


@pytest.mark.slow
def test_a_thousand_objects_in_sixteen_million_pixels_take_seconds():
    rng = np.random.default_rng(5)
    truth = np.zeros((4000, 4000), np.uint8)
    y, x = np.mgrid[-40:41, -40:41]
    for _ in range(1300):
        row, column = rng.integers(0, 3919, 2)
        truth[row : row + 81, column : column + 81] |= (y / rng.uniform(8, 35)) ** 2 + (x / rng.uniform(8, 35)) ** 2 <= 1
    chance = np.roll(truth, (5, 3), (0, 1)).astype(np.float32) * 0.9
    begin = time.process_time()
    counts = scene_scores(chance, truth, (2.0, 2.0), SceneRules.by_pixels((2.0, 2.0), 0.5))
    assert counts.objects.truth.sum() > 900
    assert time.process_time() - begin < 20, "6 s of a core in 2026; far more would be another algorithm"


def test_pooled_scenes_are_not_the_mean_of_scenes():
    rules = SceneRules.by_pixels((1.0, 1.0), 0.5)
    truth = np.zeros((30, 30), np.uint8)
    truth[5:25, 5:25] = 1
    small = np.zeros((30, 30), np.uint8)
    small[5:10, 5:10] = 1
    units = [scene_scores(truth * 0.9, truth, (1.0, 1.0), rules), scene_scores(small * 0.0, small, (1.0, 1.0), rules)]
    scores = pool(units).scores()
    assert scores["iou_landslide"] == pytest.approx(400 / 425)
    assert scores["object_recall_iou0.5"] == 0.5
    assert pool(units).from_vector(units[0].vector()).scores() == pytest.approx(units[0].scores(), nan_ok=True)
    with pytest.raises(ValueError, match="rules"):
        pool([units[0], scene_scores(small * 0.0, small, (1.0, 1.0), SceneRules.by_pixels((1.0, 1.0), 0.6))])
    with pytest.raises(ValueError, match="no units"):
        pool([])


def test_a_probability_that_is_missing_where_the_label_counts_is_refused():
    truth = np.zeros((4, 4), np.uint8)
    rules = SceneRules.by_pixels((1.0, 1.0), 0.5)
    with pytest.raises(ValueError, match="NaN"):
        scene_scores(np.full((4, 4), np.nan), truth, (1.0, 1.0), rules)
    scores = scene_scores(np.full((4, 4), np.nan), truth + 255, (1.0, 1.0), rules).scores()
    assert scores["pixels"] == 0


def test_the_oracle_gap_is_what_the_best_threshold_would_add():
    rng = np.random.default_rng(4)
    histogram = score_histogram(
        torch.from_numpy(rng.random((1, 40, 40))), torch.from_numpy((rng.random((1, 40, 40)) < 0.3).astype(np.uint8))
    )[0]
    best = max(pixel_scores(histogram, edge / 256)["iou_landslide"] for edge in range(1, 256))
    found = oracle_scores(histogram, 0.9)
    assert found["oracle_iou"] == pytest.approx(best)
    assert found["oracle_gap"] == pytest.approx(best - pixel_scores(histogram, 0.9)["iou_landslide"])


def test_strips_cover_each_row_once():
    for shape, halo, size in (((17, 3), 2, 9), ((1, 1), 0, 1), ((0, 5), 1, 5), ((40, 7), 0, 70)):
        rows = [
            row for strip in strips(shape, halo=halo, strip_pixels=size) for row in range(strip.rows.start, strip.rows.stop)[strip.inner]
        ]
        assert rows == list(range(shape[0]))
