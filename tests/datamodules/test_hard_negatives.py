"""Hard negatives: shares of the stream, scores of the ground, pools by round."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from datamodules.errors import UserError
from datamodules.hard_negatives import HardNegatives, check_shares, hardest, scarp_score
from datamodules.sampling import TrainingSampler


def sampler(landslide, pool, *, share, hard, samples=None, batch=4, **options):
    return TrainingSampler(
        landslide,
        num_samples=samples,
        landslide_share=share,
        seed=1,
        batch_size=batch,
        hard_negative_share=hard,
        hard_negatives=lambda _: pool,
        **options,
    )


@given(samples=st.integers(1, 200), batch=st.integers(1, 9), share=st.none() | st.floats(0, 0.9), part=st.floats(0, 1))
@settings(max_examples=60, deadline=None)
def test_shares_are_met_in_each_epoch_and_in_each_step(samples, batch, share, part):
    landslide = np.arange(60) >= 50
    pool = np.arange(7)
    hard = part * (1 - (share or 0))
    # The pool holds windows that nothing else draws, so that its items can be told from the others.
    stream = TrainingSampler(landslide, num_samples=samples, landslide_share=share, seed=1, batch_size=batch,
                             hard_negative_share=hard, hard_negatives=lambda _: pool + 1000)  # fmt: skip
    windows, _ = stream.order(2)
    is_hard = windows >= 1000
    assert abs(is_hard.sum() - hard * len(windows)) <= 1 + 1e-6
    for step in is_hard.reshape(-1, batch).sum(1):
        assert abs(step - hard * batch) <= 2 + 1e-6
    if share is not None:
        is_landslide = (windows >= 50) & ~is_hard
        assert abs(is_landslide.sum() - share * len(windows)) <= 0.5 + 1e-6
    times = np.bincount(windows[is_hard] - 1000, minlength=len(pool))
    assert times.max() - times.min() <= 1


def order_before(landslide, total, step, share, seed, epoch):
    """The stream as it was before there were hard negatives, written down on its own."""
    generator = np.random.default_rng((seed, epoch))

    def draw(members, count):
        rounds = [generator.permutation(members) for _ in range(math.ceil(count / len(members)))]
        return np.concatenate([*rounds, np.empty(0, dtype=np.int64)])[:count]

    if share is None:
        windows = draw(np.arange(len(landslide)), total)
    else:
        due = np.floor(np.arange(1, total + 1) * share + 0.5).astype(np.int64)
        shows = generator.permuted((np.diff(due, prepend=0) > 0).reshape(-1, step), axis=1).ravel()
        windows = np.empty(total, dtype=np.int64)
        windows[~shows] = draw(np.flatnonzero(~landslide), int((~shows).sum()))
        windows[shows] = draw(np.flatnonzero(landslide), int(shows.sum()))
    return windows, generator.integers(0, 2**31 - 1, size=total)


@pytest.mark.parametrize("share", [None, 0.0, 0.3, 1.0])
def test_without_hard_negatives_the_stream_is_what_it_was(share):
    landslide = np.arange(37) % 5 == 0
    for options in ({}, {"hard_negative_share": 0.0, "hard_negatives": lambda _: np.array([1])}):
        stream = TrainingSampler(landslide, num_samples=90, landslide_share=share, seed=5, batch_size=8, **options)
        for epoch in range(3):
            expected = order_before(landslide, 96, 8, share, 5, epoch)
            assert all(np.array_equal(found, wanted) for found, wanted in zip(stream.order(epoch), expected, strict=True))


@pytest.mark.parametrize("share", [None, 0.25])
def test_ranks_deal_from_one_stream(share):
    landslide, pool = np.arange(50) > 30, np.arange(4)
    one = list(sampler(landslide, pool, share=share, hard=0.5, samples=60, batch=8))
    ranks = [list(sampler(landslide, pool, share=share, hard=0.5, samples=60, rank=rank, world_size=2)) for rank in range(2)]
    assert [item for items in zip(*ranks, strict=True) for item in items] == one


@pytest.mark.parametrize(
    ("hard", "share", "pool"), [(-0.1, None, 0.2), (0.6, 0.5, 0.2), (1.1, None, 0.2), (0.2, None, 0.0), (0.2, 0.1, 1.5)]
)
def test_shares_out_of_range_are_refused(hard, share, pool):
    with pytest.raises(UserError, match=r"data\.hard_negative_"):
        check_shares(hard, share, pool)


def test_shares_that_fill_up_one_are_allowed():
    check_shares(0.3, 0.7, 1.0)
    check_shares(1 - 0.9, 0.9, 0.2)


# ---- scores of the ground ----------------------------------------------------------------------------------------------------------------


def test_a_plane_scores_nothing_however_steep():
    rows, columns = np.mgrid[:40, :40].astype(np.float32)
    for steepness in (0.0, 0.2, 2.0):
        dem = torch.from_numpy(100 + steepness * 2 * columns + steepness * rows)
        assert scarp_score(dem, (2.0, 2.0)) == pytest.approx(0, abs=1e-3)


def test_a_step_scores_more_than_a_ramp_of_equal_height_and_grows_with_it():
    columns = np.arange(64, dtype=np.float32)[None].repeat(64, 0)

    def score(height, width):
        return scarp_score(torch.from_numpy(height * np.clip((columns - 30) / width, 0, 1)), (2.0, 2.0))

    assert score(10, 3) > 2 * score(10, 30)
    assert score(10, 3) > 1.5 * score(5, 3) > 0


def test_the_score_does_not_depend_on_heading_or_height():
    dem = torch.from_numpy(np.random.default_rng(0).normal(0, 3, (48, 48)).cumsum(0).cumsum(1).astype(np.float32) / 50)
    expected = scarp_score(dem, (2.0, 2.0))
    for other in (dem.flip(0), dem.flip(1), dem.rot90(1, (0, 1)).contiguous(), dem + 64, -dem):
        assert scarp_score(other, (2.0, 2.0)) == pytest.approx(expected, rel=1e-3)


def test_missing_elevation_is_left_out_and_none_at_all_is_not_known():
    dem = torch.from_numpy(np.random.default_rng(0).normal(0, 1, (48, 48)).astype(np.float32))
    assert math.isnan(scarp_score(torch.full_like(dem, torch.nan), (2.0, 2.0)))
    dem[:, :20] = torch.nan
    assert scarp_score(dem, (2.0, 2.0)) > 0


@given(scores=st.lists(st.integers(0, 5) | st.just(None), min_size=1, max_size=30), share=st.floats(0.01, 1))
def test_the_hardest_are_the_highest_known(scores, share):
    values = np.array([math.nan if score is None else score for score in scores])
    chosen = hardest(values, share)
    known = [score for score in scores if score is not None]
    assert len(chosen) == math.ceil(share * len(known))
    assert sorted(values[chosen], reverse=True) == sorted(known, reverse=True)[: len(chosen)]
    assert list(chosen) == sorted(set(chosen.tolist()))


# ---- pools by round ----------------------------------------------------------------------------------------------------------------------


def test_a_pool_that_is_found_within_a_round_waits_for_the_next():
    background = np.arange(10)
    pools = HardNegatives(background, 20, 0.5)
    assert np.array_equal(pools.at(0), background)
    windows = np.array([2, 3, 4, 5])
    pools.add(windows, np.array([0.1, 0.9, 0.2, 0.8]), batches_done=8, batches_per_round=8)  # between rounds 0 and 1
    assert pools.at(1).tolist() == pools.at(5).tolist() == [3, 5]
    pools.add(windows, np.array([0.9, 0.1, 0.8, 0.2]), batches_done=11, batches_per_round=8)  # within round 1
    pools.add(windows, np.array([0.9, 0.8, 0.1, 0.2]), batches_done=13, batches_per_round=8)
    assert pools.at(1).tolist() == [3, 5]
    assert pools.at(2).tolist() == [2, 3]
    assert len(pools.state_dict()["pools"]) == 2

    again = HardNegatives(background, 20, 0.5)
    again.load_state_dict(pools.state_dict())
    assert all(np.array_equal(again.at(number), pools.at(number)) for number in range(1, 4))


def test_scores_that_are_not_known_change_nothing():
    pools = HardNegatives(np.arange(10), 20, 0.5)
    assert not len(pools.add(np.arange(4), np.full(4, np.nan), batches_done=8, batches_per_round=8))
    assert np.array_equal(pools.at(1), np.arange(10))


def test_a_state_of_other_windows_is_refused():
    state = HardNegatives(np.arange(10), 20, 0.5).state_dict()
    with pytest.raises(UserError, match="resume with the data"):
        HardNegatives(np.arange(10), 21, 0.5).load_state_dict(state)


def test_candidates_are_background_without_repeats_and_follow_the_seed():
    pools = HardNegatives(np.arange(100, 200), 300, 0.5)
    drawn = pools.candidates(30, (1, 8))
    assert len(set(drawn.tolist())) == 30
    assert set(drawn.tolist()) <= set(range(100, 200))
    assert np.array_equal(drawn, pools.candidates(30, (1, 8)))
    assert not np.array_equal(drawn, pools.candidates(30, (1, 16)))
    assert np.array_equal(pools.candidates(500, (1, 8)), np.arange(100, 200))
