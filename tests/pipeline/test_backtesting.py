"""From configuration and forecasts to the backtest, its tables and plots."""

import json
import math
import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from kronos_lightning.backtest import ThresholdStrategy
from kronos_lightning.config.sections import BacktestSection
from kronos_lightning.config.validation import ConfigError, check_evaluation
from kronos_lightning.data.candles import Candles
from kronos_lightning.data.formats import FEATURES
from kronos_lightning.data.sources.synthetic import synthetic_candles
from kronos_lightning.pipeline.backtesting import trade
from kronos_lightning.reporting.backtest_section import trading_plots, trading_tables
from kronos_lightning.reporting.files import trading_metrics
from kronos_lightning.reporting.verdict import trading_sentence
from tests.helpers.configuration import composed
from tests.helpers.forecasts import forecasts_on
from tests.helpers.naive_backtest import naive_run

HORIZON = 6


@pytest.fixture(scope="module")
def quarters():
    """3200 synthetic quarters of an hour."""
    return synthetic_candles(3200, "15m", "2023-01-01", seed=11, start_price=30000.0, volatility=1.5)


@pytest.fixture(scope="module")
def hours(quarters):
    """The 800 hours that they make."""
    frame = quarters.frame
    how = {"timestamps": "first", "open": "first", "high": "max", "low": "min", "close": "last", "volume": "sum",
           "amount": "sum", "segment": "first"}  # fmt: skip
    return Candles(
        frame=frame.groupby(np.arange(len(frame)) // 4).agg(how),
        symbol="SYNTHETIC",
        interval=pd.Timedelta("1h"),
        source="made",
        synthetic=True,
    )


def forecasts(candles, begin, count, stride=2, seed=0, paths=9):
    """Forecasts that know a little of what comes."""
    rng = np.random.default_rng(seed)
    values = candles.frame[FEATURES].to_numpy()
    rows = begin + stride * np.arange(count)
    future = rows[:, None] + np.arange(1, HORIZON + 1)
    last, actual = values[rows, 3], values[future]
    drawn = np.repeat(actual[:, None], paths, axis=1).astype(np.float32)
    known = 0.3 * (actual[:, -1, 3] / last - 1) + rng.normal(0, 0.01, count)
    skewed = rng.exponential(0.01, (count, paths)) - 0.01
    drawn[:, :, -1, 3] = last[:, None] * (1 + known[:, None] + skewed)
    return forecasts_on(candles, rows, drawn)


@pytest.fixture(scope="module")
def ranges(hours):
    """Forecasts of the test and of the validation range."""
    return forecasts(hours, 400, 190, seed=1), forecasts(hours, 20, 180, seed=2)


QUICK = [
    "evaluation.bootstrap_samples=200", "backtest.random_runs=20", "strategy.buy_threshold=0.004",
    "strategy.sell_threshold=-0.004", "backtest.max_drawdown=0.05", "backtest.stop_loss=0.010",
    "backtest.take_profit=0.010",
]  # fmt: skip


def evaluation(*overrides):
    return check_evaluation(composed("evaluate", *QUICK, *overrides))


def traded(hours, ranges, *overrides):
    return trade(evaluation(*overrides), hours, *ranges)


@pytest.fixture(scope="module")
def base(hours, ranges):
    return traded(hours, ranges)


CHANGES = {
    "strategy.signal": "mean",
    "strategy.buy_threshold": 0.006,
    "strategy.sell_threshold": 0.003,
    "strategy.search_thresholds": "[0.0,0.004]",
    "backtest.parameters": "validation",
    "backtest.side": "long_short",
    "backtest.act_every_n_cutoffs": 3,
    "backtest.cost": 0.002,
    "backtest.slippage": 0.001,
    "backtest.max_position": 0.5,
    "backtest.stop_loss": 0.03,
    "backtest.take_profit": 0.03,
    "backtest.max_drawdown": 0.1,
    "backtest.cooldown": 20,
    "backtest.intrabar_csv": "intrabar.csv",
    "backtest.initial_equity": 500.0,
    "backtest.random_runs": 21,
    "backtest.search_costs": "[0.0]",
}
KEYS = [
    *(f"strategy.{name}" for name in ThresholdStrategy.model_fields),
    *(f"backtest.{name}" for name in BacktestSection.model_fields),
]


@pytest.mark.parametrize("key", KEYS)
def test_every_setting_changes_the_result(key, hours, quarters, ranges, base, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    quarters.frame.drop(columns="segment").to_csv("intrabar.csv", index=False)
    changed = traded(hours, ranges, f"{key}={CHANGES[key]}")
    assert json.dumps(trading_metrics(changed)) != json.dumps(trading_metrics(base))
    if key not in ("backtest.random_runs", "strategy.search_thresholds", "backtest.search_costs"):
        assert changed.run.equity.tolist() != base.run.equity.tolist()


def test_the_equity_is_that_of_a_naive_engine_on_every_third_cutoff(hours, ranges):
    settings = evaluation("backtest.act_every_n_cutoffs=3", "backtest.side=long_short", "backtest.cooldown=10")
    test, _ = ranges
    result = trade(settings, hours, test)
    median = np.median(test.close_paths[::3, :, -1], axis=1) / test.last_close[::3] - 1
    signals = np.where(median > 0.004, 1, np.where(median < -0.004, -1, 0))
    candles = hours.frame.iloc[400 : 400 + 2 * 189 + HORIZON + 1].reset_index(drop=True)
    aligned = [0] * len(candles)
    aligned[: 2 * 190 : 6] = signals.tolist()
    curve, trades, *_ = naive_run(candles, aligned, settings.backtest, 10_000.0)
    np.testing.assert_allclose(result.run.equity, curve, rtol=1e-9)
    assert len(result.run.trades) == len(trades) > 10
    assert sum(result.signals.values()) == 64  # of 190 cutoffs

    table = result.run.signal_table(result.orders)  # for a trading bot
    assert table["signal"].map({"BUY": 1, "HOLD": 0, "SELL": -1}).tolist() == aligned
    assert table["cutoff"].tolist() == candles["timestamps"].tolist()
    assert table["halted"].tolist() == result.run.halted.tolist()
    assert table["halted"].any()
    assert not table["late"].any()


def test_candles_before_the_first_cutoff_and_after_the_last_forecast_are_not_traded(hours, ranges, base):
    test, _ = ranges
    assert base.market.stamps[0] == pd.Timestamp(test.cutoffs[0], tz="UTC")
    assert base.market.stamps[-1] == pd.Timestamp(test.stamps[-1, -1], tz="UTC")
    moved = hours.frame.copy()
    moved.loc[[0, 399, len(moved) - 1], ["open", "high", "low", "close"]] *= 2
    again = trade(evaluation(), Candles(frame=moved, symbol="X", interval=hours.interval, source=""), test)
    np.testing.assert_array_equal(again.run.equity, base.run.equity)


def saying(forecasts, probability):
    """The same forecasts with a calibrated P(up) at their last step; elsewhere none that could be used by mistake."""
    up = np.full((len(forecasts), HORIZON), np.nan)
    up[:, -1] = probability
    return replace(forecasts, up=up)


def test_a_calibrated_probability_replaces_the_share_of_rising_paths(hours, ranges):
    test, validation = ranges
    chosen = ["strategy.signal=probability", "backtest.parameters=validation", "strategy.search_thresholds=[0.1,0.3]"]
    share = (test.close_paths[:, :, -1] > test.last_close[:, None]).mean(axis=1)
    by_paths = traded(hours, ranges, *chosen)
    by_hand = traded(hours, (saying(test, share), validation), *chosen)
    np.testing.assert_array_equal(by_paths.run.equity, by_hand.run.equity)
    reverse = traded(hours, (saying(test, 1 - share), validation), *chosen)
    assert (reverse.signals["BUY"], reverse.signals["SELL"]) == (by_paths.signals["SELL"], by_paths.signals["BUY"])
    silent = traded(hours, (test, saying(validation, 0.5)), *chosen)
    assert silent.search.best is None
    ignored = traded(hours, (saying(test, share), validation))
    assert ignored.signals == traded(hours, ranges).signals


def test_the_thresholds_that_were_best_on_validation_trade_the_test_and_are_named(hours, ranges, base):
    chosen = traded(hours, ranges, "backtest.parameters=validation")
    best = chosen.search.best["threshold"]
    assert (chosen.strategy.sell_threshold, chosen.strategy.buy_threshold) == (-best, best)
    direct = traded(hours, ranges, f"strategy.buy_threshold={best}", f"strategy.sell_threshold={-best}")
    np.testing.assert_array_equal(chosen.run.equity, direct.run.equity)
    notes = trading_tables(chosen)[0].notes
    assert f"BUY above {best:g} (best Sharpe ratio of 6 on the validation range)" in notes[0]
    assert "BUY above 0.004 (as configured)" in trading_tables(base)[0].notes[0]


def test_the_search_sees_nothing_of_the_test_range(hours, ranges, base):
    moved = hours.frame.copy()
    moved.loc[400:, ["open", "high", "low", "close"]] *= np.linspace(1, 3, 400)[:, None]
    again = traded(Candles(frame=moved, symbol="X", interval=hours.interval, source=""), ranges)
    pd.testing.assert_frame_equal(again.search.table, base.search.table)
    assert again.metrics != base.metrics


def test_without_validation_there_is_no_search_and_no_choice_from_it(hours, ranges):
    test, _ = ranges
    result = trade(evaluation(), hours, test)
    assert result.search is trading_metrics(result)["search"] is None
    assert len(trading_tables(result)) == 1
    assert len(trading_plots(result, "")) == 3
    with pytest.raises(ValueError, match="needs forecasts of the validation range"):
        trade(evaluation("backtest.parameters=validation"), hours, test)


def test_where_no_threshold_trades_on_validation_the_configured_ones_are_used_and_it_is_said(hours, ranges):
    result = traded(hours, ranges, "backtest.parameters=validation", "strategy.search_thresholds=[9.0]")
    assert (result.strategy.sell_threshold, result.strategy.buy_threshold) == (-0.004, 0.004)
    assert "no trial traded on the validation range" in trading_tables(result)[0].notes[0]


def test_finer_candles_settle_what_was_ambiguous(hours, quarters, ranges, base, tmp_path):
    path = tmp_path / "intrabar.csv"
    quarters.frame.drop(columns="segment").to_csv(path, index=False)
    resolved = traded(hours, ranges, f"backtest.intrabar_csv={path}").run
    assert (base.run.ambiguous > 0, base.run.resolved_intrabar) == (True, 0)
    assert resolved.resolved_intrabar > 0
    assert "settled by intrabar candles" in " ".join(trading_tables(base)[0].notes)


def test_the_tables_hold_strategy_holding_and_always_flat(base):
    metrics, search = trading_tables(base)
    assert list(metrics.columns) == ["Metric", "Strategy", "Buy and hold", "Always flat", ""]
    total = metrics.rows[0]
    assert total[1] == f"{base.metrics['total_return'] * 100:.2f} %"
    assert total[3] == "0.00 %"
    assert [row[0] for row in search.rows] == ["0", "0.0025", "0.005", "0.01", "0.02", "0.03"]
    assert [row[-1] for row in search.rows].count("best at the configured cost") == 1
    assert all(len(row) == len(table.columns) for table in (metrics, search) for row in table.rows)
    assert "Trials: 6." in search.notes[0]


def test_halts_are_told_with_what_followed(hours, ranges, base):
    assert "halted trading 1 time(s), for good" in " ".join(trading_tables(base)[0].notes)
    resumed = traded(hours, ranges, "backtest.cooldown=20")
    assert f"{len(resumed.run.halts)} time(s), for 20 candles each" in " ".join(trading_tables(resumed)[0].notes)
    assert len(trading_metrics(resumed)["halts"]) == len(resumed.run.halts) > 1


def test_the_metrics_are_plain_values_and_those_of_the_run(base):
    metrics = json.loads(json.dumps(trading_metrics(base)))
    assert metrics["final_equity"] == base.run.equity[-1]
    assert metrics["backtest"]["total_return"] == pytest.approx(metrics["final_equity"] / 10_000 - 1)
    assert metrics["sharpe_interval"][0] < metrics["backtest"]["sharpe_ratio"] < metrics["sharpe_interval"][1]
    assert len(metrics["search"]["table"]) == 6 * 4
    assert metrics["search"]["trials"] == 6


def test_a_strategy_that_never_trades_is_reported_as_such(hours, ranges):
    result = traded(hours, ranges, "strategy.buy_threshold=9", "strategy.sell_threshold=-9")
    assert "never traded" in trading_sentence(result)
    assert math.isnan(result.probabilistic_sharpe)
    assert len(trading_plots(result, "")) == 4


def test_the_sentence_names_return_benchmark_and_chance(base):
    sentence = trading_sentence(base)
    assert f"{base.metrics['total_return']:+.1%} after costs" in sentence
    assert f"better than {base.beaten:.0%}" in sentence
    assert f"above zero: {base.probabilistic_sharpe:.0%}" in sentence


@pytest.mark.parametrize("overrides", [[], ["backtest.max_drawdown=null", "backtest.side=long_short"]])
def test_the_plots_can_be_drawn(hours, ranges, overrides, tmp_path):
    plots = trading_plots(traded(hours, ranges, *overrides), ", SYNTHETIC candles")
    assert [plot.name for plot in plots] == ["equity", "random_strategies", "costs", "search"]
    for plot in plots:
        plot.figure.savefig(tmp_path / "plot.png", dpi=40)
        assert (tmp_path / "plot.png").stat().st_size > 1000


def test_the_legends_of_the_equity_stand_beside_the_curves_and_name_all_of_them(base):
    figure = trading_plots(base, "")[0].figure
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
    figure = trading_plots(base, "")[0].figure
    figure.draw_without_rendering()
    labels = [label.get_text() for label in figure.axes[-1].get_xticklabels()]
    assert labels
    assert all(re.fullmatch(r"[JF]\w\w \d\d\n2023", label) for label in labels), labels


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("backtest.cooldown=0", "backtest.cooldown"),
        ("backtest.cooldown=5 backtest.max_drawdown=null", "cooldown needs max_drawdown"),
        ("backtest.act_every_n_cutoffs=0", "backtest.act_every_n_cutoffs"),
        ("backtest.slippage=-0.1", "backtest.slippage"),
        ("backtest.parameters=test", "backtest.parameters"),
        ("strategy.search_thresholds=[]", "strategy.search_thresholds"),
        ("strategy.search_thresholds=[-0.1]", "strategy.search_thresholds"),
        ("backtest.search_costs=[1.0]", "backtest.search_costs"),
    ],
)
def test_settings_that_cannot_be_right_are_refused(override, message):
    with pytest.raises(ConfigError, match=message):
        evaluation(*override.split())
