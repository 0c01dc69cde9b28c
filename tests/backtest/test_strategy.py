"""From forecasts to signals on candles."""

import numpy as np
import pytest

from kronos_lightning.backtest import ThresholdStrategy
from kronos_lightning.backtest.strategy import BUY, HOLD, SELL, on_candles, wanted_positions
from kronos_lightning.data import CandleError, Candles
from tests.helpers.forecasts import made
from tests.helpers.markets import DAY, FLAT, frame


def strategy(signal="median", buy=0.02, sell=-0.005):
    return ThresholdStrategy(signal=signal, buy_threshold=buy, sell_threshold=sell, search_thresholds=[0.0])


def test_expectation_and_thresholds_make_signals():
    paths = [[[0, 103], [0, 104], [0, 101]], [[0, 99], [0, 90], [0, 101]], [[0, 101], [0, 99], [0, 100]]]
    forecasts = made(paths, np.full((3, 2), 100.0), [100.0, 100.0, 100.0])
    np.testing.assert_allclose(strategy("median").expected_return(forecasts), [0.03, -0.01, 0.0])
    np.testing.assert_allclose(strategy("mean").expected_return(forecasts), [8 / 300, -1 / 30, 0.0], atol=1e-12)
    probabilities = strategy("probability").expected_return(forecasts)
    np.testing.assert_allclose(probabilities, [0.5, 1 / 3 - 0.5, 1 / 3 - 0.5])
    assert strategy().signals(forecasts).tolist() == [BUY, SELL, HOLD]
    on_the_thresholds = made([[[125]], [[75]]], np.full((2, 1), 100.0), [100.0, 100.0])
    assert strategy(buy=0.25, sell=-0.25).signals(on_the_thresholds).tolist() == [HOLD, HOLD]


def test_signals_stand_on_their_cutoffs_candles():
    candles = Candles(frame=frame(FLAT, FLAT, FLAT), symbol="X", interval=DAY, source="made")
    stamps = np.array(["2024-01-01", "2024-01-02", "2024-01-03"], dtype="datetime64[ns]")
    rows = candles.rows_at(stamps[1:2])
    assert on_candles(np.array([BUY]), rows, 3).tolist() == [HOLD, BUY, HOLD]
    for cutoff in (stamps[:1] + np.timedelta64(1, "h"), stamps[2:] + np.timedelta64(1, "D")):
        with pytest.raises(CandleError, match="not the time of a candle"):
            candles.rows_at(cutoff)


def test_hold_wants_what_was_wanted_before():
    signals = np.array([HOLD, BUY, HOLD, SELL, HOLD, BUY])
    assert wanted_positions(signals, "long_short").tolist() == [0, 1, 1, -1, -1, 1]
    assert wanted_positions(signals, "long_only").tolist() == [0, 1, 1, 0, 0, 1]
