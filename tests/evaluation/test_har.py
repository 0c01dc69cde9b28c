"""HAR and the seasonal factor where the truth is known: volatility with memory and an hour of the week."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from scipy.signal import lfilter
from scoringrules import crps_ensemble

from kronos_lightning.data import Candles
from kronos_lightning.evaluation.baselines import GarchT, History, LastPrice
from kronos_lightning.evaluation.har import Design, Har, windows
from kronos_lightning.evaluation.seasonality import fit_factor, slots

HOUR = pd.Timedelta(hours=1)
SEASON = np.tile(0.5 * np.sin(np.arange(24) / 24 * 2 * np.pi), 7)  # of log volatility, by hour of the week
SEASON += np.random.default_rng(1).normal(0, 0.6, 168)


def seasonal_candles(n, seed):
    """Hours with a persistent volatility times that of the hour of the week; n candles and their true volatility."""
    rng = np.random.default_rng(seed)
    memory = np.zeros(n)
    for i in range(1, n):
        memory[i] = 0.98 * memory[i - 1] + rng.normal(0, 0.08)
    return simulated(memory + SEASON[np.arange(n) % 168], rng)  # it begins on a Monday


def remembering_candles(n, seed):
    """Hours whose log volatility has a memory of hours, days and weeks, without a season; candles and volatility."""
    rng = np.random.default_rng(seed)
    parts = [lfilter([1], [1, -kept], rng.normal(0, 0.3 * np.sqrt(1 - kept**2), n)) for kept in (0.8, 0.98, 0.998)]
    return simulated(np.sum(parts, axis=0), rng)


def simulated(log_volatility, rng):
    """Hours from the logarithm of their volatility ``(n,)``, relative to half a per cent."""
    n, sigma = len(log_volatility), 0.005 * np.exp(log_volatility)
    times = pd.date_range("2021-01-04", periods=n, freq="h", tz="UTC", unit="ns")
    steps = rng.normal(0, 1, (n, 30)) * sigma[:, None] / np.sqrt(30)
    path = np.log(100) + np.cumsum(steps.ravel()).reshape(n, 30)
    opened = np.concatenate([[np.log(100)], path[:-1, -1]])
    high, low = np.maximum(path.max(axis=1), opened), np.minimum(path.min(axis=1), opened)
    prices = {"open": opened, "high": high, "low": low, "close": path[:, -1]}
    frame = pd.DataFrame({"timestamps": times, **{name: np.exp(values) for name, values in prices.items()}})
    frame = frame.assign(volume=1.0, amount=1.0, segment=0)
    return Candles(frame=frame, symbol="X", interval=HOUR, source="simulated"), sigma


@pytest.fixture(scope="module")
def market():
    candles, sigma = seasonal_candles(9000, seed=4)
    cutoffs = np.arange(6000, 8990, 5)
    close = candles.frame["close"].to_numpy()
    actual = close[cutoffs[:, None] + np.arange(1, 5)] / close[cutoffs][:, None] - 1
    common = {"refit_every": 500, "seed": 1}
    kinds = {
        "garch": GarchT(seasonality="none", **common),
        "seasonal_garch": GarchT(seasonality="hour_of_week", **common),
        "har": Har(seasonality="hour_of_week", **common),
        "har_of_day": Har(seasonality="hour_of_day", **common),
        "har_without": Har(seasonality="none", **common),
    }
    paths = {name: kind.sample_paths(candles, cutoffs, 4, 200) for name, kind in kinds.items()}
    returns = {name: own / close[cutoffs][:, None, None] - 1 for name, own in paths.items()}
    crps = {name: crps_ensemble(actual, own, m_axis=1).mean(axis=1) for name, own in returns.items()}
    return SimpleNamespace(candles=candles, sigma=sigma, cutoffs=cutoffs, returns=returns, actual=actual, crps=crps)


def better(market, one, other):
    """z-value of the mean gain in CRPS of a forecaster over another."""
    gain = market.crps[other] - market.crps[one]
    return gain.mean() / gain.std() * np.sqrt(len(gain))


@pytest.mark.parametrize(
    ("one", "other"),
    [("seasonal_garch", "garch"), ("har_without", "garch"), ("har", "har_of_day"), ("har_of_day", "har_without")],
)
def test_what_knows_more_of_the_truth_forecasts_better(market, one, other):
    assert better(market, one, other) > 3


def test_har_finds_the_true_volatility(market):
    spread = market.returns["har"][..., 0].std(axis=1)
    truth = market.sigma[market.cutoffs + 1]
    assert np.corrcoef(np.log(spread), np.log(truth))[0, 1] > 0.95
    assert abs(np.mean(np.log(spread / truth))) < 0.05


def test_har_beats_a_constant_volatility_where_volatility_has_a_long_memory():
    candles, sigma = remembering_candles(5000, seed=2)
    cutoffs = np.arange(3000, 4990, 5)
    close = candles.frame["close"].to_numpy()
    actual = close[cutoffs[:, None] + np.arange(1, 5)] / close[cutoffs][:, None] - 1
    kinds = {"har": Har(refit_every=500, seasonality="none", seed=1), "constant": LastPrice(count=5000, seed=1)}
    paths = {name: kind.sample_paths(candles, cutoffs, 4, 200) for name, kind in kinds.items()}
    returns = {name: own / close[cutoffs][:, None, None] - 1 for name, own in paths.items()}
    crps = {name: crps_ensemble(actual, own, m_axis=1).mean(axis=1) for name, own in returns.items()}
    assert better(SimpleNamespace(crps=crps), "har", "constant") > 3
    assert 1 - crps["har"].mean() / crps["constant"].mean() > 0.03
    known = np.log(sigma[cutoffs + 1])
    spread = {name: np.log(own[..., 0].std(axis=1)) for name, own in returns.items()}
    assert np.corrcoef(spread["har"], known)[0, 1] > 0.8 > np.corrcoef(spread["constant"], known)[0, 1] + 0.3


def test_har_recovers_the_planted_hours_of_the_week_at_every_step(market):
    design = Design.of(History.of(market.candles), 4, HOUR, "hour_of_week")
    rows = np.arange(6000, 6000 + 168 * 15)
    predicted = design.fit(8900).predict(design, rows) / 2  # of log volatility
    for step in range(4):
        hour = (rows + step + 1) % 168
        by_hour = np.bincount(hour, predicted[:, step]) / np.bincount(hour)
        assert np.corrcoef(by_hour, SEASON)[0, 1] > 0.97
        assert 0.75 < np.polyfit(SEASON, by_hour, 1)[0] < 1.05  # about 50 weeks are shrunk by a penalty of 20


def test_the_intervals_of_har_hold_what_they_say_at_every_step(market):
    lower, upper = np.quantile(market.returns["har"], [0.05, 0.95], axis=1)
    inside = (market.actual >= lower) & (market.actual <= upper)
    assert ((inside.mean(axis=0) > 0.87) & (inside.mean(axis=0) < 0.93)).all()


def test_the_factor_is_that_of_the_hour_of_the_week(market):
    history = History.of(market.candles)
    factor = fit_factor(history.return_times, history.returns, HOUR, "hour_of_week")
    week = pd.date_range("2024-01-01", periods=168, freq="h", unit="ns").astype("int64").to_numpy()
    assert np.corrcoef(factor.at(week), np.exp(SEASON))[0, 1] > 0.95
    assert np.mean(factor.by_slot**2) == pytest.approx(1)


def test_the_factor_of_the_day_is_equal_on_all_days(market):
    history = History.of(market.candles)
    factor = fit_factor(history.return_times, history.returns, HOUR, "hour_of_day")
    np.testing.assert_allclose(factor.by_slot, np.tile(factor.by_slot[:24], 7))


def test_a_market_without_a_season_has_a_factor_near_one():
    rng = np.random.default_rng(0)
    times = pd.date_range("2022-01-01", periods=20_000, freq="h", unit="ns").astype("int64").to_numpy()
    factor = fit_factor(times, rng.normal(0, 0.01, len(times)), HOUR, "hour_of_week")
    assert np.abs(factor.by_slot - 1).max() < 0.2


@pytest.mark.parametrize("interval", ["1min", "4h", "1D", "7D", "9D"])
def test_every_interval_has_its_slots(interval):
    step = pd.Timedelta(interval)
    times = pd.date_range("2022-01-03", periods=600, freq=step, unit="ns").astype("int64").to_numpy()
    factor = fit_factor(times, np.random.default_rng(0).normal(0, 0.01, 600), step, "hour_of_week")
    assert len(factor.by_slot) == max(1, int(pd.Timedelta(days=7) / max(step, HOUR)))
    assert np.isfinite(factor.at(times)).all()
    assert windows(step) == sorted(set(windows(step)))


def test_less_than_four_weeks_have_no_factor():
    times = pd.date_range("2022-01-01", periods=600, freq="h", unit="ns").astype("int64").to_numpy()
    assert (fit_factor(times, np.ones(600), HOUR, "hour_of_week").by_slot == 1).all()


def test_monday_is_the_first_slot():
    first = pd.date_range("2024-01-01", periods=2, freq="h", unit="ns").astype("int64").to_numpy()  # a Monday
    assert slots(first, HOUR.value).tolist() == [0, 1]


def test_a_gap_is_no_stretch_to_draw_from(market):
    frame = market.candles.frame.head(3000).copy()
    after = np.arange(3000) >= 2000
    frame.loc[after, ["open", "high", "low", "close"]] *= 4.0
    frame.loc[after, "timestamps"] += 100 * HOUR
    candles = replace(market.candles, frame=frame.assign(segment=after.astype(int)))
    paths = Har(refit_every=100, seasonality="none", seed=1).sample_paths(candles, np.array([2900]), 4, 500)
    assert np.abs(np.log(paths / frame["close"][2900])).max() < 0.5
