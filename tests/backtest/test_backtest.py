"""The engine's rules, one by one, and against a second, naive implementation."""

import empyrical
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kronos_lightning.backtest import Rules, run_backtest
from kronos_lightning.backtest.performance import (
    break_even_fee,
    buy_and_hold,
    equity_figures,
    figures,
    max_drawdown,
    random_returns,
)
from kronos_lightning.backtest.signals import BUY, HOLD, SELL, decide, expectation, on_candles

FREE = Rules(cost=0.0, stop_loss=None, take_profit=None, max_drawdown=None)
DAY = pd.Timedelta("1D")


def frame(*candles):
    """Candles from (open, high, low, close)."""
    stamps = pd.date_range("2024-01-01", periods=len(candles), freq="D", tz="UTC")
    table = pd.DataFrame(np.array(candles, dtype=float), columns=["open", "high", "low", "close"])
    return table.assign(timestamps=stamps)


def run(candles, signals, rules=FREE, equity=1000.0):
    return run_backtest(candles, np.array(signals, dtype=np.int8), rules, equity)


FLAT = (100, 100, 100, 100)


def test_a_signal_fills_at_the_next_open_not_at_its_own_close():
    result = run(frame(FLAT, (110, 120, 105, 120), (120, 130, 120, 130)), [BUY, HOLD, HOLD])
    assert result.trades[0].entry_price == 110
    assert result.equity[-1] == pytest.approx(1000 * 130 / 110)


def test_a_signal_on_the_last_candle_never_fills():
    result = run(frame(FLAT, FLAT, FLAT), [HOLD, HOLD, BUY])
    assert result.trades == []
    assert result.equity.tolist() == [1000.0] * 3


def test_hold_keeps_the_position_and_a_repeated_buy_does_not_trade_again():
    result = run(frame(*[FLAT] * 6), [BUY, HOLD, BUY, BUY, HOLD, HOLD], Rules(cost=0.01))
    assert len(result.trades) == 1
    assert (result.position[1:] == result.position[1]).all()


def test_costs_are_paid_on_both_sides_from_the_invested_share():
    result = run(frame(FLAT, FLAT, FLAT), [BUY, SELL, HOLD], Rules(cost=0.01))
    quantity = 1000 / (100 * 1.01)
    assert result.trades[0].costs == pytest.approx(quantity * 100 * 0.02)
    assert result.equity[-1] == pytest.approx(quantity * 100 * 0.99)
    assert result.trades[0].profit == pytest.approx(result.equity[-1] - 1000)


def test_maximum_position_limits_the_share_of_the_equity():
    result = run(frame(FLAT, (100, 200, 100, 200), FLAT), [BUY, HOLD, HOLD], Rules(cost=0, max_position=0.5,
                 take_profit=None, stop_loss=None, max_drawdown=None))  # fmt: skip
    assert result.equity[1] == pytest.approx(1500)


def test_sell_closes_a_long_position_or_turns_it_short():
    candles = frame(FLAT, FLAT, FLAT, (100, 100, 50, 50), (50, 50, 50, 50))
    signals = [BUY, SELL, HOLD, HOLD, HOLD]
    assert run(candles, signals).equity[-1] == pytest.approx(1000)
    assert run(candles, signals, Rules(0, 1, None, None, None, "long_short")).equity[-1] == pytest.approx(1500)


def test_stop_loss_fills_at_its_level_inside_a_candle():
    result = run(frame(FLAT, FLAT, (98, 99, 94, 97), FLAT), [BUY, HOLD, HOLD, HOLD], Rules(0, 1, 0.05, None, None))
    assert (result.trades[0].exit_price, result.trades[0].reason) == (95, "stop")


def test_a_gap_through_the_stop_fills_at_the_open():
    result = run(frame(FLAT, FLAT, (90, 99, 85, 97), FLAT), [BUY, HOLD, HOLD, HOLD], Rules(0, 1, 0.05, None, None))
    assert (result.trades[0].exit_price, result.trades[0].reason) == (90, "stop")


def test_take_profit_fills_at_its_level_and_a_gap_beyond_it_at_the_open():
    rules = Rules(0, 1, None, 0.15, None)
    inside = run(frame(FLAT, FLAT, (110, 120, 105, 107), FLAT), [BUY, HOLD, HOLD, HOLD], rules)
    assert (inside.trades[0].exit_price, inside.trades[0].reason) == (pytest.approx(115), "target")
    beyond = run(frame(FLAT, FLAT, (118, 120, 105, 107), FLAT), [BUY, HOLD, HOLD, HOLD], rules)
    assert beyond.trades[0].exit_price == 118


def test_the_stop_comes_before_the_target_in_a_candle_that_holds_both_and_is_counted():
    result = run(frame(FLAT, FLAT, (100, 120, 90, 110), FLAT), [BUY, HOLD, HOLD, HOLD], Rules(0, 1, 0.05, 0.15, None))
    assert result.trades[0].reason == "stop"
    assert result.ambiguous == 1


def test_stop_and_target_of_a_short_position_are_mirrored():
    rules = Rules(0, 1, 0.05, 0.15, None, "long_short")
    stop = run(frame(FLAT, FLAT, (100, 106, 99, 100), FLAT), [SELL, HOLD, HOLD, HOLD], rules)
    assert (stop.trades[0].exit_price, stop.trades[0].reason) == (105, "stop")
    target = run(frame(FLAT, FLAT, (100, 100, 84, 90), FLAT), [SELL, HOLD, HOLD, HOLD], rules)
    assert (target.trades[0].exit_price, target.trades[0].reason) == (85, "target")


def test_after_a_stop_a_new_buy_enters_again():
    candles = frame(FLAT, FLAT, (98, 99, 94, 97), FLAT, FLAT)
    result = run(candles, [BUY, HOLD, BUY, HOLD, HOLD], Rules(0, 1, 0.05, None, None))
    assert [t.entry_time.day for t in result.trades] == [2, 4]


def test_the_drawdown_halt_closes_at_the_next_open_and_ends_trading():
    candles = frame(FLAT, FLAT, (100, 100, 79, 79), (78, 78, 78, 78), FLAT, FLAT)
    result = run(candles, [BUY, HOLD, HOLD, BUY, BUY, BUY], Rules(0, 1, None, None, 0.2))
    assert result.halted == candles["timestamps"][2]
    assert [(t.exit_price, t.reason) for t in result.trades] == [(78, "drawdown")]
    assert result.equity[-1] == pytest.approx(780)


def test_an_open_position_is_closed_and_paid_for_at_the_end():
    result = run(frame(FLAT, FLAT, FLAT), [BUY, HOLD, HOLD], Rules(cost=0.01))
    assert result.trades[0].reason == "end"
    assert result.equity[-1] == pytest.approx(1000 / 1.01 * 0.99)


def naive_equity(candles, signals, cost, side):
    """Another way to count: compound the returns of the target exposure, without stops. Full position only."""
    equity, held, exposure, entry_equity, entry = 1.0, 0, 0.0, 1.0, 0.0
    curve = [1.0]
    for t in range(1, len(candles)):
        wanted = {BUY: 1, SELL: -1 if side == "long_short" else 0, HOLD: held}[signals[t - 1]]
        price = candles["open"][t]
        if wanted != held:
            if held:
                gross = entry_equity * exposure * held * (price / entry - 1)
                equity = entry_equity * (1 - cost * exposure) + gross - cost * entry_equity * exposure * price / entry
            if wanted:
                entry_equity, entry, exposure = equity, price, 1 / (1 + cost)
            held = wanted
        close = candles["close"][t]
        value = equity
        if held:
            value = entry_equity * (1 - cost * exposure + exposure * held * (close / entry - 1))
        if t == len(candles) - 1 and held:
            value -= cost * entry_equity * exposure * close / entry
        curve.append(value)
    return np.array(curve)


@pytest.mark.parametrize("side", ["long_only", "long_short"])
@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 10_000), cost=st.sampled_from([0.0, 0.001, 0.02]))
def test_equity_equals_a_naive_second_implementation(side, seed, cost):
    rng = np.random.default_rng(seed)
    walk = 100 * np.exp(np.cumsum(rng.normal(0, 0.01, (40, 2)).ravel())).reshape(40, 2)
    candles = frame(*[(o, max(o, c) * 1.01, min(o, c) * 0.99, c) for o, c in walk])
    signals = rng.choice([BUY, HOLD, SELL], 40)
    result = run(candles, signals, Rules(cost, 1, None, None, None, side), equity=1.0)
    np.testing.assert_allclose(result.equity, naive_equity(candles, signals, cost, side), rtol=1e-9)


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 10_000), cut=st.integers(2, 38))
def test_when_later_candles_change_then_equity_and_trades_before_are_identical(seed, cut):
    rng = np.random.default_rng(seed)
    walk = 100 * np.exp(np.cumsum(rng.normal(0, 0.03, (40, 2)).ravel())).reshape(40, 2)
    candles = frame(*[(o, max(o, c) * 1.02, min(o, c) * 0.98, c) for o, c in walk])
    signals = rng.choice([BUY, HOLD, SELL], 40)
    changed = candles.copy()
    changed.loc[cut:, ["open", "high", "low", "close"]] *= 1.7
    before, after = (run(table, signals, Rules(side="long_short")) for table in (candles, changed))
    np.testing.assert_array_equal(before.equity[:cut], after.equity[:cut])
    np.testing.assert_array_equal(before.position[:cut], after.position[:cut])


def random_equity(seed):
    rng = np.random.default_rng(seed)
    kind = seed % 4
    returns = rng.normal(0.0005, 0.02, rng.integers(5, 400))
    if kind == 1:
        returns = np.abs(returns) + 1e-6  # never a loss
    elif kind == 2:
        returns = -np.abs(returns) - 1e-6  # only losses
    elif kind == 3:
        returns[:] = 0  # never a trade
    return np.concatenate([[1000.0], 1000 * np.cumprod(1 + returns)])


@pytest.mark.parametrize("seed", range(40))
def test_figures_equal_those_of_an_independent_library(seed):
    equity = random_equity(seed)
    returns = equity[1:] / equity[:-1] - 1
    ours = equity_figures(equity, DAY)
    theirs = {
        "total_return": empyrical.cum_returns_final(returns),
        "annual_return": empyrical.annual_return(returns, annualization=365),
        "sharpe_ratio": empyrical.sharpe_ratio(returns, annualization=365),
        "sortino_ratio": empyrical.sortino_ratio(returns, annualization=365),
        "max_drawdown": empyrical.max_drawdown(returns),
        "calmar_ratio": empyrical.calmar_ratio(returns, annualization=365),
    }
    undefined = {name for name, value in theirs.items() if not np.isfinite(value)}
    assert undefined == {name for name, value in ours.items() if np.isnan(value)}
    for name in theirs.keys() - undefined:
        assert ours[name] == pytest.approx(theirs[name], rel=1e-9, abs=1e-12), name


def test_periods_a_year_come_from_the_interval():
    equity = random_equity(0)
    hourly, daily = equity_figures(equity, pd.Timedelta("1h")), equity_figures(equity, DAY)
    assert hourly["sharpe_ratio"] == pytest.approx(daily["sharpe_ratio"] * np.sqrt(24))


def test_win_rate_and_profit_factor_count_trades_after_costs():
    candles = frame(FLAT, FLAT, (120, 120, 120, 120), (120, 120, 120, 120), (90, 90, 90, 90), FLAT)
    result = run(candles, [BUY, SELL, BUY, SELL, HOLD, HOLD])
    profits = [t.profit for t in result.trades]
    got = figures(result, DAY)
    assert got["win_rate"] == 0.5
    assert got["profit_factor"] == pytest.approx(profits[0] / -profits[1])
    never = figures(run(candles, [HOLD] * 6), DAY)
    assert np.isnan([never["win_rate"], never["profit_factor"], never["sharpe_ratio"], never["calmar_ratio"]]).all()
    assert never["max_drawdown"] == 0


def test_the_starting_equity_counts_in_the_drawdown():
    assert max_drawdown(np.array([100.0, 90, 95])) == pytest.approx(-0.1)


def test_buy_and_hold_obeys_no_limit_and_pays_both_sides():
    candles = frame(FLAT, FLAT, (100, 100, 40, 40), (40, 90, 40, 90))
    result = buy_and_hold(candles, Rules(cost=0.01), 1000.0)
    assert result.equity[-1] == pytest.approx(1000 / 1.01 * 0.9 * 0.99)


def test_random_strategies_keep_the_signals_and_change_their_order():
    rng = np.random.default_rng(0)
    close = 100 * np.exp(np.cumsum(rng.normal(0, 0.05, 60)))
    candles = frame(*[(c, c, c, c) for c in close])
    signals = rng.choice([BUY, HOLD, SELL], 60)
    returns = random_returns(candles, signals, np.arange(60), FREE, runs=50, seed=1)
    assert len(set(returns)) > 10
    np.testing.assert_array_equal(returns, random_returns(candles, signals, np.arange(60), FREE, 50, 1))
    only_first = random_returns(candles, signals, np.array([5]), FREE, 5, 1)
    assert set(only_first) == {run(candles, signals, equity=1.0).equity[-1] - 1}


def test_at_the_break_even_fee_nothing_is_won_or_lost():
    candles = frame(FLAT, FLAT, (103, 103, 103, 103), (103, 103, 103, 103))
    signals = np.array([BUY, SELL, HOLD, HOLD], dtype=np.int8)
    shifted = frame(FLAT, FLAT, (103, 103, 103, 103), (103, 103, 103, 103), FLAT)
    fee = break_even_fee(shifted, np.append(signals, 0).astype(np.int8), FREE)
    assert run(shifted, [*signals, 0], Rules(fee, 1, None, None, None)).equity[-1] == pytest.approx(1000, rel=1e-5)
    assert np.isnan(break_even_fee(candles, np.zeros(4, dtype=np.int8), FREE))


def test_expectation_and_thresholds_make_signals():
    last = np.array([100.0, 100.0, 100.0])
    paths = np.array(
        [[[0, 103], [0, 104], [0, 101]], [[0, 99], [0, 90], [0, 101]], [[0, 101], [0, 99], [0, 100]]], float
    )
    np.testing.assert_allclose(expectation(paths, last, "median"), [0.03, -0.01, 0.0])
    np.testing.assert_allclose(expectation(paths, last, "mean"), [8 / 300, -1 / 30, 0.0], atol=1e-12)
    np.testing.assert_allclose(expectation(paths, last, "probability"), [0.5, 1 / 3 - 0.5, 1 / 3 - 0.5])
    assert decide(expectation(paths, last, "median"), 0.02, -0.005).tolist() == [BUY, SELL, HOLD]
    assert decide(np.array([0.02, -0.02]), 0.02, -0.02).tolist() == [HOLD, HOLD]


def test_signals_stand_on_their_cutoffs_candles():
    stamps = np.array(["2024-01-01", "2024-01-02", "2024-01-03"], dtype="datetime64[ns]")
    assert on_candles(np.array([BUY]), stamps[1:2], stamps).tolist() == [HOLD, BUY, HOLD]
    with pytest.raises(ValueError, match="none of the candles"):
        on_candles(np.array([BUY]), stamps[:1] + np.timedelta64(1, "h"), stamps)
