"""Binance's intervals on the time axis, in UTC milliseconds."""

from datetime import UTC, datetime

import pandas as pd

from kronos_lightning.settings import parse_interval

BINANCE_INTERVALS = ["1s", "1m", "3m", "5m", "15m", "30m", "1h", "2h", "4h", "6h", "8h", "12h", "1d", "3d", "1w", "1M"]
IRREGULAR = ("3d", "1M")  # no open time follows from the calendar alone, or no fixed length
LONG = ("3d", "1w", "1M")  # of these the archive has files by the month alone
DAY = 86_400_000
MONDAY = 4 * DAY  # the first Monday after the epoch's Thursday

Range = tuple[int, int]  # [from, to) in milliseconds


def file_name(interval: str) -> str:
    """The interval as file names write it: 1mo for the month, so that it differs from the minute everywhere."""
    return "1mo" if interval == "1M" else interval


def grid(interval: str) -> int:
    """Distance of the open times that are possible; those of three-day candles may fall on any day."""
    return DAY if interval in IRREGULAR else int(parse_interval(interval).total_seconds() * 1000)


def floor(interval: str, time: int) -> int:
    """Last possible open time at or before `time`."""
    if interval == "1M":
        return to_ms(datetime.fromtimestamp(time / 1000, UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0))
    origin = MONDAY if interval == "1w" else 0
    return time - (time - origin) % grid(interval)


def closed_before(interval: str, now: int) -> int:
    """End of the range in which every candle has closed: the open time of the first that may be unfinished."""
    if interval == "3d":
        return floor(interval, now - 3 * DAY) + DAY
    return floor(interval, now)


def months(span: Range) -> list[Range]:
    """The calendar months that touch `span`."""
    first = pd.Timestamp(span[0], unit="ms").to_period("M")
    last = pd.Timestamp(span[1] - 1, unit="ms").to_period("M")
    return [(to_ms(m.start_time), to_ms((m + 1).start_time)) for m in pd.period_range(first, last)]


def days(span: Range) -> list[Range]:
    """The UTC days that touch `span`."""
    return [(day, day + DAY) for day in range(span[0] - span[0] % DAY, span[1], DAY)]


def to_ms(time: datetime | pd.Timestamp | str) -> int:
    """UTC milliseconds; a stamp without a zone is UTC."""
    stamp = pd.Timestamp(time)
    stamp = stamp.tz_localize("UTC") if stamp.tzinfo is None else stamp
    return stamp.as_unit("ns").value // 1_000_000


def union(ranges: list[Range]) -> list[Range]:
    """The same time in as few ranges as possible, in order."""
    merged: list[Range] = []
    for begin, end in sorted(r for r in ranges if r[0] < r[1]):
        if merged and begin <= merged[-1][1]:
            merged[-1] = merged[-1][0], max(end, merged[-1][1])
        else:
            merged.append((begin, end))
    return merged


def without(span: Range, ranges: list[Range]) -> list[Range]:
    """What of `span` is in none of `ranges`."""
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
