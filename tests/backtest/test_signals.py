"""From forecasts to signals on candles."""

import numpy as np
import pytest

from kronos_lightning.backtest.signals import (
    BUY,
    HOLD,
    SELL,
    decide,
    expectation,
    on_candles,
    rows_of,
    wanted_positions,
)


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
    rows = rows_of(stamps[1:2], stamps)
    assert on_candles(np.array([BUY]), rows, 3).tolist() == [HOLD, BUY, HOLD]
    for cutoff in (stamps[:1] + np.timedelta64(1, "h"), stamps[2:] + np.timedelta64(1, "D")):
        with pytest.raises(ValueError, match="none of the candles"):
            rows_of(cutoff, stamps)


def test_hold_wants_what_was_wanted_before():
    signals = np.array([HOLD, BUY, HOLD, SELL, HOLD, BUY])
    assert wanted_positions(signals, "long_short").tolist() == [0, 1, 1, -1, -1, 1]
    assert wanted_positions(signals, "long_only").tolist() == [0, 1, 1, 0, 0, 1]
