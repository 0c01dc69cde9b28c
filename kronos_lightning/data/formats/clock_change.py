"""Local time among stamps without a zone: an hour is missing in spring and doubled in autumn."""

from collections.abc import Iterator
from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd

from .features import CandleError

ZONES = ["Europe/London", "Europe/Berlin", "Europe/Helsinki", "America/New_York", "Australia/Sydney"]  # one a rule
HOUR = np.timedelta64(3600, "s")


def find_clock_change(times: pd.Series, source: str) -> None:
    """Refuse stamps that follow the clock changes of a time zone; `timezone` then decides.

    Args:
        times: stamps as written, datetime64[ns].
        source: file, for the message.

    Raises:
        CandleError: at every change of the clock of a zone, its hour is missing or doubled in the stamps.
    """
    present, counts = np.unique(times.to_numpy(), return_counts=True)
    if len(present) < 3:
        return
    step = np.diff(present).min()
    if step > HOUR:
        return
    for zone in ZONES:
        changes = [change for change in _changes(zone, present[0], present[-1]) if _traded(present, change[0], step)]
        if changes and all(_follows(present, counts, *change) for change in changes):
            hours = [
                f"{pd.Timestamp(at):%Y-%m-%d %H:%M} is {'missing' if skips else 'doubled'}" for at, skips in changes
            ]
            raise CandleError(
                f"{source}: the hour from {', '.join(hours[:2])}, as in the local time of {zone}; timezone={zone} "
                f"reads it so, timezone=UTC takes the stamps for UTC (data.timezone in train.py and evaluate.py)"
            )


def _changes(zone: str, first: np.datetime64, last: np.datetime64) -> Iterator[tuple[np.datetime64, bool]]:
    """Yield the local hours that a zone skips (True) or repeats (False) between two stamps."""
    info = ZoneInfo(zone)
    day = pd.Timestamp(first).floor("D").to_pydatetime()
    end = pd.Timestamp(last).to_pydatetime()
    while day <= end:
        before, after = (info.utcoffset(day + timedelta(days=days)) for days in (0, 1))
        if before != after and before is not None and after is not None:
            yield np.datetime64(_hour(info, day, after > before), "ns"), after > before
        day += timedelta(days=1)


def _hour(info: ZoneInfo, day: datetime, forward: bool) -> datetime:
    """Return the first hour of a day that the clock skips or repeats."""
    for hour in range(24):
        at = day + timedelta(hours=hour)
        before, after = (info.utcoffset(at.replace(fold=fold)) for fold in (0, 1))
        if before != after:
            return at
    return day


def _traded(present: np.ndarray, at: np.datetime64, step: np.timedelta64) -> bool:
    """Return True if candles open before and after the hour."""
    around = np.array([at - step, at + HOUR])
    places = np.searchsorted(present, around).clip(max=len(present) - 1)
    return bool((present[places] == around).all())


def _follows(present: np.ndarray, counts: np.ndarray, at: np.datetime64, forward: bool) -> bool:
    begin, end = np.searchsorted(present, [at, at + HOUR])
    return bool(begin == end) if forward else bool(end > begin and (counts[begin:end] == 2).all())
