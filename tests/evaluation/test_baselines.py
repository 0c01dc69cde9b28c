"""Baselines: what they know, when they are refitted, and how good they are where the truth is known."""

import logging
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from scoringrules import crps_ensemble

from kronos_lightning.config.validation import ConfigError, check_evaluation
from kronos_lightning.data import CandleError
from kronos_lightning.data.formats import FEATURES
from kronos_lightning.evaluation import baselines
from kronos_lightning.evaluation.baselines import Drift, Ewma, GarchT, LastPrice, Seasonal
from kronos_lightning.evaluation.har import Har
from kronos_lightning.evaluation.volatility import EWMA, Garch
from kronos_lightning.pipeline.baselines import build_baselines
from kronos_lightning.settings import parse_interval
from tests.helpers.configuration import composed
from tests.helpers.garch_market import garch_candles, true_paths

BASELINES = ("last_price_20", "last_price_60", "drift", "seasonal", "ewma", "garch", "seasonal_garch", "har")


def baseline(name, refit_every=100, seed=0):
    match name:
        case "last_price_20" | "last_price_60":
            return LastPrice(count=int(name.removeprefix("last_price_")), seed=seed)
        case "drift":
            return Drift(refit_every=refit_every, seed=seed)
        case "ewma":
            return Ewma(seed=seed)
        case "garch":
            return GarchT(refit_every=refit_every, seasonality="none", seed=seed)
        case "seasonal_garch" | "har":
            kind = {"seasonal_garch": GarchT, "har": Har}[name]
            return kind(refit_every=refit_every, seasonality="hour_of_week", seed=seed)
    return Seasonal(seed=seed)


def paths_of(name, candles, cutoffs, horizon=4, num_paths=20, **changes):
    return baseline(name, **changes).sample_paths(candles, np.asarray(cutoffs), horizon, num_paths)


def from_returns(returns, interval="1h"):
    """Candles whose log returns are these."""
    candles, _ = garch_candles(len(returns) + 1, 0, interval=interval)
    close = 100 * np.exp(np.concatenate([[0.0], np.cumsum(returns)]))
    opened = np.concatenate([close[:1], close[:-1]])
    prices = {"open": opened, "high": np.maximum(opened, close), "low": np.minimum(opened, close), "close": close}
    return replace(candles, frame=candles.frame.assign(**prices))


def with_gap(candles, row, missing, jump):
    """`missing` candles left out before `row`, prices times `jump` from there on."""
    frame, after = candles.frame.copy(), np.arange(len(candles)) >= row
    frame.loc[after, "timestamps"] += missing * candles.interval
    frame.loc[after, FEATURES] *= jump
    return replace(candles, frame=frame.assign(segment=(after & (missing > 0)).astype(np.int64)))


# What they know


@pytest.mark.parametrize("name", BASELINES)
def test_when_candles_after_a_cutoff_change_then_its_paths_are_identical(name, candles):
    cutoffs, last = np.arange(310, 590, 7), 450
    changed = candles.frame.copy()
    after = changed.index > last
    changed.loc[after, FEATURES] *= np.random.default_rng(0).uniform(0.5, 2, (after.sum(), len(FEATURES)))
    before, mutated = paths_of(name, candles, cutoffs), paths_of(name, replace(candles, frame=changed), cutoffs)
    seen = cutoffs <= last
    np.testing.assert_array_equal(before[seen], mutated[seen])
    assert (before[~seen] != mutated[~seen]).any(axis=(1, 2)).all()
    ended = paths_of(name, replace(candles, frame=candles.frame[~after]), cutoffs[seen])
    np.testing.assert_array_equal(before[seen], ended)


def test_seasonal_sees_nothing_later_where_a_market_closes_and_a_horizon_is_longer_than_a_session():
    candles, _ = garch_candles(7 * 80, 0)
    days, hours = pd.bdate_range("2024-01-01", periods=80, tz="UTC"), pd.to_timedelta(np.arange(14, 21), unit="h")
    frame = candles.frame.assign(timestamps=[day + hour for day in days for hour in hours])
    changed = frame.assign(close=frame["close"].where(frame.index <= 450, frame["close"] * 1.1))
    before, after = (
        paths_of("seasonal", replace(candles, frame=own), np.arange(440, 470), horizon=10) for own in (frame, changed)
    )
    np.testing.assert_array_equal(before[:11], after[:11])
    assert (before[11:] != after[11:]).any(axis=(1, 2)).all()


@pytest.mark.parametrize("name", BASELINES)
def test_a_cutoffs_paths_do_not_depend_on_the_other_cutoffs(name, candles):
    cutoffs = np.arange(310, 590, 7)
    np.testing.assert_array_equal(paths_of(name, candles, cutoffs)[5::9], paths_of(name, candles, cutoffs[5::9]))


@pytest.mark.parametrize("name", BASELINES)
def test_the_seed_and_the_time_choose_the_paths(name, candles):
    first = paths_of(name, candles, [400, 400])
    np.testing.assert_array_equal(first[0], first[1])
    assert not np.array_equal(first, paths_of(name, candles, [400, 400], seed=1))
    later = replace(candles, frame=candles.frame.assign(timestamps=candles.frame["timestamps"] + pd.Timedelta("7D")))
    assert not np.array_equal(first, paths_of(name, later, [400, 400]))


@pytest.mark.parametrize("name", BASELINES)
def test_a_jump_over_a_gap_is_no_return(name):
    candles, _ = garch_candles(600, 1)
    cutoffs = np.array([310, 321, 322, 450, 599])
    close = candles.frame["close"].to_numpy()[cutoffs, None, None]
    options = {"num_paths": 100, "refit_every": 350}
    plain, jumped = (paths_of(name, with_gap(candles, 300, 5, jump), cutoffs, **options) for jump in (1, 3))
    np.testing.assert_allclose(plain / close, jumped / (3 * close), rtol=1e-5)
    unmarked = paths_of(name, with_gap(candles, 300, 0, 3), cutoffs, **options)
    assert np.ptp(np.log(unmarked), axis=1).max() > 1.5 * np.ptp(np.log(jumped), axis=1).max()


# What the configuration makes of their names


def test_every_name_of_the_configuration_gets_its_count_its_refits_and_its_seed():
    settings = check_evaluation(composed("evaluate", "data=sample", "evaluation.refit_every=50", "seed=7"))
    found = build_baselines(settings, parse_interval("1h"))
    assert found == {name: baseline(name, refit_every=50, seed=7) for name in BASELINES}
    assert len({one.name for one in found.values()}) == len(BASELINES)  # a name is part of the seed


def test_an_unknown_baseline_is_refused():
    with pytest.raises(ConfigError, match="unknown baseline 'oracle'; use last_price_20"):
        check_evaluation(composed("evaluate", "data=sample", "evaluation.baselines=[drift,oracle]"))


def test_baselines_that_do_not_exist_for_an_interval_are_left_out_and_one_has_to_be_left():
    week = parse_interval("1w")
    settings = check_evaluation(composed("evaluate", "data=sample", "evaluation.baselines=[seasonal,drift]"))
    assert list(build_baselines(settings, week)) == ["drift"]
    alone = check_evaluation(composed("evaluate", "data=sample", "evaluation.baselines=[seasonal]"))
    with pytest.raises(ConfigError, match="none of them supports"):
        build_baselines(alone, week)


# What each one does


def test_the_last_price_bootstrap_draws_the_recent_returns_without_their_mean():
    rng = np.random.default_rng(0)
    returns = rng.normal(0.01, 0.02, 200)
    for count in (20, 60):
        close = paths_of(f"last_price_{count}", from_returns(returns), [200], num_paths=300)[0]
        moves = np.diff(np.log(close), axis=1).ravel()
        recent = returns[-count:] - returns[-count:].mean()
        assert np.isclose(moves[:, None], recent, atol=1e-12).any(axis=1).all()
        assert np.isclose(moves[:, None], recent, atol=1e-12).any(axis=0).all()


def test_drift_follows_the_trend_of_all_history():
    rng = np.random.default_rng(0)
    candles = from_returns(np.concatenate([rng.normal(0.004, 0.002, 400), rng.normal(0, 0.002, 100)]))
    close = paths_of("drift", candles, [500], num_paths=2000, horizon=10)[0]
    known = np.log(candles.frame["close"].to_numpy())
    expected = (known[500] - known[0]) / 500
    assert np.log(close[:, -1] / np.exp(known[500])).mean() / 10 == pytest.approx(expected, rel=0.05)


@pytest.mark.parametrize(("interval", "length"), [("1h", 24), ("4h", 6), ("1d", 7)])
@pytest.mark.parametrize("missing", [0, 5])
def test_seasonal_repeats_a_seasonal_pattern_even_after_a_gap(interval, length, missing):
    pattern = np.random.default_rng(0).normal(0, 0.01, length)
    whole = from_returns(np.resize(pattern, 600), interval=interval)
    frame = whole.frame.drop(index=range(310, 310 + missing)).reset_index(drop=True)
    candles = replace(whole, frame=frame.assign(segment=(frame.index >= 310).astype(np.int64) * (missing > 0)))
    cutoffs = np.arange(len(frame) // 3, len(frame) - 30, 11)
    cutoffs = cutoffs[(cutoffs < 280) | (cutoffs > 320)]
    for horizon in (3, length + 2):
        paths = paths_of("seasonal", candles, cutoffs, horizon=horizon)
        actual = frame["close"].to_numpy()[cutoffs[:, None] + np.arange(1, horizon + 1)]
        outside = frame["segment"].to_numpy()[cutoffs] == frame["segment"].to_numpy()[cutoffs + horizon]
        np.testing.assert_allclose(paths[outside], np.repeat(actual[outside, None], 20, axis=1))


def test_seasonal_draws_from_the_last_sixty_seasons_alone():
    rng = np.random.default_rng(0)
    returns = np.repeat(rng.normal(0, 0.01, 100), 24)  # by day
    close = paths_of("seasonal", from_returns(returns), [2400], num_paths=3000, horizon=23)[0]
    drawn = np.unique(np.log(close[:, -1] / close[:, 0]).round(9))
    np.testing.assert_allclose(drawn, np.unique((returns[-60 * 24 :: 24] * 22).round(9)), atol=2e-9)


def test_seasonal_without_an_earlier_season_draws_recent_returns(candles):
    assert np.ptp(paths_of("seasonal", candles, [20]), axis=1).min() > 0


@pytest.mark.parametrize("interval", ["7h", "3d", "1w"])
def test_some_intervals_have_no_season(interval):
    applies = {name: baseline(name).applies_to(parse_interval(interval)) for name in BASELINES}
    assert applies == dict.fromkeys(BASELINES, True) | {"seasonal": False}


def test_a_return_moves_the_variance_by_alpha_and_beta():
    returns, model = np.array([0.1, -0.2, 0.0]), Garch(omega=0.001, alpha=0.2, beta=0.7, degrees=5)
    second = 0.001 + 0.2 * 0.01 + 0.7 * 0.05
    third = 0.001 + 0.2 * 0.04 + 0.7 * second
    np.testing.assert_allclose(model.variances(returns, 0.05), [0.05, second, third, 0.001 + 0.7 * third])
    moves = model.simulate(0.05, np.array([[2.0, -1.0, 0.0], [0.0, 1.0, 1.0]]))
    np.testing.assert_allclose(moves[:, 0], [2 * np.sqrt(0.05), 0])
    np.testing.assert_allclose(moves[:, 1], [-np.sqrt(0.001 + 0.2 * 0.2 + 0.035), np.sqrt(0.001 + 0.035)])
    np.testing.assert_allclose(moves[:, 2], [0, np.sqrt(0.001 + (0.2 + 0.7) * 0.036)])


def test_an_exploding_variance_moves_a_candle_tenfold_at_most():
    moves = Garch(omega=0.1, alpha=0.9, beta=0.9, degrees=5).simulate(
        1.0, np.random.default_rng(0).normal(0, 1e3, (10, 400))
    )
    assert np.abs(moves).max() == pytest.approx(np.log(10))


def test_the_shocks_of_garch_have_unit_variance():
    assert Garch(omega=0, alpha=0, beta=1, degrees=6).shocks(
        (400, 500), np.random.default_rng(0)
    ).std() == pytest.approx(1, abs=0.02)


def test_ewma_paths_have_the_volatility_of_the_last_days():
    rng = np.random.default_rng(0)
    candles = from_returns(np.concatenate([rng.normal(0, 0.001, 500), rng.normal(0, 0.01, 100)]))
    first = np.log(paths_of("ewma", candles, [500, 600], num_paths=4000)[..., 0])
    assert first.std(axis=1) == pytest.approx([0.001, 0.01], rel=0.4)


def test_a_first_move_after_stillness_is_no_boundless_shock():
    returns = np.concatenate([np.random.default_rng(0).normal(0, 0.001, 300), np.zeros(300), [0.01]])
    first = np.log(paths_of("ewma", from_returns(returns), [601], num_paths=5000)[0, :, 0] / 100) - returns.sum()
    assert 0.01 < np.abs(first).max() < 0.5


# When they are refitted


def test_the_drift_changes_at_its_refits_alone():
    returns = np.concatenate([np.random.default_rng(0).normal(0.001, 0.01, 200), np.zeros(400)])
    candles, cutoffs = from_returns(returns), np.arange(300, 500)  # recent returns are zero: paths are drift alone
    rate = np.log(paths_of("drift", candles, cutoffs) / candles.frame["close"].iloc[-1])[:, 0, 0]
    np.testing.assert_allclose(rate, np.repeat([returns[:300].mean(), returns[:400].mean()], 100), atol=1e-12)


def constant(volatility):
    return Garch(omega=volatility**2, alpha=0.0, beta=0.0, degrees=1e6)


def test_garch_is_refitted_on_schedule_and_keeps_its_parameters_where_a_fit_fails(monkeypatch, candles, caplog):
    fits = {300: constant(0.01), 400: None, 500: constant(0.04)}
    seen = []
    monkeypatch.setattr(baselines, "fit_garch", lambda returns: (seen.append(len(returns)), fits[len(returns)])[1])
    with caplog.at_level(logging.WARNING):
        paths = paths_of("garch", candles, np.arange(300, 600, 10), num_paths=500)
    assert sorted(seen) == [300, 400, 500]
    spread = np.diff(np.log(paths), axis=-1).std(axis=(1, 2))
    np.testing.assert_allclose(spread, np.repeat([0.01, 0.01, 0.04], 10), rtol=0.1)
    assert "no fit to the 400 returns" in caplog.text


def test_garch_sees_the_last_returns_alone(monkeypatch):
    candles, seen = garch_candles(5400, 0)[0], []
    monkeypatch.setattr(baselines, "fit_garch", lambda returns: (seen.append(returns), EWMA)[1])
    paths_of("garch", candles, [5350])
    np.testing.assert_array_equal(seen[0], np.diff(np.log(candles.frame["close"].to_numpy()))[300:5300])


# Strange candles


@pytest.mark.parametrize("name", BASELINES)
def test_a_price_that_never_moved_stays(name):
    np.testing.assert_array_equal(paths_of(name, from_returns(np.zeros(400)), [5, 399]), 100)


@pytest.mark.parametrize("name", BASELINES)
def test_fewer_than_two_returns_are_an_error_that_tells_the_time(name, candles):
    assert np.isfinite(paths_of(name, candles, [2])).all()
    with pytest.raises(CandleError, match="2023-01-01 01:00"):
        paths_of(name, candles, [1, 2])


@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 10_000), still=st.sampled_from([0.0, 0.5, 0.98]), degrees=st.sampled_from([0.7, 1.5, 4.0]))
def test_paths_are_positive_and_finite_whatever_the_returns(seed, still, degrees):
    rng = np.random.default_rng(seed)
    returns = np.clip(0.001 * rng.standard_t(degrees, 700), -1, 1) * (rng.random(700) >= still)
    candles = from_returns(returns)
    for name in BASELINES:
        paths = paths_of(name, candles, np.arange(350, 700, 50), horizon=24)
        assert np.isfinite(paths).all()
        assert (paths > 0).all()


# How good they are where the truth is known


@pytest.fixture(scope="module")
def known():
    """Forecasts of GARCH candles: 4,000 cutoffs without common targets, at which a coverage has an error of 0.005."""
    candles, sigma = garch_candles(21_010, seed=11)
    cutoffs = np.arange(5000, 21_000, 4)
    common = {"horizon": 4, "num_paths": 400, "seed": 3}
    paths = {name: paths_of(name, candles, cutoffs, refit_every=1000, **common) for name in BASELINES}
    paths["truth"] = true_paths(candles, sigma, cutoffs, **common)
    close = candles.frame["close"].to_numpy()
    last, actual = close[cutoffs], close[cutoffs[:, None] + np.arange(1, 5)]
    returns = {name: own / last[:, None, None] - 1 for name, own in paths.items()}
    returns["noise"] = returns["truth"] + np.random.default_rng(0).normal(0, 0.01, (len(cutoffs), 1, 1))
    actual = actual / last[:, None] - 1
    crps = {name: crps_ensemble(actual, own[:, ::2], m_axis=1).mean(axis=1) for name, own in returns.items()}
    return SimpleNamespace(returns=returns, actual=actual, sigma=sigma[cutoffs + 1], crps=crps)


def flatness(known, name, step):
    """p-value of a chi-square test that the probability integral transform is uniform."""
    below = (known.returns[name][..., step] < known.actual[:, None, step]).sum(axis=1)
    pit = (below + np.random.default_rng(0).random(len(below))) / (known.returns[name].shape[1] + 1)
    return stats.chisquare(np.histogram(pit, bins=20, range=(0, 1))[0]).pvalue


def test_garch_covers_ninety_percent_of_what_comes_at_every_step(known):
    lower, upper = np.quantile(known.returns["garch"], [0.05, 0.95], axis=1)
    inside = (known.actual >= lower) & (known.actual <= upper)
    assert ((inside.mean(axis=0) > 0.88) & (inside.mean(axis=0) < 0.92)).all()


def test_garch_is_calibrated_and_a_constant_volatility_is_not(known):
    assert min(flatness(known, "garch", step) for step in range(4)) > 0.01
    assert flatness(known, "last_price_20", 0) < 0.01


def test_garch_finds_the_true_volatility(known):
    spread = known.returns["garch"][..., 0].std(axis=1)
    assert np.corrcoef(np.log(spread), np.log(known.sigma))[0, 1] > 0.95


def test_garch_beats_a_constant_volatility_where_it_is_true(known):
    for other in set(BASELINES) - {"garch", "ewma", "seasonal_garch", "har"}:
        better = known.crps[other] - known.crps["garch"]
        assert better.mean() > 3 * better.std() / np.sqrt(len(better)), other
    assert known.crps["garch"].mean() < known.crps["ewma"].mean()


def test_the_truth_wins_and_the_truth_with_noise_loses(known):
    mean = {name: loss.mean() for name, loss in known.crps.items()}
    assert mean["garch"] == pytest.approx(mean["truth"], rel=0.005)
    assert all(mean["truth"] < mean[name] for name in set(BASELINES) - {"garch"})
    assert all(mean["noise"] > 1.1 * mean[name] for name in BASELINES)
