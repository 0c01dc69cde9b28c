"""Binance's intervals on the time axis, in UTC milliseconds."""

import re
from datetime import UTC, datetime
from typing import Literal, get_args

import pandas as pd

from kronos_lightning.data.formats import CandleError
from kronos_lightning.settings import parse_interval

Interval = Literal["1s", "1m", "3m", "5m", "15m", "30m", "1h", "2h", "4h", "6h", "8h", "12h", "1d", "3d", "1w", "1M"]
BINANCE_INTERVALS: list[str] = list(get_args(Interval))
IRREGULAR = ("3d", "1M")  # 3d: open times do not follow from the calendar alone; 1M: no fixed length
LONG = ("3d", "1w", "1M")  # the archive has only monthly files of these intervals
DAY_MS = 86_400_000
MONDAY = 4 * DAY_MS  # the first Monday after the epoch's Thursday

SYMBOL = r"^[A-Z0-9]+$"

Range = tuple[int, int]  # [from, to) in milliseconds


def check_series(symbol: str, interval: str) -> None:
    """Raise `CandleError` if a symbol or interval does not exist at Binance, before any request is sent."""
    if not re.fullmatch(SYMBOL, symbol):
        raise CandleError(f"symbol: {symbol!r} is not a symbol of Binance; write it like BTCUSDT, without a separator")
    if interval not in BINANCE_INTERVALS:
        raise CandleError(f"interval: {interval!r} is not offered by Binance; use {', '.join(BINANCE_INTERVALS)}")


def file_name(interval: str) -> str:
    """Return the interval as used in file names: 1mo for the month, so that it differs from 1m on every file system."""
    return "1mo" if interval == "1M" else interval


def grid(interval: str) -> int:
    """Return the distance between possible open times in milliseconds; three-day candles may open on any day."""
    return DAY_MS if interval in IRREGULAR else int(parse_interval(interval).total_seconds() * 1000)


def floor(interval: str, time: int) -> int:
    """Return the last possible open time at or before `time`."""
    if interval == "1M":
        return to_ms(datetime.fromtimestamp(time / 1000, UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0))
    origin = MONDAY if interval == "1w" else 0
    return time - (time - origin) % grid(interval)


def closed_before(interval: str, now: int) -> int:
    """Return the open time of the first candle that may be unfinished; every candle before it has closed."""
    if interval == "3d":
        return floor(interval, now - 3 * DAY_MS) + DAY_MS
    return floor(interval, now)


def months(span: Range) -> list[Range]:
    """Return the calendar months that overlap `span`."""
    first = pd.Timestamp(span[0], unit="ms").to_period("M")
    last = pd.Timestamp(span[1] - 1, unit="ms").to_period("M")
    return [(to_ms(m.start_time), to_ms((m + 1).start_time)) for m in pd.period_range(first, last)]


def days(span: Range) -> list[Range]:
    """Return the UTC days that overlap `span`."""
    return [(day, day + DAY_MS) for day in range(span[0] - span[0] % DAY_MS, span[1], DAY_MS)]


def to_ms(time: datetime | pd.Timestamp | str) -> int:
    """Convert a time to UTC milliseconds; a stamp without a zone is taken as UTC."""
    stamp = pd.Timestamp(time)
    stamp = stamp.tz_localize("UTC") if stamp.tzinfo is None else stamp
    return stamp.as_unit("ns").value // 1_000_000


def union(ranges: list[Range]) -> list[Range]:
    """Merge ranges into as few ranges as possible, in order."""
    merged: list[Range] = []
    for begin, end in sorted(r for r in ranges if r[0] < r[1]):
        if merged and begin <= merged[-1][1]:
            merged[-1] = merged[-1][0], max(end, merged[-1][1])
        else:
            merged.append((begin, end))
    return merged


def without(span: Range, ranges: list[Range]) -> list[Range]:
    """Return the parts of `span` that are in none of `ranges`."""
    left, begin = [], span[0]
    for known in union(ranges):
        if known[0] >= span[1]:
            break
        if known[0] > begin:
            left.append((begin, known[0]))
        begin = max(begin, known[1])
    if begin < span[1]:
        left.append((begin, span[1]))
    return left
