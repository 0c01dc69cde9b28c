"""The drift alarm comes soon after the market has changed, and seldom without a reason."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm

from kronos_lightning.live.drift import ALARM, apart, e_process


def alarms(factor, forecasts, runs, seed=0):
    """Number of the forecast at which each run raises the alarm; 0 = never. The true spread is a multiple."""
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(runs):
        high = e_process(norm.cdf(factor * rng.normal(size=forecasts))) >= ALARM
        found.append(int(high.argmax()) + 1 if high.any() else 0)
    return np.array(found)


@pytest.mark.parametrize("factor", [1.5, 1 / 1.5])
def test_another_volatility_is_found_within_150_forecasts(factor):
    assert (alarms(factor, 150, 100) > 0).sum() >= 95


def test_right_forecasts_seldom_raise_an_alarm_however_often_one_looks():
    assert (alarms(1.0, 1000, 100) > 0).sum() <= 2


def test_few_paths_are_no_drift():
    rng = np.random.default_rng(1)
    below = (rng.normal(size=(1000, 20)) < rng.normal(size=(1000, 1))).sum(axis=1)
    assert e_process((below + rng.random(1000)) / 21).max() < ALARM


@settings(max_examples=30, deadline=None)
@given(st.lists(st.floats(0.001, 0.999), min_size=1, max_size=40))
def test_the_evidence_after_a_forecast_does_not_depend_on_later_ones(places):
    whole = e_process(np.array(places))
    for n in range(1, len(places) + 1):
        assert e_process(np.array(places[:n]))[-1] == pytest.approx(whole[n - 1])
    assert np.isfinite(whole).all()


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 100), min_size=1, unique=True).map(sorted), st.integers(1, 20))
def test_chosen_forecasts_do_not_overlap_and_none_is_wasted(hours, horizon):
    cutoffs = pd.Series(pd.Timestamp("2024-01-01") + pd.to_timedelta(hours, unit="h"))
    chosen = np.array(hours)[apart(cutoffs, pd.Timedelta(horizon, "h"))]
    assert (np.diff(chosen) >= horizon).all()
    assert all(any(0 <= hour - one < horizon for one in chosen) for hour in hours)
