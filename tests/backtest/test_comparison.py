"""Comparisons with a strategy: holding, random times, fees; and the search of parameters."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kronos_lightning.backtest import ExecutionRules, MarketData, ThresholdStrategy
from kronos_lightning.backtest.comparison import (
    break_even_fee,
    buy_and_hold,
    random_returns,
    reordered,
    returns_by_cost,
)
from kronos_lightning.backtest.performance import backtest_metrics, sharpe_ratio
from kronos_lightning.backtest.search import search_parameters
from kronos_lightning.backtest.sharpe import deflated_sharpe
from kronos_lightning.backtest.strategy import BUY, HOLD, SELL, on_candles, wanted_positions
from tests.helpers.markets import DAY, FLAT, FREE, LIMITED, market, random_frame, run


def random_market(seed, length=200):
    rng = np.random.default_rng(seed)
    return MarketData.of(random_frame(rng, length), DAY), rng


def forecasts_of(expected):
    """Forecasts of one path each that say these returns."""
    paths = 1 + np.asarray(expected)[:, None, None]
    return SimpleNamespace(close_paths=paths, last_close=np.ones(len(paths)), probability_up=(paths > 1).mean(axis=1))


def by_thresholds(buy, sell, tried=(0.0,)):
    return ThresholdStrategy(signal="median", buy_threshold=buy, sell_threshold=sell, search_thresholds=list(tried))


def test_buy_and_hold_obeys_no_limit_and_pays_both_sides():
    candles = market(FLAT, FLAT, (100, 100, 40, 40), (40, 90, 40, 90))
    rules = LIMITED.model_copy(update={"cost": 0.01, "max_position": 0.5, "slippage": 0.02})
    result = buy_and_hold(candles, rules, 1000.0)
    assert result.equity[-1] == pytest.approx(1000 / 1.01 / (100 * 1.02) * 90 * 0.98 * 0.99)


@settings(deadline=None)
@given(
    signals=st.lists(st.sampled_from([BUY, HOLD, SELL]), min_size=1, max_size=60),
    side=st.sampled_from(["long_only", "long_short"]),
    seed=st.integers(0, 1000),
)
def test_random_strategies_keep_signals_and_turnover(signals, side, seed):
    signals, rules = np.array(signals), ExecutionRules(side=side)
    got = reordered(signals, rules, np.random.default_rng(seed))
    assert sorted(got) == sorted(signals)
    changes = [np.count_nonzero(np.diff(wanted_positions(each, side))) for each in (signals, got)]
    assert changes[1] <= changes[0] + 2  # the seam of the ring, and a HOLD that no longer stands at the beginning


def test_random_strategies_of_persistent_signals_trade_as_seldom():
    signals = np.repeat([BUY, SELL, BUY, SELL], [30, 50, 80, 40])
    where, rng = random_market(0)
    trades = [len(run(where, reordered(signals, FREE, rng), FREE).trades) for _ in range(50)]
    shuffled = [len(run(where, rng.permutation(signals), FREE).trades) for _ in range(50)]
    assert max(trades) <= 3
    assert min(shuffled) > 30


def test_random_strategies_come_from_the_seed_and_act_on_the_cutoffs_only():
    where, rng = random_market(1)
    rows = np.arange(0, 200, 4)
    signals = rng.choice([BUY, HOLD, SELL], len(rows))
    returns = random_returns(where, signals, rows, FREE, runs=50, seed=1)
    assert len(set(returns)) > 10
    np.testing.assert_array_equal(returns, random_returns(where, signals, rows, FREE, 50, 1))
    assert (returns != random_returns(where, signals, rows, FREE, 50, 2)).any()
    only_fifth = random_returns(where, np.array([BUY]), np.array([5]), FREE, 5, 1)
    assert set(only_fifth) == {run(where, on_candles(np.array([BUY]), [5], 200), FREE, 1.0).equity[-1] - 1}


def test_at_the_break_even_fee_nothing_is_won_or_lost():
    candles = market(FLAT, FLAT, (103, 103, 103, 103), (103, 103, 103, 103), FLAT)
    signals = np.array([BUY, SELL, HOLD, HOLD, HOLD])
    slipping = ExecutionRules(slippage=0.002)
    fees = [break_even_fee(candles, signals, rules) for rules in (FREE, slipping)]
    assert fees[0] == pytest.approx((103 / 100 - 1) / (103 / 100 + 1), abs=2e-6)  # 103·(1−f) = 100·(1+f)
    assert fees[1] == pytest.approx(fees[0] - 0.002, abs=1e-4)
    assert run(candles, signals, slipping.model_copy(update={"cost": fees[1]})).equity[-1] == pytest.approx(
        1000, rel=1e-5
    )


def test_there_is_no_break_even_fee_without_trades_or_profit_and_an_infinite_one_beyond_five_per_cent():
    rising = market(FLAT, FLAT, (150, 150, 150, 150))
    assert break_even_fee(rising, np.array([BUY, HOLD, HOLD]), FREE) == np.inf
    for signals, candles in (
        ([HOLD, HOLD, HOLD], rising),
        ([BUY, HOLD, HOLD], market(FLAT, FLAT, (99, 99, 99, 99))),
    ):
        assert np.isnan(break_even_fee(candles, np.array(signals), FREE))


def test_returns_by_cost_are_those_of_runs_at_these_costs():
    where, rng = random_market(2)
    signals = rng.choice([BUY, HOLD, SELL], 200)
    costs = np.array([0.0, 0.003, 0.01])
    rules = [LIMITED.model_copy(update={"cost": cost}) for cost in costs]
    expected = [backtest_metrics(run(where, signals, each))["total_return"] for each in rules]
    assert returns_by_cost(where, signals, LIMITED, costs) == pytest.approx(expected)


def test_a_search_has_the_metrics_of_every_threshold_at_every_cost():
    where, rng = random_market(3)
    rows = np.arange(0, 200, 2)
    forecasts = forecasts_of(rng.normal(0, 0.02, 100))
    rules = LIMITED.model_copy(update={"side": "long_short", "slippage": 0.001})
    thresholds = [0.0, 0.01, 0.5]
    search = search_parameters(where, forecasts, rows, by_thresholds(9, -9, thresholds), rules, [0.0, 0.002])
    table = search.table
    assert search.parameters == ("threshold",)
    assert table[["threshold", "cost"]].to_numpy().tolist() == [
        [threshold, cost]
        for threshold in thresholds
        for cost in (0.0, 0.001, 0.002)  # the rules' own among them
    ]
    signals = on_candles(by_thresholds(0.01, -0.01).signals(forecasts), rows, 200)
    for i, cost in ((3, 0.0), (4, 0.001), (5, 0.002)):
        direct = backtest_metrics(run(where, signals, rules.model_copy(update={"cost": cost}), 1.0))
        assert table.iloc[i, 2:].to_dict() == pytest.approx(direct)
    assert (table["trades"][:6] > 0).all()
    assert (table["trades"][6:] == 0).all()


def test_a_cutoff_without_a_row_is_not_traded():
    where, rng = random_market(6)
    rows, expected = np.arange(0, 200, 4), rng.normal(0, 0.02, 50)
    some = np.arange(50) % 3 == 0
    kept = forecasts_of(expected[some]), rows[some]
    masked = forecasts_of(expected), np.where(some, rows, -1)
    tables = [search_parameters(where, *each, by_thresholds(0, 0), LIMITED, [0.0]).table for each in (kept, masked)]
    pd.testing.assert_frame_equal(*tables)


def test_the_best_threshold_has_the_best_sharpe_ratio_at_the_rules_own_cost():
    where, rng = random_market(4)
    rows, forecasts = np.arange(200), forecasts_of(rng.normal(0, 0.02, 200))
    rules = LIMITED.model_copy(update={"cost": 0.004, "max_drawdown": None})
    strategy = by_thresholds(9, -9, [0.03, 0.0, 0.02, 0.5, 0.02])
    search = search_parameters(where, forecasts, rows, strategy, rules, [0.0])
    assert sorted(set(search.table["cost"])) == [0.0, 0.004]
    runs = [run(where, by_thresholds(x, -x).signals(forecasts), rules, 1.0).returns for x in (0.0, 0.02, 0.03)]
    sharpes = [sharpe_ratio(returns) for returns in runs]
    winner = int(np.argmax(sharpes))
    assert (search.best, search.trials) == ({"threshold": (0.0, 0.02, 0.03)[winner]}, 4)
    assert search.deflated_sharpe == pytest.approx(deflated_sharpe(runs[winner], np.array([*sharpes, np.nan])))


def test_where_no_threshold_trades_there_is_no_best():
    where, _ = random_market(5)
    strategy = by_thresholds(0, 0, [0.0, 0.01])
    search = search_parameters(where, forecasts_of(np.zeros(200)), np.arange(200), strategy, LIMITED, [0.001])
    assert search.best is None
    assert search.trials == 2
    assert np.isnan(search.deflated_sharpe)
