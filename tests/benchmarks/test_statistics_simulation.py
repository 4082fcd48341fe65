"""Whether intervals cover the truth and tests keep their level, on 1,000 simulated suites whose truth is known in closed form."""

import math

import numpy as np
import pytest

from benchmarks.statistics import holm, pooled_score, resample, seed_error

SUITES, UNITS, METHODS, SEEDS, DRAWS = 1000, 100, 4, 3, 2000
MEAN_AREA, AREA_SPREAD, RECALL, FALSE_ALARMS, SEED_SPREAD = 1000.0, 0.7, 0.7, 300.0, 0.15
EXPECTED_AREA = MEAN_AREA * math.exp(AREA_SPREAD**2 / 2)


def suite_counts(generator):
    """Expected false alarms (methods, seeds) and counts (methods, seeds, units, 3) of methods that are equal: areas of landslides are log-normal, one in ten units has none; recall differs
    from unit to unit, for all methods and for each; a seed makes all false alarms of a run more or fewer."""
    shape = (METHODS, SEEDS, UNITS)
    area = generator.lognormal(math.log(MEAN_AREA), AREA_SPREAD, UNITS) * (generator.random(UNITS) < 0.9)
    recall = RECALL * generator.uniform(0.75, 1.25, UNITS) * generator.uniform(0.9, 1.1, (METHODS, 1, UNITS)) * np.ones(shape)
    seeds = np.exp(SEED_SPREAD * generator.standard_normal((METHODS, SEEDS, 1)))
    alarms = FALSE_ALARMS * generator.exponential(1, UNITS) * generator.uniform(0.5, 1.5, shape) * seeds
    counts = np.stack([area * recall, alarms, area * (1 - recall)], -1)
    return FALSE_ALARMS * seeds[..., 0], np.rint(counts).astype(np.int64)


def iou(alarms):
    """Pooled IoU over all places of a run with that many expected false alarms a unit."""
    return RECALL * 0.9 * EXPECTED_AREA / (0.9 * EXPECTED_AREA + alarms)


@pytest.mark.slow
def test_intervals_cover_the_truth_and_tests_keep_their_level():
    nodes, weights = np.polynomial.hermite_e.hermegauss(21)
    over_seeds = float((iou(FALSE_ALARMS * np.exp(SEED_SPREAD * nodes)) * weights).sum() / weights.sum())
    covered = dict.fromkeys(("percentile", "bca", "difference", "seeds", "difference with seeds"), 0)
    false_alarm, fixed_false_alarm, found = 0, 0, 0
    generator = np.random.default_rng(20)
    for _ in range(SUITES):
        alarms, counts = suite_counts(generator)
        drawn = resample(counts.reshape(-1, UNITS, 3), num_draws=DRAWS, seed=int(generator.integers(2**31)))
        estimates = [drawn.estimate("iou_landslide", range(method * SEEDS, (method + 1) * SEEDS)) for method in range(METHODS)]
        truth = iou(alarms).mean(1)
        for method in ("percentile", "bca"):
            low, high = estimates[0].interval(method=method)
            covered[method] += low <= truth[0] <= high
        low, high = (estimates[1] - estimates[0]).interval()
        covered["difference"] += low <= truth[1] - truth[0] <= high
        scores = pooled_score(counts.sum(2).astype(float), "iou_landslide")
        low, high = estimates[0].with_seeds(seed_error(scores[0])).interval()
        covered["seeds"] += low <= over_seeds <= high
        gains = [item - estimates[0] for item in estimates[1:]]
        low, high = gains[0].with_seeds(seed_error(scores[1], scores[0])).interval()
        covered["difference with seeds"] += low <= 0 <= high
        p_values = [
            gain.with_seeds(seed_error(other, scores[0]), rule="behrens-fisher").p_value()
            for gain, other in zip(gains, scores[1:], strict=True)
        ]
        false_alarm += min(holm(p_values)) <= 0.05
        fixed_false_alarm += min(holm([gain.p_value() for gain in gains])) <= 0.05
        better = resample(np.concatenate([counts[0], np.rint(counts[1] * [1.15, 1, 0]).astype(np.int64)]), num_draws=200)
        gain = better.estimate("iou_landslide", range(SEEDS, 2 * SEEDS)) - better.estimate("iou_landslide", range(SEEDS))
        found += gain.p_value() <= 0.05
    print({name: count / SUITES for name, count in covered.items()}, false_alarm / SUITES, fixed_false_alarm / SUITES, found / SUITES)
    for name, count in covered.items():
        assert 0.93 <= count / SUITES <= 0.97, f"{name}: {count / SUITES}"
    margin = 1.645 * math.sqrt(0.05 * 0.95 / SUITES)
    assert false_alarm / SUITES <= 0.05 + margin, "false positives of a whole table, after Holm"
    assert fixed_false_alarm / SUITES > 0.2, "the places alone do call luck of seeds a gain, which is why p has the seeds in it"
    assert found / SUITES > 0.95, "a test that never rejects would keep its level too"
