"""Leaks planted anywhere in the real evaluation are caught by the figures that they change."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from kronos_lightning.backtest import HOLD
from kronos_lightning.cli.figures import in_this_process
from tests.helpers.leaks import CHEAP, Remembering, certified, checkpoints, leaking, plant

FORECASTING, BACKTESTING = "kronos_lightning.pipeline.forecasting.", "kronos_lightning.pipeline.backtesting."
ROLLING, BASELINES = "kronos_lightning.evaluation.rolling.", "kronos_lightning.evaluation.baselines."
STRATEGY = "kronos_lightning.backtest.ThresholdStrategy."
OFTEN = ["strategy.buy_threshold=0.001", "strategy.sell_threshold=-0.001"]  # trades, so that few changes show a leak


@pytest.fixture(scope="module")
def networks(tmp_path_factory):
    return checkpoints(tmp_path_factory.mktemp("networks"))


@pytest.fixture
def arguments(networks, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return [*networks, *CHEAP, *OFTEN]


def changed_after(real, change):
    """A method that does its own work first, then a change to its object."""

    def method(self, *args, **kwargs):
        real(self, *args, **kwargs)
        change(self)

    return method


def fitted_to_the_last_cutoff(real):
    def sample(self, candles, cutoffs, horizon, num_paths):
        close = candles.frame["close"].to_numpy()[: cutoffs[-1] + 1]
        return real(self, candles, cutoffs, horizon, num_paths) * (1 + np.diff(np.log(close)).mean())

    return sample


def filling_at(open_of, advance):
    """An engine whose orders get other prices than the next open, or are carried out candles early."""

    def leak(real):
        def engine(market, signals, rules, equity):
            moved = np.append(signals[advance:], np.full(advance, HOLD))
            return real(
                replace(market, prices=market.prices._replace(open=open_of(market.prices))), moved, rules, equity
            )

        return engine

    return leak


def unfinished(real):
    def correct(close, last_close, actual, cutoffs, stamps, earlier):
        at_once = np.broadcast_to(cutoffs[:, None] + np.timedelta64(1, "ns"), stamps.shape)
        return real(close, last_close, actual, cutoffs, at_once, earlier)

    return correct


def anchored_late(real):
    def forecast_set(self, paths):
        found = real(self, paths)
        moved = found.actual[:, None, :1, :1] / found.last_close[:, None, None, None]
        return replace(found, paths=(found.paths * moved).astype(np.float32))

    return forecast_set


LEAKS = {
    "calibration on test": (
        *(FORECASTING + "_Runner.cutoffs", lambda real: lambda self, split, most: real(self, "test", None)),
        {"calibrated: calibration", "validation", "choices on validation"},
    ),
    "threshold search on test": (
        "kronos_lightning.pipeline.evaluating.trade",
        lambda real: lambda settings, candles, test, validation: real(settings, candles, test, test),
        {"choices on validation"},
    ),
    "baseline fitted to the last cutoff": (
        *(BASELINES + "Drift.sample_paths", fitted_to_the_last_cutoff),
        {"baseline drift"},
    ),
    "baseline fitted to the end of the file": (
        *(BASELINES + "History.until", lambda real: lambda self, row: self.returns),
        {"baseline drift"},
    ),
    "scaling by the whole file": (
        ROLLING + "Cutoffs.__init__",
        lambda real: changed_after(real, lambda self: self.values.div_(self.values.mean(0))),
        {"sampled", "calibrated", "adaptive"},
    ),
    "candles a row too late": (
        ROLLING + "Cutoffs.__init__",
        lambda real: changed_after(real, lambda self: setattr(self, "values", self.values.roll(-1, 0))),
        {"sampled", "calibrated"},
    ),
    "anchor at the candle to come": (ROLLING + "Cutoffs.forecast_set", anchored_late, {"sampled"}),
    "random numbers that know the file": (
        FORECASTING + "rolling_forecasts",
        lambda real: (
            lambda cutoffs, forecaster, paths, seed, trainer: real(
                cutoffs, forecaster, paths, int(cutoffs.values.sum()), trainer
            )
        ),
        {"sampled", "validation"},
    ),
    "outcomes before they are known": (FORECASTING + "adaptive", unfinished, {"adaptive"}),
    "decision by the next forecast": (
        *(STRATEGY + "signals", lambda real: lambda self, forecasts: np.roll(real(self, forecasts), -1)),
        {"signals"},
    ),
    "threshold by the mean of all forecasts": (
        STRATEGY + "expected_return",
        lambda real: lambda self, forecasts: real(self, forecasts) - real(self, forecasts).mean(),
        {"signals"},
    ),
    "fills at the deciding close": (
        BACKTESTING + "run_backtest",
        filling_at(lambda prices: np.concatenate([prices.open[:1], prices.close[:-1]]), 0),
        {"fill prices"},
    ),
    "fills inside the deciding candle": (
        *(BACKTESTING + "run_backtest", filling_at(lambda prices: prices.close.copy(), 1)),
        {"fills"},
    ),
    "fills before the signal": (
        *(BACKTESTING + "run_backtest", filling_at(lambda prices: prices.open, 6)),
        {"fills"},
    ),
}
PLACES = {  # of leaks that do not show after the first cutoff
    "outcomes before they are known": 3,
    "fills inside the deciding candle": 2,
    "fills before the signal": 5,
}


@pytest.mark.parametrize("name", LEAKS)
def test_a_planted_leak_is_caught(name, arguments, monkeypatch):
    target, leak, expected = LEAKS[name]
    plant(monkeypatch, target, leak)
    found = leaking(certified(in_this_process, arguments, PLACES.get(name, 1)))
    assert expected <= found, found


def test_a_season_fitted_on_everything_is_caught(arguments, monkeypatch):
    histories = []
    plant(
        monkeypatch,
        BASELINES + "History.of",
        lambda real: lambda candles: histories.append(real(candles)) or histories[-1],
    )

    def of_everything(real):
        return lambda *_: real(histories[-1].return_times, histories[-1].returns, pd.Timedelta("1h"), "hour_of_day")

    plant(monkeypatch, BASELINES + "fit_factor", of_everything)
    seasonal = [*arguments, "evaluation.baselines=[seasonal_garch]"]
    assert leaking(certified(in_this_process, seasonal)) == {
        "baseline seasonal_garch",
        "baseline calibrated seasonal_garch",
    }


def test_without_a_leak_everything_is_proved(arguments):
    assert set(certified(in_this_process, arguments, places=4).values()) == {"proved"}


def test_a_cache_that_outlives_the_evaluation_is_not_proved(arguments, monkeypatch):
    monkeypatch.setattr(Remembering, "cache", np.empty(0))
    remembering = f"+baselines.remembering._target_={Remembering.__module__}.Remembering"
    found = certified(in_this_process, [*arguments, remembering, "evaluation.baselines=[remembering]"])
    assert found["baseline remembering"] == "unproved"


def test_a_tokenizer_trained_on_the_test_range_is_caught(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    late = {"train": ["2023-01-01", "2023-01-24"], "val": ["2023-01-25", "2023-02-03"]}
    found = certified(in_this_process, [*checkpoints(tmp_path, t=late), *CHEAP])
    assert leaking(found) == {"tokenizer's record"}


def test_evaluations_that_differ_by_themselves_prove_nothing(arguments):
    rng = np.random.default_rng(0)

    def unsteady(cfg):
        found = in_this_process(cfg)
        noisy = replace(found["sampled/paths"], values=rng.random(found["sampled/paths"].values.shape))
        return {**found, "sampled/paths": noisy}

    found = certified(unsteady, arguments)
    assert (found["sampled"], leaking(found)) == ("unproved", set())
