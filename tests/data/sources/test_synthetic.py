"""The synthetic candles have the habits they claim."""

import numpy as np
import pandas as pd
import pytest

from kronos_lightning.data import read_candles
from kronos_lightning.data.formats import FEATURES
from kronos_lightning.data.sources.synthetic import synthetic_candles


@pytest.fixture(scope="module")
def long():
    return synthetic_candles(20_000, "1h", "2021-01-01", seed=1, start_price=30_000.0, volatility=0.6)


def test_sample_candles_pass_the_checks_of_real_ones(tmp_path, long):
    long.frame.drop(columns="segment").to_parquet(tmp_path / "c.parquet")
    read = read_candles(tmp_path / "c.parquet", "1h", "X")
    assert read.fingerprint == long.fingerprint


def test_the_source_names_the_seed(long):
    assert long.source == "synthetic (seed 1)"


def test_each_candle_opens_at_the_close_before(long):
    np.testing.assert_array_equal(long.frame["open"][1:], long.frame["close"][:-1])


def test_returns_have_fat_tails_clustered_volatility_and_the_asked_level(long):
    returns = np.log(long.frame["close"]).diff().dropna()
    assert returns.kurt() > 3
    assert returns.abs().autocorr(1) > 0.1
    assert abs(returns.autocorr(1)) < 0.05
    assert 0.45 < returns.std() * np.sqrt(8760) < 0.8


def test_volume_follows_volatility_and_the_rhythm_of_the_week_and_day(long):
    frame = long.frame
    spread = np.log(frame["high"] / frame["low"])
    assert spread.corr(np.log(frame["volume"]), method="spearman") > 0.3
    by_day = frame.groupby(frame["timestamps"].dt.day_of_week >= 5)["volume"].median()
    assert by_day[True] < 0.8 * by_day[False]
    by_hour = frame.groupby(frame["timestamps"].dt.hour)["volume"].median()
    assert by_hour[15] > 1.5 * by_hour[3]


def test_the_seed_decides_and_the_result_is_labelled_synthetic(long):
    again, other = (synthetic_candles(50, "1d", "2021-01-01", s, 100.0, 0.6) for s in (1, 2))
    assert again.synthetic
    assert again.symbol == "SYNTHETIC"
    pd.testing.assert_frame_equal(again.frame, synthetic_candles(50, "1d", "2021-01-01", 1, 100.0, 0.6).frame)
    assert not again.frame[FEATURES].equals(other.frame[FEATURES])
