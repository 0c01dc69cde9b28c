"""Windows, normalisation and samplers."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from kronos_lightning.data import CandleError, CandleWindows
from kronos_lightning.data.candles import time_features
from kronos_lightning.data.formats import FEATURES
from kronos_lightning.data.windows import EpochSampler, ShardSampler, window_starts
from tests.helpers.candles import frame_with_gap
from tests.helpers.levels import normalise


@given(
    st.lists(st.integers(1, 15), min_size=1, max_size=5),
    st.integers(1, 6),
    st.integers(1, 5),
    st.data(),
)
def test_windows_are_exactly_those_without_a_gap_and_with_allowed_targets(lengths, lookback, target_rows, data):
    segment = np.repeat(np.arange(len(lengths)), lengths)
    target = data.draw(hnp.arrays(bool, len(segment)))
    width = lookback + target_rows
    expected = [
        i
        for i in range(len(segment) - width + 1)
        if len(set(segment[i : i + width])) == 1 and target[i + lookback : i + width].all()
    ]
    assert window_starts(segment, target, lookback, target_rows).tolist() == expected


def test_a_batch_holds_the_normalised_rows_and_their_time_features():
    frame = frame_with_gap(60, gap_at=35)
    windows = CandleWindows(frame, lookback=12, target_rows=4, clip=5.0)
    batch = windows.__getitems__([0, 5, 20])
    for i, index in enumerate([0, 5, 20]):
        rows = frame.iloc[int(windows.starts[index]) :][:16]
        values = rows[FEATURES].to_numpy()
        mean, std = values[:12].mean(axis=0), values[:12].std(axis=0)
        np.testing.assert_allclose(batch.x[i], ((values - mean) / (std + 1e-5)).clip(-5, 5), atol=2e-3)
        np.testing.assert_array_equal(batch.stamp[i], time_features(rows["timestamps"]))


def test_one_window_equals_its_row_of_a_batch():
    windows = CandleWindows(frame_with_gap(60, 35), 12, 4, 5.0)
    single, batch = windows[7], windows.__getitems__([3, 7])
    for own, rows in zip((single.x, single.stamp, *single.scale), (batch.x, batch.stamp, *batch.scale), strict=True):
        assert torch.equal(own, rows[1])


def test_when_target_rows_change_then_the_normalised_lookback_does_not():
    frame = frame_with_gap(40, 40)
    changed = frame.copy()
    changed.loc[12:, FEATURES] *= 3
    before, after = (CandleWindows(f, 12, 4, 5.0).__getitems__([0]) for f in (frame, changed))
    assert torch.equal(before.x[:, :12], after.x[:, :12])
    assert torch.equal(before.scale.mean, after.scale.mean)
    assert torch.equal(before.scale.std, after.scale.std)
    assert not torch.equal(before.x[:, 12:], after.x[:, 12:])


@settings(deadline=None)
@given(hnp.arrays(np.float32, (3, 10, 6), elements=st.floats(0.5, 1e5, width=32)), st.integers(2, 9))
def test_normalisation_can_be_undone_where_nothing_was_clipped(values, lookback):
    window = torch.from_numpy(values)
    x, mean, std = normalise(window, lookback, 5.0)
    assert x.abs().max() <= 5
    back = x * std + mean
    kept = x.abs() < 5
    rounding = 5e-7 * float(values.max())  # a few float32 steps of the largest number: small ones beside it lose more
    torch.testing.assert_close(back[kept], window[kept], rtol=0, atol=rounding)


def test_constant_candles_do_not_divide_by_zero():
    x, _, _ = normalise(torch.full((1, 5, 6), 7.0), 3, 5.0)
    assert torch.equal(x, torch.zeros(1, 5, 6))


def flat(lists):
    return list(itertools.chain.from_iterable(lists))


def epoch_indices(epoch, world_size, batch_size, size=103, samples=None):
    ranks = []
    for rank in range(world_size):
        sampler = EpochSampler([size], None, batch_size, samples, seed=4, rank=rank, world_size=world_size)
        sampler.set_epoch(epoch)
        drawn = list(sampler)
        assert len(drawn) == len(sampler)
        assert {number // size for number in drawn} == {epoch}
        indices = [number % size for number in drawn]
        ranks.append([indices[i : i + batch_size] for i in range(0, len(indices), batch_size)])
    return [sorted(flat(parts)) for parts in zip(*ranks, strict=True)]


@pytest.mark.parametrize("epoch", [0, 3])
def test_global_batches_are_the_same_on_one_and_on_two_processes(epoch):
    assert epoch_indices(epoch, 1, 20) == epoch_indices(epoch, 2, 10)


def test_an_epoch_visits_each_window_at_most_once_and_epochs_differ():
    first, second = (flat(epoch_indices(e, 1, 20)) for e in (0, 1))
    assert len(first) == 100
    assert len(set(first)) == 100
    assert epoch_indices(0, 1, 20) != epoch_indices(1, 1, 20)
    assert set(first) != set(second)


def test_short_epochs_together_visit_every_window():
    epochs = [flat(epoch_indices(e, 1, 10, size=100, samples=30)) for e in range(10)]
    assert all(len(epoch) == 30 for epoch in epochs)
    counts = np.bincount(flat(epochs), minlength=100)
    assert counts.tolist() == [3] * 100


@given(st.integers(0, 50), st.integers(1, 5))
def test_shards_hold_every_window_exactly_once(size, world_size):
    shards = [list(ShardSampler(size, rank, world_size)) for rank in range(world_size)]
    assert sorted(flat(shards)) == list(range(size))


def test_too_few_windows_for_the_processes_is_an_error():
    with pytest.raises(CandleError, match="too few for 2 processes; use fewer processes"):
        EpochSampler([1], None, 10, None, 0, 0, 2)


def drawn(sizes, weights, epoch=0, samples=None, rank=0, world_size=1):
    sampler = EpochSampler(sizes, weights, 10, samples, seed=4, rank=rank, world_size=world_size)
    sampler.set_epoch(epoch)
    return np.array(list(sampler)) % sum(sizes)


@given(st.lists(st.tuples(st.integers(20, 200), st.floats(0.1, 10)), min_size=2, max_size=4), st.integers(0, 5))
def test_symbols_have_their_weights_in_every_epoch(groups, epoch):
    sizes, weights = zip(*groups, strict=True)
    indices = drawn(sizes, weights, epoch)
    shares = np.histogram(indices, bins=np.cumsum([0, *sizes]))[0] / len(indices)
    np.testing.assert_allclose(shares, np.array(weights) / sum(weights), atol=1.5 / len(indices))


def test_weighted_epochs_together_visit_the_windows_of_a_symbol_equally_often():
    sizes, weights = [90, 30], [1.0, 1.0]
    counts = np.bincount(np.concatenate([drawn(sizes, weights, e) for e in range(3)]), minlength=120)
    assert set(counts[:90]) == {2}
    assert set(counts[90:]) == {6}


def test_weighted_symbols_are_mixed_and_shared_among_processes():
    one = drawn([100, 100], [1.0, 3.0], samples=80)
    assert 0 < (one[:40] < 100).sum() < 20
    two = [drawn([100, 100], [1.0, 3.0], samples=80, rank=rank, world_size=2) for rank in (0, 1)]
    assert np.stack(two, axis=1).flatten().tolist() == one.tolist()
    assert not np.array_equal(np.sort(one[one < 100]), np.sort(one[one >= 100][:20] - 100))
