"""What stands beside a strategy: holding, random times, fees; and the search of thresholds."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kronos_lightning.backtest import Market, Rules
from kronos_lightning.backtest.comparison import (
    break_even_fee,
    buy_and_hold,
    random_returns,
    reordered,
    returns_by_cost,
)
from kronos_lightning.backtest.performance import figures, sharpe_ratio
from kronos_lightning.backtest.search import choose, sweep
from kronos_lightning.backtest.sharpe import deflated_sharpe
from kronos_lightning.backtest.signals import BUY, HOLD, SELL, decide, on_candles, wanted_positions

from .conftest import DAY, FLAT, market, random_frame, run

FREE = Rules(cost=0.0, stop_loss=None, take_profit=None, max_drawdown=None)


def random_market(seed, length=200):
    rng = np.random.default_rng(seed)
    return Market.of(random_frame(rng, length), DAY), rng


def test_buy_and_hold_obeys_no_limit_and_pays_both_sides():
    candles = market(FLAT, FLAT, (100, 100, 40, 40), (40, 90, 40, 90))
    result = buy_and_hold(candles, Rules(cost=0.01, max_position=0.5, slippage=0.02), 1000.0)
    assert result.equity[-1] == pytest.approx(1000 / 1.01 / (100 * 1.02) * 90 * 0.98 * 0.99)


@settings(deadline=None)
@given(
    signals=st.lists(st.sampled_from([BUY, HOLD, SELL]), min_size=1, max_size=60),
    side=st.sampled_from(["long_only", "long_short"]),
    seed=st.integers(0, 1000),
)
def test_random_strategies_keep_signals_and_turnover(signals, side, seed):
    signals, rules = np.array(signals), Rules(side=side)
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
    slipping = replace(FREE, slippage=0.002)
    fees = [break_even_fee(candles, signals, rules) for rules in (FREE, slipping)]
    assert fees[0] == pytest.approx((103 / 100 - 1) / (103 / 100 + 1), abs=2e-6)  # 103·(1−f) = 100·(1+f)
    assert fees[1] == pytest.approx(fees[0] - 0.002, abs=1e-4)
    assert run(candles, signals, replace(slipping, cost=fees[1])).equity[-1] == pytest.approx(1000, rel=1e-5)


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
    expected = [figures(run(where, signals, Rules(cost=cost)))["total_return"] for cost in costs]
    assert returns_by_cost(where, signals, Rules(), costs) == pytest.approx(expected)


def test_a_sweep_has_the_figures_of_every_threshold_at_every_cost():
    where, rng = random_market(3)
    rows = np.arange(0, 200, 2)
    expected = rng.normal(0, 0.02, 100)
    rules = Rules(side="long_short", slippage=0.001)
    table = sweep(where, expected, rows, rules, [0.0, 0.01, 0.5], [0.0, 0.002])
    assert table[["threshold", "cost"]].to_numpy().tolist() == [
        [threshold, cost] for threshold in (0.0, 0.01, 0.5) for cost in (0.0, 0.002)
    ]
    signals = on_candles(decide(expected, 0.01, -0.01), rows, 200)
    direct = figures(run(where, signals, replace(rules, cost=0.002), 1.0))
    assert table.iloc[3, 2:].to_dict() == pytest.approx(direct)
    assert (table["trades"][4:] == 0).all()


def test_the_best_threshold_has_the_best_sharpe_ratio_at_the_rules_own_cost():
    where, rng = random_market(4)
    rows, expected, rules = np.arange(200), rng.normal(0, 0.02, 200), Rules(cost=0.004, max_drawdown=None)
    thresholds = [0.03, 0.0, 0.02, 0.5, 0.02]
    search = choose(where, expected, rows, rules, thresholds, [0.0])
    assert sorted(set(search.table["cost"])) == [0.0, 0.004]
    runs = [run(where, decide(expected, x, -x), rules, 1.0).returns for x in (0.0, 0.02, 0.03)]
    sharpes = [sharpe_ratio(returns) for returns in runs]
    winner = int(np.argmax(sharpes))
    assert (search.best, search.trials) == ((0.0, 0.02, 0.03)[winner], 4)
    assert search.deflated_sharpe == pytest.approx(deflated_sharpe(runs[winner], np.array([*sharpes, np.nan])))


def test_where_no_threshold_trades_there_is_no_best():
    where, _ = random_market(5)
    search = choose(where, np.zeros(200), np.arange(200), Rules(), [0.0, 0.01], [0.001])
    assert search.best is None
    assert search.trials == 2
    assert np.isnan(search.deflated_sharpe)
