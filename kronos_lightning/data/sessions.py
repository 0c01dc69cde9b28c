"""Markets that close: whether candles show sessions, and when the next candles open."""

from collections import Counter

import numpy as np
import pandas as pd

DAY = pd.Timedelta(days=1)
WEEKS = 4  # last weeks whose sessions are continued


def describe_sessions(stamps: pd.DatetimeIndex, step: pd.Timedelta) -> str:
    """Describe how a market closes as text; return an empty string if it trades around the clock.

    Args:
        stamps: open times in ascending order; fewer than 60, or less than two weeks, show nothing.
        step: interval of the candles.
    """
    if len(stamps) < 60 or stamps[-1] - stamps[0] < pd.Timedelta(days=14):
        return ""
    weekend = (stamps.day_of_week >= 5).mean()
    if step <= DAY and weekend == 0:
        return "no candle on weekends"
    if step < DAY:
        slots = int(DAY / step)
        used = np.unique((stamps - stamps.normalize()) // step, return_counts=True)[1]
        if slots >= 4 and (used > 0.5 * used.max()).sum() < 0.7 * slots:
            return f"candles at {len(used)} of {slots} times of the day"
    return ""


def next_opens(stamps: pd.DatetimeIndex, horizon: int, step: pd.Timedelta) -> pd.DatetimeIndex:
    """Return the open times of the next candles of a market that closes; holidays are not known.

    Candles of a week or longer follow at their interval. Otherwise the weekdays and times of the last four weeks are
    continued: a candle is expected at a time at which the market traded on at least half of those weekdays, counting
    only days with candles. Give the stamps in the market's time zone to follow its changes of the clock.

    Args:
        stamps: known open times in ascending order, ``(T,)``.
        horizon: number of candles.
        step: interval of the candles.
    """
    if step >= 7 * DAY:
        return pd.date_range(stamps[-1] + step, periods=horizon, freq=step)
    recent = stamps[stamps.normalize() > stamps[-1].normalize() - WEEKS * 7 * DAY]
    days = recent.normalize()
    traded = Counter(days.unique().day_of_week)
    seen = Counter(zip(recent.day_of_week, recent - days, strict=True))
    expected = sorted(slot for slot, count in seen.items() if count >= traded[slot[0]] / 2)
    opens: list[pd.Timestamp] = []
    day = stamps[-1].normalize()
    while len(opens) < horizon:
        today = (day + clock for weekday, clock in expected if weekday == day.day_of_week)
        opens += [at for at in today if at > stamps[-1]]
        day = (day + pd.DateOffset(days=1)).normalize()
    return pd.DatetimeIndex(opens[:horizon])
