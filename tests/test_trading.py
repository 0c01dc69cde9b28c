"""From configuration and forecasts to the backtest, its tables and pictures."""

import json
import math
import re

import numpy as np
import pandas as pd
import pytest

from kronos_lightning.backtest import Rules
from kronos_lightning.backtest.signals import decide, expectation
from kronos_lightning.config import ConfigError, check_evaluation
from kronos_lightning.data.candles import Candles
from kronos_lightning.data.formats import FEATURES
from kronos_lightning.data.sample import sample_candles
from kronos_lightning.forecast import ForecastSet
from kronos_lightning.sections import BacktestSection
from kronos_lightning.trading import trade, trading_metrics, trading_pictures, trading_sentence, trading_tables
from tests.backtest.naive import naive_run
from tests.test_config import composed

HORIZON = 6


@pytest.fixture(scope="module")
def quarters():
    """3200 synthetic quarters of an hour."""
    return sample_candles(3200, "15m", "2023-01-01", seed=11, start_price=30000.0, volatility=1.5)


@pytest.fixture(scope="module")
def hours(quarters):
    """The 800 hours that they make."""
    frame = quarters.frame
    how = {"timestamps": "first", "open": "first", "high": "max", "low": "min", "close": "last", "volume": "sum",
           "amount": "sum", "segment": "first"}  # fmt: skip
    return Candles(frame.groupby(np.arange(len(frame)) // 4).agg(how), "SYNTHETIC", pd.Timedelta("1h"), "made", True)


def forecasts(candles, begin, count, stride=2, seed=0, paths=9):
    """Forecasts that know a little of what comes."""
    rng = np.random.default_rng(seed)
    values = candles.frame[FEATURES].to_numpy()
    times = candles.frame["timestamps"].dt.tz_localize(None).to_numpy()
    rows = begin + stride * np.arange(count)
    future = rows[:, None] + np.arange(1, HORIZON + 1)
    last, actual = values[rows, 3], values[future]
    drawn = np.repeat(actual[:, None], paths, axis=1).astype(np.float32)
    known = 0.3 * (actual[:, -1, 3] / last - 1) + rng.normal(0, 0.01, count)
    skewed = rng.exponential(0.01, (count, paths)) - 0.01
    drawn[:, :, -1, 3] = last[:, None] * (1 + known[:, None] + skewed)
    return ForecastSet(times[rows], times[future], last, drawn, actual)


@pytest.fixture(scope="module")
def ranges(hours):
    """Forecasts of the test and of the validation range."""
    return forecasts(hours, 400, 190, seed=1), forecasts(hours, 20, 180, seed=2)


QUICK = [
    "evaluation.bootstrap_samples=200", "backtest.random_runs=20", "backtest.buy_threshold=0.004",
    "backtest.sell_threshold=-0.004", "backtest.max_drawdown=0.05", "backtest.stop_loss=0.010",
    "backtest.take_profit=0.010",
]  # fmt: skip


def evaluation(*overrides):
    return check_evaluation(composed("evaluate", *QUICK, *overrides))


def traded(hours, ranges, *overrides, **given):
    return trade(evaluation(*overrides), hours, *ranges, **given)


@pytest.fixture(scope="module")
def base(hours, ranges):
    return traded(hours, ranges)


def rules_of(options):
    return Rules(
        options.cost, options.max_position, options.stop_loss, options.take_profit, options.max_drawdown, options.side,
        options.slippage, options.cooldown,
    )  # fmt: skip


CHANGES = {
    "signal": "mean",
    "thresholds": "validation",
    "buy_threshold": 0.006,
    "sell_threshold": 0.003,
    "side": "long_short",
    "rebalance": 3,
    "cost": 0.002,
    "slippage": 0.001,
    "max_position": 0.5,
    "stop_loss": 0.03,
    "take_profit": 0.03,
    "max_drawdown": 0.1,
    "cooldown": 20,
    "finer_csv": "finer.csv",
    "initial_equity": 500.0,
    "random_runs": 21,
    "sweep_thresholds": "[0.0,0.004]",
    "sweep_costs": "[0.0]",
}


@pytest.mark.parametrize("key", BacktestSection.model_fields)
def test_every_setting_changes_the_result(key, hours, quarters, ranges, base, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    quarters.frame.drop(columns="segment").to_csv("finer.csv", index=False)
    changed = traded(hours, ranges, f"backtest.{key}={CHANGES[key]}")
    assert json.dumps(trading_metrics(changed)) != json.dumps(trading_metrics(base))
    if key not in ("random_runs", "sweep_thresholds", "sweep_costs"):
        assert changed.strategy.equity.tolist() != base.strategy.equity.tolist()


def test_the_equity_is_that_of_a_naive_engine_on_every_third_cutoff(hours, ranges):
    settings = evaluation("backtest.rebalance=3", "backtest.side=long_short", "backtest.cooldown=10")
    test, _ = ranges
    result = trade(settings, hours, test)
    signals = decide(expectation(test.close_paths[::3], test.last_close[::3], "median"), 0.004, -0.004)
    candles = hours.frame.iloc[400 : 400 + 2 * 189 + HORIZON + 1].reset_index(drop=True)
    aligned = [0] * len(candles)
    aligned[: 2 * 190 : 6] = signals.tolist()
    curve, trades, *_ = naive_run(candles, aligned, rules_of(settings.backtest), 10_000.0)
    np.testing.assert_allclose(result.strategy.equity, curve, rtol=1e-9)
    assert len(result.strategy.trades) == len(trades) > 10
    assert sum(result.signals.values()) == 64  # of 190 cutoffs


def test_candles_before_the_first_cutoff_and_after_the_last_forecast_are_not_traded(hours, ranges, base):
    test, _ = ranges
    assert base.market.stamps[0] == pd.Timestamp(test.cutoffs[0], tz="UTC")
    assert base.market.stamps[-1] == pd.Timestamp(test.stamps[-1, -1], tz="UTC")
    moved = hours.frame.copy()
    moved.loc[[0, 399, len(moved) - 1], ["open", "high", "low", "close"]] *= 2
    again = trade(evaluation(), Candles(moved, "X", hours.interval, ""), test)
    np.testing.assert_array_equal(again.strategy.equity, base.strategy.equity)


def test_a_calibrated_probability_replaces_the_share_of_rising_paths(hours, ranges):
    test, validation = ranges
    chosen = ["backtest.signal=probability", "backtest.thresholds=validation", "backtest.sweep_thresholds=[0.1,0.3]"]
    share = (test.close_paths[:, :, -1] > test.last_close[:, None]).mean(axis=1)
    by_paths = traded(hours, ranges, *chosen)
    by_hand = traded(hours, ranges, *chosen, probability=share)
    np.testing.assert_array_equal(by_paths.strategy.equity, by_hand.strategy.equity)
    reverse = traded(hours, ranges, *chosen, probability=1 - share)
    assert (reverse.signals["BUY"], reverse.signals["SELL"]) == (by_paths.signals["SELL"], by_paths.signals["BUY"])
    silent = traded(hours, ranges, *chosen, validation_probability=np.full(len(validation), 0.5))
    assert silent.search.best is None
    ignored = traded(hours, ranges, probability=share)
    assert ignored.signals == traded(hours, ranges).signals


def test_the_thresholds_that_were_best_on_validation_trade_the_test_and_are_named(hours, ranges, base):
    chosen = traded(hours, ranges, "backtest.thresholds=validation")
    best = chosen.search.best
    assert (chosen.sell_threshold, chosen.buy_threshold) == (-best, best)
    direct = traded(hours, ranges, f"backtest.buy_threshold={best}", f"backtest.sell_threshold={-best}")
    np.testing.assert_array_equal(chosen.strategy.equity, direct.strategy.equity)
    notes = trading_tables(chosen)[0].notes
    assert f"BUY above {best:g} (best Sharpe ratio of 6 on the validation range)" in notes[0]
    assert "BUY above 0.004 (as configured)" in trading_tables(base)[0].notes[0]


def test_the_search_sees_nothing_of_the_test_range(hours, ranges, base):
    moved = hours.frame.copy()
    moved.loc[400:, ["open", "high", "low", "close"]] *= np.linspace(1, 3, 400)[:, None]
    again = traded(Candles(moved, "X", hours.interval, ""), ranges)
    pd.testing.assert_frame_equal(again.search.table, base.search.table)
    assert again.figures != base.figures


def test_without_validation_there_is_no_search_and_no_choice_from_it(hours, ranges):
    test, _ = ranges
    result = trade(evaluation(), hours, test)
    assert result.search is trading_metrics(result)["search"] is None
    assert len(trading_tables(result)) == 1
    assert len(trading_pictures(result, "")) == 3
    with pytest.raises(ValueError, match="needs forecasts of the validation range"):
        trade(evaluation("backtest.thresholds=validation"), hours, test)


def test_where_no_threshold_trades_on_validation_the_configured_ones_are_used_and_it_is_said(hours, ranges):
    result = traded(hours, ranges, "backtest.thresholds=validation", "backtest.sweep_thresholds=[9.0]")
    assert (result.sell_threshold, result.buy_threshold) == (-0.004, 0.004)
    assert "no threshold traded on the validation range" in trading_tables(result)[0].notes[0]


def test_finer_candles_settle_what_was_ambiguous(hours, quarters, ranges, base, tmp_path):
    path = tmp_path / "finer.csv"
    quarters.frame.drop(columns="segment").to_csv(path, index=False)
    settled = traded(hours, ranges, f"backtest.finer_csv={path}").strategy
    assert (base.strategy.ambiguous > 0, base.strategy.settled) == (True, 0)
    assert settled.settled > 0
    assert "settled by finer candles" in " ".join(trading_tables(base)[0].notes)


def test_the_tables_hold_strategy_holding_and_always_flat(base):
    figures, search = trading_tables(base)
    assert list(figures.columns) == ["Figure", "Strategy", "Buy and hold", "Always flat", ""]
    total = figures.rows[0]
    assert total[1] == f"{base.figures['total_return'] * 100:.2f} %"
    assert total[3] == "0.00 %"
    assert [row[0] for row in search.rows] == ["± 0", "± 0.0025", "± 0.005", "± 0.01", "± 0.02", "± 0.03"]
    assert [row[-1] for row in search.rows].count("best at the configured cost") == 1
    assert all(len(row) == len(table.columns) for table in (figures, search) for row in table.rows)
    assert "Thresholds tried: 6." in search.notes[0]


def test_halts_are_told_with_what_followed(hours, ranges, base):
    assert "halted trading 1 time(s), for good" in " ".join(trading_tables(base)[0].notes)
    resumed = traded(hours, ranges, "backtest.cooldown=20")
    assert f"{len(resumed.strategy.halts)} time(s), for 20 candles each" in " ".join(trading_tables(resumed)[0].notes)
    assert len(trading_metrics(resumed)["halts"]) == len(resumed.strategy.halts) > 1


def test_the_metrics_are_plain_values_and_those_of_the_run(base):
    metrics = json.loads(json.dumps(trading_metrics(base)))
    assert metrics["final_equity"] == base.strategy.equity[-1]
    assert metrics["backtest"]["total_return"] == pytest.approx(metrics["final_equity"] / 10_000 - 1)
    assert metrics["sharpe_interval"][0] < metrics["backtest"]["sharpe_ratio"] < metrics["sharpe_interval"][1]
    assert len(metrics["search"]["table"]) == 6 * 4
    assert metrics["search"]["trials"] == 6


def test_a_strategy_that_never_trades_is_reported_as_such(hours, ranges):
    result = traded(hours, ranges, "backtest.buy_threshold=9", "backtest.sell_threshold=-9")
    assert "never traded" in trading_sentence(result)
    assert math.isnan(result.probabilistic_sharpe)
    assert len(trading_pictures(result, "")) == 4


def test_the_sentence_names_return_benchmark_and_chance(base):
    sentence = trading_sentence(base)
    assert f"{base.figures['total_return']:+.1%} after costs" in sentence
    assert f"better than {base.beaten:.0%}" in sentence
    assert f"above zero: {base.probabilistic_sharpe:.0%}" in sentence


@pytest.mark.parametrize("overrides", [[], ["backtest.max_drawdown=null", "backtest.side=long_short"]])
def test_the_pictures_can_be_drawn(hours, ranges, overrides, tmp_path):
    pictures = trading_pictures(traded(hours, ranges, *overrides), ", SYNTHETIC candles")
    assert [picture.name for picture in pictures] == ["equity", "random_strategies", "costs", "sweep"]
    for picture in pictures:
        picture.figure.savefig(tmp_path / "picture.png", dpi=40)
        assert (tmp_path / "picture.png").stat().st_size > 1000


def test_the_legends_of_the_equity_stand_beside_the_curves_and_name_all_of_them(base):
    figure = trading_pictures(base, "")[0].figure
    figure.draw_without_rendering()
    for axes in figure.axes:
        legend = axes.get_legend()
        assert legend.get_window_extent().x0 >= axes.get_window_extent().x1
        assert legend.get_window_extent().x1 <= figure.bbox.x1
    equity, drawdown, closes = ([text.get_text() for text in axes.get_legend().texts] for axes in figure.axes)
    assert drawdown == ["buy and hold", "strategy"]
    assert equity == [*drawdown, "drawdown halt"]
    assert {"close", "drawdown halt", "long entry", "exit"} <= set(closes)


def test_every_date_below_the_equity_has_month_and_year(base):
    figure = trading_pictures(base, "")[0].figure
    figure.draw_without_rendering()
    labels = [label.get_text() for label in figure.axes[-1].get_xticklabels()]
    assert labels
    assert all(re.fullmatch(r"[JF]\w\w \d\d\n2023", label) for label in labels), labels


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("backtest.cooldown=0", "backtest.cooldown"),
        ("backtest.cooldown=5 backtest.max_drawdown=null", "max_drawdown sets none"),
        ("backtest.rebalance=0", "backtest.rebalance"),
        ("backtest.slippage=-0.1", "backtest.slippage"),
        ("backtest.thresholds=test", "backtest.thresholds"),
        ("backtest.sweep_thresholds=[]", "backtest.sweep_thresholds"),
        ("backtest.sweep_thresholds=[-0.1]", "backtest.sweep_thresholds"),
        ("backtest.sweep_costs=[1.0]", "backtest.sweep_costs"),
    ],
)
def test_settings_that_cannot_be_right_are_refused(override, message):
    with pytest.raises(ConfigError, match=message):
        evaluation(*override.split())
