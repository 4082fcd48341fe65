"""Where windows lie, in which order they come, and what sums and moments they give."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from datamodules.errors import UserError
from datamodules.sampling import ShardSampler, TrainingSampler
from datamodules.statistics import RunningMoments
from datamodules.windows import fresh, positions


@given(length=st.integers(1, 300), size=st.integers(1, 100), stride=st.integers(1, 100))
def test_each_pixel_of_an_axis_is_counted_exactly_once(length, size, stride):
    stride = min(stride, size)
    starts = positions(length, size, stride)
    counted = np.zeros(length, dtype=int)
    for start, skip in zip(starts, fresh(starts, size), strict=True):
        assert 0 <= start <= max(length - size, 0)
        counted[start + skip : min(start + size, length)] += 1
    assert (counted == 1).all()
    assert starts == sorted(set(starts))


@given(
    members=st.tuples(st.integers(1, 40), st.integers(1, 40)), samples=st.integers(1, 200), share=st.floats(0, 1), batch=st.integers(1, 9)
)
@settings(max_examples=60, deadline=None)
def test_the_target_share_is_met_and_classes_are_used_up_evenly(members, samples, share, batch):
    num_background, num_landslide = members
    landslide = np.arange(num_background + num_landslide) >= num_background
    sampler = TrainingSampler(landslide, num_samples=samples, landslide_share=share, seed=1, batch_size=batch)
    windows, seeds = sampler.order(3)
    assert len(windows) == len(seeds) == len(sampler) == -(-samples // batch) * batch
    assert abs(landslide[windows].sum() - share * len(windows)) <= 0.5 + 1e-9
    # Spread: no step is further than one item from its share.
    for step in landslide[windows].reshape(-1, batch).sum(1):
        assert abs(step - share * batch) <= 1 + 1e-9
    for kind in (landslide, ~landslide):
        times = np.bincount(windows, minlength=len(landslide))[kind]
        assert times.max() - times.min() <= 1


def test_without_a_share_an_epoch_is_a_permutation():
    landslide = np.arange(24) > 20
    sampler = TrainingSampler(landslide, num_samples=None, landslide_share=None, seed=1, batch_size=8)
    assert sorted(sampler.order(0)[0]) == list(range(24))


def test_orders_differ_between_seeds_and_epochs_and_repeat():
    landslide = np.arange(50) > 40

    def order(seed, epoch):
        sampler = TrainingSampler(landslide, num_samples=64, landslide_share=0.5, seed=seed, batch_size=8)
        sampler.set_epoch(epoch)
        return list(sampler)

    assert order(1, 0) == order(1, 0)
    assert order(1, 0) != order(1, 1)
    assert order(1, 0) != order(2, 0)


@pytest.mark.parametrize("world_size", [2, 4])
@pytest.mark.parametrize("share", [None, 0.5])
def test_ranks_deal_from_the_stream_of_one_process(world_size, share):
    landslide = np.arange(50) > 30
    same = {"num_samples": 60, "landslide_share": share, "seed": 1}
    one = list(TrainingSampler(landslide, **same, batch_size=8))
    shards = [
        list(TrainingSampler(landslide, **same, batch_size=8 // world_size, rank=rank, world_size=world_size)) for rank in range(world_size)
    ]
    assert len({len(shard) for shard in shards}) == 1
    assert [item for items in zip(*shards, strict=True) for item in items] == one


@given(size=st.integers(0, 30), world_size=st.integers(1, 8))
def test_evaluation_shards_are_a_partition(size, world_size):
    shards = [list(ShardSampler(size, rank, world_size)) for rank in range(world_size)]
    assert sorted(position for shard in shards for position in shard) == list(range(size))
    if size == 0 or size >= world_size:
        assert [len(ShardSampler(size, rank, world_size)) for rank in range(world_size)] == [len(shard) for shard in shards]
    else:
        for rank in range(world_size):
            with pytest.raises(TypeError):
                len(ShardSampler(size, rank, world_size))


@pytest.mark.parametrize("landslide", [np.zeros(5, dtype=bool), np.ones(5, dtype=bool)])
def test_a_share_of_a_class_that_is_not_there_is_refused(landslide):
    with pytest.raises(UserError, match=r"landslide_share = 0\.5"):
        TrainingSampler(landslide, num_samples=None, landslide_share=0.5, seed=0, batch_size=1)


@given(
    values=hnp.arrays(np.float64, (2, 40), elements=st.floats(-1e4, 1e4) | st.just(np.nan)),
    cuts=st.lists(st.integers(0, 40), max_size=5),
)
@settings(deadline=None)
def test_moments_of_parts_are_those_of_the_whole(values, cuts):
    moments = RunningMoments(2)
    for part in np.split(values, sorted(cuts), axis=1):
        moments.update(part)
    for channel in range(2):
        known = values[channel][~np.isnan(values[channel])]
        if len(known):
            np.testing.assert_allclose(moments.mean[channel], known.mean(), rtol=1e-9, atol=1e-9)
            np.testing.assert_allclose(moments.std[channel], known.std(), rtol=1e-7, atol=1e-6)
        else:
            assert np.isnan(moments.mean[channel])


def test_moments_do_not_cancel_far_from_zero():
    values = 1e6 + np.random.default_rng(0).normal(size=(1, 10000))
    moments = RunningMoments(1)
    for part in np.split(values, 100, axis=1):
        moments.update(part.astype(np.float64))
    np.testing.assert_allclose(moments.std, values.std(), rtol=1e-9)
