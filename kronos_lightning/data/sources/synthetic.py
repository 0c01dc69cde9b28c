"""Synthetic BTC-like candles for demos and tests; they are not a market, and results on them say nothing about BTC."""

from typing import Annotated

import numpy as np
import pandas as pd
from pydantic import Field
from scipy.signal import lfilter

from kronos_lightning.data.candles import Candles
from kronos_lightning.settings import Count, Positive, Section, as_utc, parse_interval

from .planting import DESCRIPTIONS, Planted, follow_momentum, shape_wicks, telling_shapes

SUBSTEPS = 48  # intrabar price moves per candle, which determine high and low
SYMBOL = "SYNTHETIC"


class SyntheticSection(Section):
    """Arguments of the synthetic generator; `conf/data/synthetic.yaml` explains them."""

    candles: Count
    start: str
    seed: Annotated[int, Field(ge=0)]
    start_price: Positive
    volatility: Positive
    planted: Planted


class Synthetic(Section):
    """Candle source that generates synthetic candles."""

    settings: SyntheticSection

    @property
    def synthetic(self) -> bool:
        """True if the candles are generated; always True here."""
        return True

    def path(self, symbol: str, interval: str) -> None:
        """Return None, because synthetic candles have no file."""

    def fetch(self, symbol: str, interval: str, start: str | None, end: str | None) -> pd.DataFrame:
        """Generate all candles of the settings, for any symbol and range."""
        candles = synthetic_candles(interval=interval, **self.settings.model_dump())
        frame = candles.frame.drop(columns="segment").rename_axis(index="row")
        frame.attrs["source"] = candles.source
        return frame


def synthetic_candles(
    candles: int,
    interval: str,
    start: str,
    seed: int,
    start_price: float,
    volatility: float,
    planted: Planted = "none",
) -> Candles:
    """Simulate synthetic candles with typical properties of BTC/USDT.

    Volatility is persistent (AR(1) in its logarithm), moves are fat-tailed (Student t, 4 degrees of freedom) with rare
    jumps, volume follows volatility, and both depend on the hour of the day and the day of the week.

    Args:
        candles: number of candles.
        interval: length of a candle, such as ``1h``.
        start: open time of the first candle (UTC).
        seed: the same seed gives the same candles.
        start_price: open of the first candle, in quote units.
        volatility: average annual volatility (0.6 = 60% per year).
        planted: what foretells the next candle beyond its volatility; see `planting`.
    """
    rng = np.random.default_rng(seed)
    step = parse_interval(interval)
    stamps = pd.date_range(as_utc(start), periods=candles, freq=step)
    rhythm = _rhythm(stamps, step)
    persistence = 0.97
    log_vol = lfilter([1.0], [1.0, -persistence], rng.normal(0.0, 0.5 * np.sqrt(1 - persistence**2), candles))
    candle_vol = volatility * np.sqrt(step / pd.Timedelta(days=365)) * rhythm * np.exp(log_vol - 0.125)
    if planted == "candle_shape":
        telling, factors = telling_shapes(candles, seed)
        candle_vol = candle_vol * factors

    degrees = 4.0
    shocks = rng.standard_t(degrees, candles) / np.sqrt(degrees / (degrees - 2))
    jumps = (rng.random(candles) < 0.004) * rng.normal(0.0, 4.0, candles)
    returns = candle_vol * (shocks + jumps)
    if planted == "momentum":
        returns = follow_momentum(returns, candle_vol)

    # Inside a candle the price follows a Brownian bridge from 0 to the candle's return.
    walk = np.cumsum(rng.normal(0.0, 1.0, (candles, SUBSTEPS)), axis=1) / np.sqrt(SUBSTEPS)
    time = np.arange(1, SUBSTEPS + 1) / SUBSTEPS
    bridge = (walk - walk[:, -1:] * time) * candle_vol[:, None]
    path = bridge + returns[:, None] * time

    close = np.log(start_price) + np.cumsum(returns)
    open_ = np.concatenate([[np.log(start_price)], close[:-1]])
    high = open_ + np.maximum(path.max(axis=1), 0.0)
    low = open_ + np.minimum(path.min(axis=1), 0.0)
    if planted == "candle_shape":
        high, low = shape_wicks(telling, (np.maximum(open_, close), np.minimum(open_, close)), high, low)
    prices = np.exp(np.stack([open_, high, low, close], axis=1)).round(2)
    activity = np.abs(returns) / candle_vol
    volume = 2.0e4 * (step / pd.Timedelta(days=1)) * rhythm * np.exp(0.8 * log_vol + 0.3 * activity)
    volume = (volume * rng.lognormal(0.0, 0.25, candles)).round(5)

    frame = pd.DataFrame(prices, columns=["open", "high", "low", "close"])
    frame.insert(0, "timestamps", stamps.as_unit("ns"))
    frame["volume"] = volume
    frame["amount"] = volume * prices.mean(axis=1)
    frame["segment"] = np.zeros(candles, dtype=np.int64)
    origin = f"synthetic (seed {seed})" if planted == "none" else f"synthetic (seed {seed}; {DESCRIPTIONS[planted]})"
    return Candles(frame=frame, symbol=SYMBOL, interval=step, source=origin, synthetic=True)


def _rhythm(stamps: pd.DatetimeIndex, step: pd.Timedelta) -> np.ndarray:
    """Return the factor on volatility and volume: quiet weekends, busy European and American afternoons."""
    factor = np.where(stamps.day_of_week >= 5, 0.75, 1.1)
    if step < pd.Timedelta(days=1):
        hour = (stamps.hour + stamps.minute / 60).to_numpy()
        factor = factor * (1.0 + 0.35 * np.cos(2 * np.pi * (hour - 15) / 24))
    return factor
