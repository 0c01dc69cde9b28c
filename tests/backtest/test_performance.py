"""Metrics, against an independent library and by hand."""

import empyrical
import numpy as np
import pandas as pd
import pytest

from kronos_lightning.backtest import ExecutionRules
from kronos_lightning.backtest.comparison import always_flat
from kronos_lightning.backtest.performance import backtest_metrics, equity_metrics, max_drawdown, trade_metrics
from kronos_lightning.backtest.strategy import BUY, HOLD, SELL
from tests.helpers.markets import DAY, FLAT, FREE, market, run

KINDS = ["anything", "never a loss", "only losses", "never a trade", "all is lost", "one candle", "two candles"]


def random_returns(seed):
    rng = np.random.default_rng(seed)
    returns = rng.normal(0.0005, 0.02, rng.integers(5, 400))
    kind = KINDS[seed % len(KINDS)]
    if kind == "never a loss":
        return np.abs(returns) + 1e-6
    if kind == "only losses":
        return -np.abs(returns) - 1e-6
    if kind == "never a trade":
        return np.zeros_like(returns)
    if kind == "all is lost":
        middle = len(returns) // 2
        return np.concatenate([returns[:middle], [-1.0], np.zeros(len(returns) - middle)])
    return returns[: {"one candle": 1, "two candles": 2}.get(kind)]


@pytest.mark.parametrize("seed", range(200))
def test_metrics_equal_those_of_an_independent_library(seed):
    returns = random_returns(seed)
    ours = equity_metrics(np.concatenate([[1000.0], 1000 * np.cumprod(1 + returns)]), returns, DAY)
    theirs = {
        "total_return": empyrical.cum_returns_final(returns),
        "annual_return": empyrical.annual_return(returns, annualization=365),
        "sharpe_ratio": empyrical.sharpe_ratio(returns, annualization=365),
        "sortino_ratio": empyrical.sortino_ratio(returns, annualization=365),
        "max_drawdown": empyrical.max_drawdown(returns),
        "calmar_ratio": empyrical.calmar_ratio(returns, annualization=365),
    }
    undefined = {name for name, value in theirs.items() if not np.isfinite(value)}
    assert undefined == {name for name, value in ours.items() if not np.isfinite(value)}
    for name in theirs.keys() - undefined:
        assert ours[name] == pytest.approx(theirs[name], rel=1e-9, abs=1e-12), name


def test_the_engines_returns_are_those_of_its_equity():
    result = run(market(FLAT, FLAT, (100, 120, 100, 110), (110, 110, 99, 99)), [BUY, HOLD, HOLD, HOLD], FREE)
    assert result.returns.tolist() == pytest.approx([0.0, 0.1, -0.1])
    expected = equity_metrics(result.equity, result.returns, DAY)
    assert {name: backtest_metrics(result)[name] for name in expected} == pytest.approx(expected, nan_ok=True)


def test_periods_a_year_come_from_the_interval():
    returns = random_returns(0)
    equity = np.concatenate([[1.0], np.cumprod(1 + returns)])
    hourly, daily = (equity_metrics(equity, returns, pd.Timedelta(name)) for name in ("1h", "1D"))
    for name in ("sharpe_ratio", "sortino_ratio"):
        assert hourly[name] == pytest.approx(daily[name] * np.sqrt(24))
    assert 1 + hourly["annual_return"] == pytest.approx((1 + daily["annual_return"]) ** 24)


def test_win_rate_and_profit_factor_count_trades_after_costs():
    candles = market(FLAT, FLAT, (120, 120, 120, 120), (120, 120, 120, 120), (90, 90, 90, 90), FLAT)
    result = run(candles, [BUY, SELL, BUY, SELL, HOLD, HOLD], FREE)
    won, lost = result.trades["profit"]
    got = backtest_metrics(result)
    assert (got["win_rate"], got["trades"]) == (0.5, 2)
    assert got["profit_factor"] == pytest.approx(won / -lost)
    flat = run(market(*[FLAT] * 4), [BUY, SELL, HOLD, HOLD], ExecutionRules(cost=0.001))
    assert backtest_metrics(flat)["win_rate"] == 0  # no price moved, the costs lost


@pytest.mark.parametrize(
    ("profits", "win_rate", "profit_factor"),
    [
        ([], np.nan, np.nan),
        ([3.0, 1.0], 1.0, np.nan),
        ([-3.0, -1.0], 0.0, 0.0),
        ([0.0], 0.0, np.nan),
        ([4.0, -1.0, -1.0, 0.0], 0.25, 2.0),
    ],
)
def test_edges_of_the_trades_metrics(profits, win_rate, profit_factor):
    expected = {"win_rate": win_rate, "profit_factor": profit_factor, "trades": len(profits)}
    assert trade_metrics(np.array(profits)) == pytest.approx(expected, nan_ok=True)


def test_always_flat_wins_and_loses_nothing_and_has_no_ratio():
    got = backtest_metrics(always_flat(market(*[FLAT] * 5), 1000.0))
    assert (got["total_return"], got["annual_return"], got["max_drawdown"], got["trades"]) == (0, 0, 0, 0)
    assert np.isnan([got["sharpe_ratio"], got["sortino_ratio"], got["calmar_ratio"], got["win_rate"]]).all()


def test_a_debt_is_a_return_below_minus_one_and_leaves_the_ratios_defined():
    candles = market(FLAT, FLAT, (100, 250, 100, 250), *[(250, 250, 250, 250)] * 3)
    short = run(candles, [SELL] * 6, ExecutionRules(side="long_short"))
    got = backtest_metrics(short)
    assert (got["total_return"], got["annual_return"], got["max_drawdown"]) == (-1.5, -1.0, -1.5)
    assert np.isfinite([got["sharpe_ratio"], got["sortino_ratio"], got["calmar_ratio"]]).all()


def test_the_starting_equity_counts_in_the_drawdown():
    assert max_drawdown(np.array([100.0, 90, 95])) == pytest.approx(-0.1)
