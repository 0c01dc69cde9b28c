"""Dates and candle intervals in text form."""

import re

import pandas as pd


def as_utc(date: str) -> pd.Timestamp:
    """Parse a date and convert it to UTC; a date without a time zone is taken as UTC.

    Raises:
        ValueError: not a date, or one before 1900 or after 2200.
    """
    stamp = pd.Timestamp(date)
    if pd.isna(stamp) or not 1900 <= stamp.year <= 2200:
        raise ValueError(f"{date!r} is not a date between 1900 and 2200")
    return stamp.tz_localize("UTC") if stamp.tzinfo is None else stamp.tz_convert("UTC")


def end_of(date: str) -> pd.Timestamp:
    """Return the first instant after `date`: the next day for a bare date, one nanosecond later for an exact time."""
    exact = re.search(r"\d[T ]\d", date.strip())
    return as_utc(date) + (pd.Timedelta(1, "ns") if exact else pd.Timedelta(days=1))


def parse_interval(interval: str) -> pd.Timedelta:
    """Parse an interval in Binance's notation (1s 1m 15m 1h 4h 1d 3d 1w) into a Timedelta.

    Raises:
        ValueError: not in this notation; calendar months (1M) have no fixed length and are not supported.
    """
    match = re.fullmatch(r"(\d+)([smhdw])", interval)
    if not match or int(match[1]) == 0:
        raise ValueError(f"invalid interval {interval!r}: use a form such as 1m, 15m, 1h, 4h, 1d or 1w")
    step = pd.Timedelta(int(match[1]), {"m": "min", "d": "D", "w": "W"}.get(match[2], match[2]))
    if interval != interval_name(step):
        raise ValueError(f"invalid interval {interval!r}: write {interval_name(step)}")
    return step


def interval_name(step: pd.Timedelta) -> str:
    """Format a Timedelta in Binance's notation, such as 1h, 4h or 1d; the inverse of `parse_interval`."""
    for unit, length in (("w", "7D"), ("d", "1D"), ("h", "1h"), ("m", "1min")):
        count, rest = divmod(step, pd.Timedelta(length))
        if not rest and count:
            return f"{count}{unit}"
    return f"{step.total_seconds():g}s"
