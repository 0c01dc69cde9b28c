"""Planted leaks in strategies and fills are caught by the machine that passes the backtest."""

from dataclasses import replace

import numpy as np
import pytest

from kronos_lightning.backtest import HOLD, ThresholdStrategy, run_backtest
from kronos_lightning.config.validation import check_evaluation
from kronos_lightning.evaluation.leakcheck import prove
from kronos_lightning.evaluation.leakcheck.proof import cached
from kronos_lightning.pipeline import backtesting
from kronos_lightning.pipeline.leakcheck import Pipeline, fill_subjects, trading_subjects
from tests.helpers.commands import QUICK_EVALUATE
from tests.helpers.configuration import composed
from tests.helpers.leaks import CANDLES, rolling


def pipeline(*overrides):
    return Pipeline(
        settings=check_evaluation(composed("evaluate", *QUICK_EVALUATE, *overrides)),
        forecaster=None,
        forecast=cached(rolling),
        validate=rolling,
        calibration=None,
    )


def traded_verdicts(*overrides):
    given = pipeline(*overrides)
    found = prove(trading_subjects(given, CANDLES) + fill_subjects(given), CANDLES, [305, 310, 320], 1)
    return {finding.name: finding.verdict for finding in found}


def test_the_backtest_passes():
    assert set(traded_verdicts().values()) == {"proved"}


class NextDecision(ThresholdStrategy):
    """Decides by the forecast of the cutoff that comes next."""

    def signals(self, forecasts):
        return np.roll(super().signals(forecasts), -1)


class AboveTheMean(ThresholdStrategy):
    """Expects a rise where the forecast is above the mean of all forecasts, later ones too."""

    def expected_return(self, forecasts):
        expected = super().expected_return(forecasts)
        return expected - expected.mean()


@pytest.mark.parametrize(
    ("strategy", "expected"), [(ThresholdStrategy, "proved"), (NextDecision, "leak"), (AboveTheMean, "leak")]
)
def test_a_strategy_that_looks_at_later_forecasts_is_caught(strategy, expected):
    target = f"strategy._target_={strategy.__module__}.{strategy.__name__}"
    found = traded_verdicts(target, "strategy.buy_threshold=0.0", "strategy.sell_threshold=0.0")
    assert found["signals"] == expected


def filling_at(open_of, advance):
    """An engine whose orders get other prices than the next open, or are carried out a candle early."""

    def engine(market, signals, rules, equity):
        moved = np.append(signals[advance:], np.full(advance, HOLD))
        prices = market.prices._replace(open=open_of(market.prices))
        return run_backtest(replace(market, prices=prices), moved, rules, equity)

    return engine


def test_fills_inside_the_candle_that_decides_them_are_caught(monkeypatch):
    monkeypatch.setattr(backtesting, "run_backtest", filling_at(lambda prices: prices.close.copy(), 1))
    found = traded_verdicts()
    assert found["fills"] == "leak"
    assert found["signals"] == "proved"


def test_fills_at_the_close_that_decides_them_are_caught(monkeypatch):
    before = filling_at(lambda prices: np.concatenate([prices.open[:1], prices.close[:-1]]), 0)
    monkeypatch.setattr(backtesting, "run_backtest", before)
    found = traded_verdicts()
    assert found["fill prices"] == "leak"


def test_fills_before_the_signal_are_caught_in_the_equity(monkeypatch):
    monkeypatch.setattr(backtesting, "run_backtest", filling_at(lambda prices: prices.open, 2))
    found = traded_verdicts()
    assert found["backtest"] == "leak"
