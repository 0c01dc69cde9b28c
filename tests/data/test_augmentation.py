"""Augmented windows: valid candles, reproducible draws, and what each augmentation is for."""

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from kronos_lightning.data.augmentation import Augmentation, _scale_moves, _take_apart, _warp
from kronos_lightning.data.formats import FEATURES
from kronos_lightning.data.sources.synthetic import synthetic_candles
from tests.helpers.levels import normalise

OFF = {"price_noise": 0.0, "time_warp": 0.0, "magnitude": 0.0, "reversal": 0.0}
ALONE = [{"price_noise": 0.3}, {"time_warp": 0.3}, {"magnitude": 0.4}, {"reversal": 1.0}]
ALL = {"price_noise": 0.3, "time_warp": 0.3, "magnitude": 0.4, "reversal": 0.5}


def augment(windows, epoch=0, indices=None, seed=7, **strengths):
    indices = range(len(windows)) if indices is None else indices
    return Augmentation(**OFF | strengths, seed=seed)(windows, [epoch] * len(windows), indices)


def sample_windows(count=20, rows=60, interval="1h", dtype=torch.float32):
    """Every third window of synthetic candles; the vwap is the mean price, and each opens where the last closed."""
    candles = synthetic_candles(3 * count + rows, interval, "2023-01-01", seed=3, start_price=3e4, volatility=0.6)
    values = torch.from_numpy(candles.frame[FEATURES].to_numpy()).to(dtype)
    return values.unfold(0, rows, 3)[:count].transpose(1, 2).contiguous()


@st.composite
def odd_windows(draw, units=(1.0, 100.0)):
    """Valid candles of any level and size: flat, with gaps, without trades, with volume in lots."""
    shape = draw(st.tuples(st.integers(1, 3), st.integers(1, 20)))
    rise, gap, above, below, where, traded = (
        draw(hnp.arrays(np.float64, shape, elements=st.floats(0, 1))) for _ in range(6)
    )
    size = draw(st.sampled_from([0.0, 1e-4, 0.01, 0.5]))
    rise, gap = size * (rise - 0.5), size * np.where(gap > 0.7, gap, 0)
    close = np.log(draw(st.sampled_from([1e-6, 1.0, 1e6]))) + np.cumsum(rise + gap, axis=1)
    open_ = close - rise
    high, low = np.maximum(open_, close) + size * above, np.minimum(open_, close) - size * below
    volume = np.where(traded > 0.2, 10 ** (10 * traded - 2), 0)
    vwap = np.exp(low + (high - low) * where)
    amount = volume * vwap * draw(st.sampled_from(units))
    windows = np.stack([*np.exp([open_, high, low, close]), volume, amount], axis=-1)
    return torch.from_numpy(windows.astype(np.float32))


def columns(windows):
    return windows.double().unbind(-1)


def vwap_is_inside(windows):
    _, high, low, _, volume, amount = columns(windows)
    return (amount >= volume * low * (1 - 1e-5)) & (amount <= volume * high * (1 + 1e-5))


def assert_valid(windows):
    open_, high, low, close, volume, amount = columns(windows)
    assert windows.isfinite().all()
    assert (low > 0).all()
    assert (high >= torch.maximum(open_, close)).all()
    assert (low <= torch.minimum(open_, close)).all()
    assert (volume >= 0).all()
    assert (amount >= 0).all()


# --- every augmentation -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("strengths", [*ALONE, ALL], ids=[*(next(iter(one)) for one in ALONE), "all"])
@settings(deadline=None)
@given(odd_windows(), st.integers(0, 10**6))
def test_valid_candles_stay_valid(strengths, windows, epoch):
    augmented = augment(windows, epoch, **strengths)
    assert augmented.shape == windows.shape
    assert augmented.dtype == windows.dtype
    assert_valid(augmented)
    if vwap_is_inside(windows).all():
        assert vwap_is_inside(augmented).all()


@pytest.mark.parametrize("strengths", [*ALONE[:3], ALL])
def test_vwaps_stay_inside_their_candles_but_follow_them(strengths):
    windows = sample_windows()
    augmented = augment(windows, **strengths)
    assert vwap_is_inside(augmented).all()
    _, high, low, _, volume, amount = columns(augmented)
    place = (amount / volume - low) / (high - low)
    assert ((place > 0.01) & (place < 0.99)).double().mean() > 0.6
    assert not torch.allclose(amount, columns(windows)[5], rtol=1e-3)


@pytest.mark.parametrize("strengths", [*ALONE, ALL])
def test_volume_in_lots_stays_in_lots(strengths):
    windows = sample_windows()
    windows[..., 4] /= 100
    open_, high, low, close, volume, amount = columns(augment(windows, **strengths))
    assert not torch.equal(open_, columns(windows)[0])
    torch.testing.assert_close(amount / volume / 100, (open_ + high + low + close) / 4, rtol=0.02, atol=0)


@pytest.mark.parametrize("growth", [1.1, 1 / 1.1])
def test_prices_beyond_all_bounds_are_cut_at_those_of_their_type(growth):
    close = growth ** torch.arange(1, 101).expand(50, -1)
    open_ = close / growth
    high, low = torch.maximum(open_, close), torch.minimum(open_, close)
    windows = torch.stack([open_, high, low, close, torch.ones(50, 100), close], dim=-1)
    augmented = augment(windows, magnitude=2.0)
    assert_valid(augmented)
    edge = torch.finfo(torch.float32)
    assert (augmented[..., 3] == (edge.max if growth > 1 else edge.tiny)).any()


def test_all_together_are_each_in_turn_with_the_same_draws():
    windows = sample_windows(dtype=torch.float64)
    in_turn = windows
    for name in ("reversal", "magnitude", "time_warp", "price_noise"):
        in_turn = augment(in_turn, **{name: ALL[name]})
    together = augment(windows, **ALL)
    torch.testing.assert_close(together, in_turn, rtol=1e-9, atol=0)


def test_a_window_is_augmented_alike_in_any_batch_and_order():
    windows = sample_windows(40)
    expected = augment(windows, **ALL)
    order = torch.randperm(40, generator=torch.Generator().manual_seed(0))[:17]
    assert torch.equal(augment(windows[order], indices=order.tolist(), **ALL), expected[order])
    for i in (0, 13, 39):
        assert torch.equal(augment(windows[[i]], indices=[i], **ALL), expected[[i]])


@pytest.mark.parametrize("strengths", ALONE[:3])
def test_epochs_windows_and_seeds_draw_each_their_own(strengths):
    window = sample_windows(1)
    draws = [(0, 0, 7), (1, 0, 7), (0, 1, 7), (1, 1, 7), (2**32, 0, 7), (0, 2**32, 7), (0, 0, 8), (0, 0, 2**64)]
    results = [augment(window, e, [i], seed, **strengths) for e, i, seed in draws]
    for k, one in enumerate(results):
        assert not any(torch.allclose(one, other, rtol=1e-5) for other in results[:k])


def test_windows_given_are_left_as_they_were():
    windows = sample_windows()
    before = windows.clone()
    augment(windows, **ALL)
    assert torch.equal(windows, before)


@settings(deadline=None)
@given(odd_windows())
def test_without_strength_nothing_changes(windows):
    same = augment(windows)
    assert torch.equal(same, windows)
    assert same.data_ptr() != windows.data_ptr()


def test_every_window_needs_its_epoch_and_index():
    with pytest.raises(ValueError):
        Augmentation(**ALL, seed=7)(sample_windows(3), [0, 0], [0, 1, 2])


def test_a_late_candle_changes_only_the_last_ones():
    windows = sample_windows()
    changed = windows.clone()
    changed[:, -1] *= 1.1
    before, after = (augment(w, **ALL | {"price_noise": 0.0}) for w in (windows, changed))
    assert torch.equal(before[:, :-4], after[:, :-4])
    assert not torch.equal(before[:, -4:], after[:, -4:])


# --- reversal ---------------------------------------------------------------------------------------------------------


def test_reversal_mirrors_every_price_and_swaps_highs_with_lows():
    windows = sample_windows()
    open_, high, low, close, volume, amount = columns(windows)
    mirror = open_[:, :1] ** 2
    expected = [mirror / open_, mirror / low, mirror / high, mirror / close, volume, volume * mirror * volume / amount]
    torch.testing.assert_close(augment(windows, reversal=1.0).double(), torch.stack(expected, -1), rtol=1e-6, atol=0)


@settings(deadline=None)
@given(odd_windows(units=(1.0,)))
def test_reversal_twice_changes_nothing(windows):
    twice = augment(augment(windows, reversal=1.0), reversal=1.0)
    torch.testing.assert_close(twice, windows, rtol=2e-6, atol=0)


def test_the_share_of_reversed_windows_is_the_probability_and_the_others_are_untouched():
    windows = sample_windows(1, 10).expand(2000, -1, -1)
    augmented = augment(windows, reversal=0.3)
    kept = (augmented == windows).flatten(1).all(1)
    assert torch.equal(augmented[~kept], augment(windows, reversal=1.0)[~kept])
    assert (~kept).double().mean().item() == pytest.approx(0.3, abs=0.04)


# --- magnitude --------------------------------------------------------------------------------------------------------


def test_moves_gaps_ranges_and_volume_are_scaled_by_one_smooth_curve():
    windows = sample_windows(400, dtype=torch.float64)
    windows[:, 1::2, :4] *= 1.01  # gaps
    old, new = columns(windows), columns(augment(windows, magnitude=0.3))
    scale = new[4] / old[4]
    for over, under in ((1, 0), (2, 0), (3, 0)):
        torch.testing.assert_close((new[over] / new[under]).log(), (old[over] / old[under]).log() * scale)
    gap, old_gap = ((c[0][:, 1:] / c[3][:, :-1]).log() for c in (new, old))
    torch.testing.assert_close(gap, old_gap * scale[:, 1:])
    torch.testing.assert_close(new[0][:, 0], old[0][:, 0])
    assert scale.log().abs().max() <= 0.6 + 1e-9
    assert scale.log().std(0).sub(0.3).abs().max() < 0.05
    assert scale.log().diff().std() < 0.1 * scale.log().std()


def test_magnitude_survives_the_normalisation_as_a_constant_factor_would_not():
    windows = sample_windows(200, dtype=torch.float64)
    before, after = (normalise(w, 50, 5.0)[0][..., :4] for w in (windows, augment(windows, magnitude=0.4)))
    prices, volume, _ = _take_apart(windows)
    constant = _scale_moves(prices, torch.full_like(volume, 1.5))[:4].permute(1, 2, 0)
    assert (after - before).abs().mean() > 0.1
    assert (normalise(constant, 50, 5.0)[0] - before).abs().mean() < 0.03


# --- time warp --------------------------------------------------------------------------------------------------------


@settings(deadline=None)
@given(odd_windows(units=(1.0,)), st.integers(0, 1000))
def test_time_warp_keeps_volume_amount_extremes_and_ends_of_a_window(windows, epoch):
    old, new = columns(windows), columns(augment(windows, epoch, time_warp=0.3))
    torch.testing.assert_close(new[4].sum(1), old[4].sum(1), rtol=1e-6, atol=0)
    # A vwap may leave part of its candle, and is put back: by no more than the candle's range.
    assert ((new[5] - old[5]).sum(1).abs() <= (old[4] * (old[1] - old[2]).amax(1, True) + old[5] * 1e-6).sum(1)).all()
    torch.testing.assert_close(new[1].amax(1), old[1].amax(1), rtol=1e-6, atol=0)
    torch.testing.assert_close(new[2].amin(1), old[2].amin(1), rtol=1e-6, atol=0)
    torch.testing.assert_close(new[0][:, 0], old[0][:, 0], rtol=1e-6, atol=0)
    torch.testing.assert_close(new[3][:, -1], old[3][:, -1], rtol=1e-6, atol=0)


def test_time_warp_all_but_conserves_the_amount():
    old, new = (w[..., 5].double().sum(1) for w in (sample_windows(), augment(sample_windows(), time_warp=0.3)))
    torch.testing.assert_close(new, old, rtol=5e-4, atol=0)


@settings(deadline=None)
@given(odd_windows(), st.data())
def test_a_warped_candle_holds_prices_and_volume_of_its_time(windows, data):
    batch, rows = windows.shape[:2]
    log_speed = data.draw(hnp.arrays(np.float64, (batch, rows), elements=st.floats(-0.4, 0.4)))
    prices, volume, weight = _take_apart(windows)
    warped, new_volume, _ = _warp(prices, volume, weight, torch.from_numpy(log_speed))
    for b in range(batch):
        speed = np.exp(log_speed[b])
        tau = np.concatenate([[0], np.cumsum(speed)]) / speed.sum() * rows
        gap = np.abs(tau - tau.round())
        assume(((gap < 1e-10) | (gap > 1e-8)).all())  # otherwise rounding decides which candle a boundary is in
        for k in range(rows):
            pieces = [path_of(prices[:4, b, c].tolist(), tau[k] - c, tau[k + 1] - c) for c in range(rows)]
            path = np.concatenate(pieces)
            expected = [path[0], path.max(), path.min(), path[-1]]
            np.testing.assert_allclose(warped[:4, b, k], expected, rtol=1e-7)
            shares = np.clip(tau[k + 1] - np.arange(rows), 0, 1) - np.clip(tau[k] - np.arange(rows), 0, 1)
            tolerance = 1e-8 * volume[b].max()  # boundaries are rounded to 1e-9 of a candle
            np.testing.assert_allclose(new_volume[b, k], shares @ volume[b].numpy(), rtol=1e-6, atol=tolerance)


def path_of(candle, begin, end):
    """Prices inside one candle at the ends and corners of the part from `begin` to `end`, in its own time."""
    begin, end = max(begin, 0.0), min(end, 1.0)
    if end - begin < 1e-8:
        return np.empty(0)
    open_, high, low, close = candle
    corners = [open_, low, high, close] if close >= open_ else [open_, high, low, close]
    times = np.array([0, 1 / 3, 2 / 3, 1])
    inside = times[(times > begin) & (times < end)]
    return np.interp([begin, *inside, end], times, corners)


def test_time_that_flows_evenly_gives_the_same_candles():
    windows = sample_windows(dtype=torch.float64)
    parts = _take_apart(windows)
    for new, old in zip(_warp(*parts, torch.full((20, 60), 0.2, dtype=torch.float64)), parts, strict=True):
        torch.testing.assert_close(new, old, rtol=1e-12, atol=0)


def test_time_warp_moves_candles_by_several_rows_but_never_out_of_order():
    ramp = torch.linspace(1, 60, 60).expand(200, -1)
    windows = torch.stack([ramp, ramp + 1, ramp, ramp + 1, ramp, ramp * (ramp + 0.5)], dim=-1)
    opens = augment(windows, time_warp=0.2)[..., 0]
    assert (opens - ramp).abs().amax(1).median() > 2
    assert (opens.diff() > -1e-4).all()


def test_however_strong_the_warp_a_candle_takes_the_time_of_a_few():
    windows = torch.ones(200, 60, 6)  # of constant volume, so that volume is duration
    duration = augment(windows, time_warp=3.0)[..., 4]
    assert duration.max() <= 1.6**2 * (1 + 1e-6)
    assert duration.min() >= 1.6**-2 * (1 - 1e-6)
    assert duration.max() > 2


# --- noise ------------------------------------------------------------------------------------------------------------


def test_candles_that_touched_still_touch_after_noise():
    windows = sample_windows()
    assert torch.equal(windows[:, 1:, 0], windows[:, :-1, 3])
    noisy = augment(windows, price_noise=0.3)
    assert torch.equal(noisy[:, 1:, 0], noisy[:, :-1, 3])
    assert not torch.allclose(noisy[..., 3], windows[..., 3], rtol=1e-5)


def test_vwaps_keep_their_place_among_noisy_prices():
    *prices, volume, amount = columns(augment(sample_windows(), price_noise=0.3))
    torch.testing.assert_close(amount / volume, sum(prices) / 4, rtol=1e-6, atol=0)


@pytest.mark.parametrize("interval", ["1m", "1d"])
def test_noise_is_a_share_of_the_average_range_of_candles_of_any_length(interval):
    windows = sample_windows(200, interval=interval, dtype=torch.float64)
    noise = (augment(windows, price_noise=0.1)[..., :4] / windows[..., :4]).log()
    share = noise / (windows[..., 1] / windows[..., 2]).log().mean(1)[:, None, None]
    for column in (0, 3):
        assert share[..., column].std().item() == pytest.approx(0.1, rel=0.05)
        assert share[..., column].mean().item() == pytest.approx(0.0, abs=0.005)
    for column in (1, 2):  # they also make way for opens and closes
        assert share[..., column].std().item() == pytest.approx(0.1, rel=0.2)
    assert np.corrcoef(share.flatten(0, 1)[:, [0, 3]].T)[0, 1] == pytest.approx(0.0, abs=0.05)
    assert np.corrcoef(share.flatten(0, 1)[:, [1, 2]].T)[0, 1] == pytest.approx(0.0, abs=0.1)
