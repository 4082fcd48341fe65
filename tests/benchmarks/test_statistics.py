"""Statistics against scipy, closed forms, published tables and brute force."""

import itertools
import math
import time
from types import SimpleNamespace

import numpy as np
import pytest
import scipy.stats
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.blocks import Blocks
from benchmarks.statistics import corrected_t_test, holm, pooled_score, pooled_std, resample, seed_error, seeds_needed, spread, unit_counts
from benchmarks.statistics.units import unit_names
from datamodules.errors import UserError
from zoo.metrics.pixels import pixel_scores

# ---- seeds ---------------------------------------------------------------------------------------------------------------------------


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_spread_is_that_of_numpy_and_scipy(values):
    found = spread(values)
    assert found.mean == pytest.approx(np.mean(values), abs=1e-12)
    assert found.iqm == pytest.approx(scipy.stats.trim_mean(values, 0.25), abs=1e-12)
    if len(values) > 1:
        assert found.std == pytest.approx(np.std(values, ddof=1), abs=1e-9)
    if len(values) < 4:
        assert found.iqm == pytest.approx(found.mean, abs=1e-12)


@settings(max_examples=30)
@given(st.lists(st.floats(0, 1), min_size=2, max_size=6), st.lists(st.floats(0, 1), min_size=2, max_size=6))
def test_the_error_of_seeds_is_that_of_welch(first, second):
    if np.std(first) < 1e-3 or np.std(second) < 1e-3:
        return
    expected = scipy.stats.ttest_ind(first, second, equal_var=False)
    found = seed_error(first, second)
    assert found.freedom == pytest.approx(expected.df)
    assert (np.mean(first) - np.mean(second)) / found.standard_error == pytest.approx(expected.statistic)


def test_the_error_of_one_seed_is_unknown_and_that_of_equal_seeds_nothing():
    assert seed_error([0.5]) is None
    assert seed_error([0.5, 0.6], [0.5]) is None
    assert seed_error([0.5, math.nan]) is None
    assert seed_error([0.5, 0.5]).standard_error == 0
    assert seed_error([0.5, 0.7]).freedom == 1


@pytest.mark.parametrize(("effect", "num"), [(0.5, 64), (0.8, 26), (1.0, 17)])
def test_seeds_needed_are_those_of_cohens_table(effect, num):
    assert seeds_needed(0.01 / effect) == num


@pytest.mark.parametrize("std", [0.0005, 0.003, 0.011, 0.05])
def test_seeds_needed_are_the_first_with_enough_power(std):
    def power(num):
        freedom, shift = 2 * num - 2, 0.01 / (std * math.sqrt(2 / num))
        critical = scipy.stats.t.ppf(0.975, freedom)
        return scipy.stats.nct.sf(critical, freedom, shift) + scipy.stats.nct.cdf(-critical, freedom, shift)

    num = seeds_needed(std)
    assert power(num) >= 0.8
    assert num == 2 or power(num - 1) < 0.8


def test_seeds_needed_know_their_limits():
    assert seeds_needed(math.nan) is None
    assert seeds_needed(5.0) is None
    assert seeds_needed(0.0) == 2


def test_pooled_standard_deviation_weighs_by_freedom():
    assert pooled_std([[1.0, 3.0], [0.0, 0.0, 0.0], [7.0]]) == pytest.approx(math.sqrt(2 / 3))
    assert math.isnan(pooled_std([[0.5], []]))


# ---- several comparisons, folds ------------------------------------------------------------------------------------------------------


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []
    corrected = holm([0.02, math.nan, 0.5])
    assert corrected[0] == 0.04
    assert math.isnan(corrected[1])


@settings(max_examples=40)
@given(st.lists(st.sampled_from([0.001, 0.012, 0.02, 0.03, 0.049, 0.2, 1.0]), min_size=1, max_size=5))
def test_holm_is_the_closed_test_of_bonferroni(p_values):
    """The closure principle by brute force: the largest Bonferroni p of all sets of hypotheses that hold this one."""
    for index, found in enumerate(holm(p_values)):
        others = [value for place, value in enumerate(p_values) if place != index]
        sets = ([p_values[index], *chosen] for size in range(len(others) + 1) for chosen in itertools.combinations(others, size))
        assert found == pytest.approx(min(1.0, max(len(chosen) * min(chosen) for chosen in sets)))


def test_corrected_t_test_closed_form():
    differences = [0.02, 0.01, 0.03, 0.0, 0.04]
    found = corrected_t_test(differences, test_share=1 / 4)
    t = np.mean(differences) / math.sqrt((1 / 5 + 1 / 4) * np.var(differences, ddof=1))
    assert found.p_value == pytest.approx(2 * scipy.stats.t.sf(t, 4))
    plain = scipy.stats.ttest_1samp(differences, 0)
    assert corrected_t_test(differences, test_share=1e-12).p_value == pytest.approx(plain.pvalue)
    assert found.p_value > plain.pvalue
    low, high = corrected_t_test(differences, test_share=1e-12).interval()
    assert (low, high) == pytest.approx(tuple(plain.confidence_interval()))


def test_corrected_t_test_at_its_edges():
    assert math.isnan(corrected_t_test([0.1], test_share=0.2).p_value)
    assert math.isnan(corrected_t_test([0.1, math.nan], test_share=0.2).p_value)
    assert corrected_t_test([0.0, 0.0], test_share=0.2).p_value == 1
    with pytest.raises(ValueError, match="positive"):
        corrected_t_test([0.1, 0.2], test_share=0.0)


# ---- units ---------------------------------------------------------------------------------------------------------------------------


def test_counts_of_units_add_up_to_the_pooled_scores():
    generator = np.random.default_rng(0)
    tiles = {f"s{scene}:{row}:{column}": generator.integers(0, 9, (2, 256)) for scene in range(3) for row in (0, 64) for column in (0, 64)}
    for threshold in (0.0, 0.5, 130 / 256, 1.0):
        counted = unit_counts(tiles, threshold, Blocks(side=2))
        assert counted.units == ("s0:0:0", "s1:0:0", "s2:0:0")
        expected = pixel_scores(torch.from_numpy(np.sum(list(tiles.values()), axis=0)), threshold)
        for name in ("iou_landslide", "f1", "precision", "recall"):
            found = pooled_score(counted.counts.sum(0).astype(float), name)
            assert float(found) == pytest.approx(expected[name], nan_ok=True)


def test_windows_form_blocks_and_ready_made_tiles_stand_alone():
    offsets = [0, 128, 256, 384, 500]  # the last one shifted to end with the scene
    tiles = [f"a:b:{row}:{column}" for row in offsets for column in offsets]
    names = unit_names(tiles, Blocks(side=2))
    assert len(set(names)) == 4
    assert names[tiles.index("a:b:0:128")] == names[tiles.index("a:b:128:0")] == "a:b:0:0"
    assert names[tiles.index("a:b:256:256")] == names[tiles.index("a:b:500:500")]
    assert len(set(unit_names(["x:0:0", "y:0:0"], Blocks(side=4)))) == 2
    assert unit_names([], Blocks()) == []


def test_tiles_whose_names_hold_their_place_form_blocks():
    blocks = Blocks(side=2, scenes=r"col(?P<column>\d+)_row(?P<row>\d+)")
    names = unit_names(
        [f"{part}/col{column:05d}_row{row:05d}:0:0" for part in ("n", "s") for column in (4, 5, 6) for row in (2, 3)], blocks
    )
    assert len(set(names)) == 4
    assert len({*names[:4]}) == 1
    with pytest.raises(UserError, match="does not fit the scene 'x'"):
        unit_names(["x:0:0"], blocks)


@pytest.mark.parametrize("given_", [{"side": 0}, {"scenes": "("}, {"scenes": r"(?P<row>\d+)"}])
def test_blocks_that_mean_nothing_are_refused(given_):
    with pytest.raises(UserError, match=r"blocks\."):
        Blocks(**given_)


# ---- bootstrap -----------------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def counts():
    generator = np.random.default_rng(4)
    return generator.gamma(0.7, 300, (4, 25, 3)).astype(np.int64)


@pytest.mark.parametrize("metric", ["iou_landslide", "f1", "precision", "recall"])
@pytest.mark.parametrize("method", ["percentile", "bca"])
def test_intervals_are_those_of_scipy_on_the_same_draws(counts, metric, method):
    estimate = resample(counts, num_draws=2000).estimate(metric, [0, 1, 2])

    def statistic(index):
        tp, fp, fn = counts[:3, index].sum(1).T
        score = {
            "iou_landslide": tp / (tp + fp + fn),
            "f1": 2 * tp / (2 * tp + fp + fn),
            "precision": tp / (tp + fp),
            "recall": tp / (tp + fn),
        }
        return score[metric].mean()

    assert estimate.value == pytest.approx(statistic(np.arange(25)))
    expected = scipy.stats.bootstrap(
        (np.arange(25),),
        statistic,
        n_resamples=0,
        vectorized=False,
        method={"percentile": "percentile", "bca": "BCa"}[method],
        bootstrap_result=SimpleNamespace(bootstrap_distribution=estimate.draws),
    ).confidence_interval
    assert estimate.interval(method=method, expanded=False) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_expanded_intervals_of_a_mean_are_those_of_students_t():
    # Equal denominators make the score a mean, whose exact interval is known.
    hits = np.random.default_rng(0).binomial(1000, 0.6, 12)
    counts = np.stack([hits, np.zeros(12, np.int64), 1000 - hits], -1)[None]
    estimate = resample(counts, num_draws=200_000).estimate("recall", [0])
    shares = hits / 1000
    half = scipy.stats.t.ppf(0.975, 11) * shares.std(ddof=1) / math.sqrt(12)
    low, high = estimate.interval()
    assert (high - low) / 2 == pytest.approx(half, rel=0.03)
    plain = estimate.interval(expanded=False)
    assert (plain[1] - plain[0]) / 2 < 0.9 * half, "which is what the expansion makes up for"


def test_draws_are_those_of_scipy_in_distribution(counts):
    estimate = resample(counts).estimate("iou_landslide", [0])

    def statistic(index, axis):
        summed = counts[0][index].sum(axis=-2)
        return summed[..., 0] / summed.sum(-1)

    other = scipy.stats.bootstrap((np.arange(25),), statistic, n_resamples=20_000, vectorized=True, rng=np.random.default_rng(0))
    assert scipy.stats.ks_2samp(estimate.draws, other.bootstrap_distribution).pvalue > 1e-3


def test_draws_are_multinomial_and_shared_by_all_runs():
    identity = np.zeros((2, 5, 3), np.int64)
    identity[:, :, 0] = 10 ** (2 * np.arange(5))  # the digits of a sum tell how often each unit was drawn
    drawn = resample(identity, num_draws=4000).draws[:, :, 0].astype(np.int64)
    assert (drawn[:, 0] == drawn[:, 1]).all()
    times = drawn[:, :1] // identity[0, :, 0] % 100
    assert (times.sum(1) == 5).all()
    assert times.mean(0) == pytest.approx(np.ones(5), abs=0.06)
    assert np.cov(times.T)[0, 1] == pytest.approx(-1 / 5, abs=0.06)


def test_chunks_do_not_change_the_draws(counts, monkeypatch):
    whole = resample(counts, num_draws=100).draws
    monkeypatch.setattr("benchmarks.statistics.bootstrap.CHUNK_BYTES", 8 * 25 * 7)
    assert (resample(counts, num_draws=100).draws == whole).all()
    assert (resample(counts[:1], num_draws=100).draws[:, 0] == whole[:, 0]).all()
    assert (resample(counts, num_draws=100, seed=1).draws != whole).any()


def test_a_difference_is_paired(counts):
    drawn = resample(np.concatenate([counts[:1], counts[:1] * 2, counts[1:2]]), num_draws=500)
    same = drawn.estimate("f1", [0]) - drawn.estimate("f1", [1])
    assert same.interval() == (0, 0)
    assert same.interval(method="bca") == (0, 0)
    assert same.p_value() == 1
    one, other = drawn.estimate("f1", [0]), drawn.estimate("f1", [2])
    assert (one - other).interval() == pytest.approx(tuple(-end for end in reversed((other - one).interval())))
    assert (one - other).p_value() == (other - one).p_value()


def test_p_is_never_0_and_agrees_with_the_interval(counts):
    sure = resample(np.stack([counts[0], counts[0] + [900, 0, 0]]), num_draws=999)
    better = sure.estimate("recall", [1]) - sure.estimate("recall", [0])
    units = counts.shape[1]
    assert better.p_value() == pytest.approx(2 * scipy.stats.t.sf(scipy.stats.norm.isf(1 / 1000) * math.sqrt(1 - 1 / units), units - 1))
    for first, second in itertools.permutations(range(4), 2):
        drawn = resample(counts, num_draws=4999)
        found = drawn.estimate("iou_landslide", [first]) - drawn.estimate("iou_landslide", [second])
        low, high = found.interval()
        assert (low > 0 or high < 0) == (found.p_value() < 0.05)


@pytest.mark.parametrize("rule", ["welch", "behrens-fisher"])
def test_seeds_widen_an_interval_by_students_t(counts, rule):
    flat = resample(np.repeat(counts[:1, :1], 30, 1)).estimate("f1", [0])  # equal units: the places leave nothing open
    assert flat.interval()[0] == pytest.approx(flat.value)
    error = seed_error([0.5, 0.52, 0.57])
    low, high = flat.with_seeds(error, rule=rule).interval()
    half = scipy.stats.t.ppf(0.975, 2) * error.standard_error
    assert (low, high) == pytest.approx((flat.value - half, flat.value + half), abs=0.01 * half)
    assert flat.with_seeds(seed_error([0.5, 0.5]), rule=rule).interval() == flat.interval()


def test_places_and_seeds_together_are_welchs_test_of_two_means():
    # Equal denominators make the score a mean over units, and two samples a case that scipy knows.
    generator = np.random.default_rng(3)
    hits, seeds = generator.binomial(1000, generator.uniform(0.4, 0.8, 25)), [0.55, 0.61, 0.63]
    estimate = resample(np.stack([hits, 0 * hits, 1000 - hits], -1)[None], num_draws=200_000).estimate("recall", [0])
    low, high = estimate.with_seeds(seed_error(seeds)).interval()
    expected = scipy.stats.ttest_ind(hits / 1000, seeds, equal_var=False).confidence_interval(0.95)
    assert high - low == pytest.approx(expected.high - expected.low, rel=0.03)


def test_what_has_no_score_has_no_interval(counts):
    counts = counts.copy()
    counts[0, :, :2] = 0  # a run that predicted nothing
    counts[1] = 0
    counts[1, 0] = 5, 5, 5  # landslides in one unit only, which a third of the draws leave out
    drawn = resample(counts, num_draws=500)
    assert drawn.estimate("iou_landslide", [0]).interval(method="bca") == (0, 0)
    for metric, runs in (("precision", [0]), ("precision", [0, 2]), ("iou_landslide", [1])):
        found = drawn.estimate(metric, runs)
        for method in ("percentile", "bca"):
            assert all(math.isnan(end) for end in found.interval(method=method))
    assert math.isnan(drawn.estimate("precision", [0]).p_value())
    assert drawn.estimate("iou_landslide", [1]).p_value() > 0.5, "draws without a score do not speak against 0"


def test_counts_that_cannot_be_are_refused(counts):
    for broken in (counts[:, :0], counts[0], -counts):
        with pytest.raises(ValueError, match="counts"):
            resample(broken)


def test_ten_thousand_draws_of_two_thousand_units_take_under_two_seconds():
    counts = np.random.default_rng(0).integers(0, 16384, (30, 2000, 3))
    start = time.process_time()
    drawn = resample(counts)
    estimates = [drawn.estimate("iou_landslide", range(5 * method, 5 * method + 5)) for method in range(6)]
    intervals = [(item - estimates[0]).interval(method="bca") for item in estimates] + [item.interval() for item in estimates]
    assert time.process_time() - start < 2, "seconds of one core; 0.9 on the machine that this was written on"
    assert len(intervals) == 12
