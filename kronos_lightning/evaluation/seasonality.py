"""Seasonal factor of volatility: markets move more at some hours of the week than at others.

Shape letters: n returns, K slots of a season.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd

Season = Literal["none", "hour_of_day", "hour_of_week"]

HOUR = 3_600_000_000_000  # nanoseconds
DAY, WEEK = 24 * HOUR, 168 * HOUR
MONDAY = 4 * DAY  # the first Monday after the epoch's Thursday
SHRINKAGE = 20  # observations that pull the factor of an hour of the week towards that of its hour of the day
FEWEST_WEEKS = 4  # with less history all factors are one


@dataclass(frozen=True, kw_only=True)
class SeasonalFactor:
    """Factor of volatility by slot, with a mean square of about one.

    by_slot: factors ``(K,)``; slots are hours, or the candles' interval if that is longer.
    width: nanoseconds of a slot.
    """

    by_slot: np.ndarray
    width: int

    def at(self, times: np.ndarray) -> np.ndarray:
        """Return the factors of candles that open at `times` (nanoseconds)."""
        factors: np.ndarray = self.by_slot[slots(times, self.width)]
        return factors


def slots(times: np.ndarray, width: int) -> np.ndarray:
    """Return the slot of the week, from 0, in which candles open."""
    slot: np.ndarray = (times - MONDAY) % WEEK // width
    return slot


def slot_width(interval: pd.Timedelta) -> int:
    """Return the width of a slot in nanoseconds: an hour, or the interval if it is longer."""
    return max(HOUR, int(interval.value))


def fit_factor(times: np.ndarray, returns: np.ndarray, interval: pd.Timedelta, season: Season) -> SeasonalFactor:
    """Fit the factor: mean absolute return by slot, relative to the volatility of the local week.

    An hour of the week is shrunk towards its hour of the day with 20 observations, and the hour of the day towards one.

    Args:
        times: open times of the candles in which the returns happened, nanoseconds ``(n,)``.
        returns: log returns ``(n,)``.
        interval: length of a candle.
        season: hour_of_week or hour_of_day; "none", an interval of a week or longer, and less than four weeks give one.
    """
    width = slot_width(interval)
    count = max(1, WEEK // width)
    flat = SeasonalFactor(by_slot=np.ones(count), width=width)
    if season == "none" or count < 2 or not len(times) or times[-1] - times[0] < FEWEST_WEEKS * WEEK:
        return flat
    size = np.abs(returns)
    week = max(1, int(WEEK // interval.value))
    local = pd.Series(size).rolling(week, min_periods=week // 2).mean().bfill().to_numpy()
    relative = np.divide(size, local, out=np.ones_like(size), where=local > 0)
    slot, daily = slots(times, width), max(1, DAY // width)
    by_day = _shrunk(relative, slot % daily, daily, np.ones(daily))
    by_slot = by_day[np.arange(count) % daily]
    if season == "hour_of_week":
        by_slot = _shrunk(relative, slot, count, by_slot)
    return SeasonalFactor(by_slot=by_slot / np.sqrt(np.mean(by_slot**2)), width=width)


def _shrunk(values: np.ndarray, groups: np.ndarray, count: int, towards: np.ndarray) -> np.ndarray:
    """Return group means, each shrunk towards a value with the weight of `SHRINKAGE` observations."""
    sums, sizes = np.bincount(groups, values, minlength=count), np.bincount(groups, minlength=count)
    shrunk: np.ndarray = (sums + SHRINKAGE * towards) / (sizes + SHRINKAGE)
    return shrunk
