"""Candle frame: one of the two exchange formats of the project (the other is the forecast set).

A candle frame is a DataFrame in time order with columns `timestamps` (UTC, the candle's open), `open high low close
volume amount` (float64; volume in base units, amount in quote units) and `segment` (int64), a number that increases at
every gap. Rows of one segment follow each other without a missing candle.
"""

import hashlib
import logging
from dataclasses import dataclass, replace
from functools import cache, cached_property
from pathlib import Path

import numpy as np
import pandas as pd

from kronos_lightning.data.formats import FEATURES, PRICES, CandleError, LayoutSection, read_raw, usual_distance, where
from kronos_lightning.settings import as_utc, end_of, interval_name, parse_interval

TIME_FEATURES = ["minute", "hour", "weekday", "day", "month"]
NAMED_GAPS = 3
ROUNDING = 1e-9  # relative tolerance for prices that a conversion rounded

SMALLEST, LARGEST = (float(bound) for bound in (np.finfo(np.float32).tiny, np.finfo(np.float32).max))

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Candles:
    """Validated candle frame with its origin."""

    frame: pd.DataFrame
    symbol: str
    interval: pd.Timedelta
    source: str
    synthetic: bool = False
    sessions: bool = False

    def __len__(self) -> int:
        return len(self.frame)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of interval and content; identical candles from different files have the same fingerprint."""
        digest = hashlib.sha256(str(self.interval.value).encode())
        stamps = self.frame["timestamps"].astype("int64").to_numpy()
        for values in (stamps, self.frame[FEATURES].to_numpy(np.float64), self.frame["segment"].to_numpy()):
            digest.update(np.ascontiguousarray(values).tobytes())
        return digest.hexdigest()

    @property
    def gaps(self) -> list[tuple[pd.Timestamp, pd.Timestamp]]:
        """Last candle before and first candle after each gap."""
        stamps, segment = self.frame["timestamps"], self.frame["segment"]
        after = np.flatnonzero(np.diff(segment)) + 1
        return [(stamps.iloc[i - 1], stamps.iloc[i]) for i in after]

    @cached_property
    def times(self) -> np.ndarray:
        """Open times in UTC without a time zone: datetime64[ns] ``(T,)``. Only this property removes the zone."""
        times: np.ndarray = self.frame["timestamps"].dt.tz_localize(None).to_numpy().astype("datetime64[ns]")
        return times

    def rows_at(self, times: np.ndarray) -> np.ndarray:
        """Return the rows of the candles that open at `times` ``(N,)``.

        Raises:
            CandleError: no candle opens at one of the times.
        """
        rows = np.searchsorted(self.times, times)
        if len(rows) and (rows.max() >= len(self) or (self.times[rows] != times).any()):
            raise CandleError(f"{self.source}: a cutoff is not the time of a candle")
        return rows

    def between(self, begin: str | None, end: str | None) -> "Candles":
        """Return the candles from `begin` to `end`, both dates included; None leaves a side open."""
        keep = in_range(self.frame["timestamps"], begin, end)
        frame = self.frame[keep].reset_index(drop=True)
        return replace(self, frame=frame)


def candles_sha256(frame: pd.DataFrame) -> str:
    """Return the SHA-256 of candles: their open times and those of the six features that the frame has."""
    digest = hashlib.sha256(frame["timestamps"].astype("int64").to_numpy().tobytes())
    names = [name for name in FEATURES if name in frame]
    digest.update(np.ascontiguousarray(frame[names].to_numpy(np.float64)).tobytes())
    return digest.hexdigest()


def in_range(stamps: pd.Series, begin: str | None, end: str | None) -> np.ndarray:
    """Return a bool mask of the stamps in [begin, end]; an end without a time of day includes the whole day."""
    keep = np.ones(len(stamps), dtype=bool)
    if begin is not None:
        keep &= (stamps >= as_utc(begin)).to_numpy()
    if end is not None:
        keep &= (stamps < end_of(end)).to_numpy()
    return keep


def time_features(stamps: pd.Series | pd.DatetimeIndex) -> np.ndarray:
    """Return minute, hour, weekday (Monday 0), day and month of UTC stamps: int8 ``(N, 5)``."""
    parts = pd.DatetimeIndex(stamps)
    return np.stack([parts.minute, parts.hour, parts.day_of_week, parts.day, parts.month], axis=1).astype(np.int8)


def read_candles(
    path: str | Path,
    interval: str | None,
    symbol: str,
    sessions: bool = False,
    layout: LayoutSection | None = None,
) -> Candles:
    """Read and validate a file; see `formats` for the layouts and `validate` for the checks."""
    return validate(read_raw(Path(path), layout), Path(path), interval, symbol, sessions)


def validate(
    raw: pd.DataFrame,
    path: Path | str,
    interval: str | None,
    symbol: str,
    sessions: bool,
    begin: str | None = None,
    end: str | None = None,
) -> Candles:
    """Check raw columns and build a candle frame from them.

    Missing `volume` becomes zero; missing `amount` becomes volume × mean price. Rows are sorted by time, repeated
    identical rows are dropped and gaps are marked; each of these is logged once. Nothing else is changed and no candle
    is filled in.

    Args:
        raw: columns from `formats.read_raw`.
        path: file, or another name of the source, for messages.
        interval: required interval, such as ``1h``; None takes the file's most common distance.
        symbol: name of the market, for reports.
        sessions: True if the market closes (such as a stock market); breaks between candles are then no gaps.
        begin, end: candles outside this range are left out before all checks; see `in_range`.

    Raises:
        CandleError: the candles are invalid; the message names file, line, column and value.
    """
    inside = in_range(raw["timestamps"], begin, end)
    raw = raw.copy(deep=False) if inside.all() else raw[inside]
    if "volume" not in raw:
        _note(f"{path}: no volume column, volume is zero everywhere")
        raw["volume"] = 0.0
    if "amount" not in raw:
        _note(f"{path}: no amount column, amount = volume x mean price of the candle")
        raw["amount"] = raw["volume"] * raw[PRICES].mean(axis=1)
    _check_values(raw, path)
    raw = _in_time_order(raw, path)
    step = usual_distance(raw, path) if interval is None else parse_interval(interval)
    segment = _segments(raw, step, sessions, path)
    frame = raw[["timestamps", *FEATURES]].reset_index(drop=True).assign(segment=segment)
    frame.attrs = {}
    candles = Candles(frame=frame, symbol=symbol, interval=step, source=str(path), sessions=sessions)
    if candles.gaps:
        _note(f"{path}: {describe_gaps(candles)}")
    return candles


def describe_gaps(candles: Candles) -> str:
    """Describe the first gaps, and the number of all, in one line."""
    gaps, step = candles.gaps, candles.interval
    missing = [round((after - before) / step) - 1 for before, after in gaps]
    named = [
        f"{count} after {before:%Y-%m-%d %H:%M}" for count, (before, _) in zip(missing, gaps[:NAMED_GAPS], strict=False)
    ]
    more = f" and in {len(gaps) - NAMED_GAPS} more gaps ({sum(missing)} in all)" if len(gaps) > NAMED_GAPS else ""
    return f"candles missing: {', '.join(named)}{more}; windows never span a gap"


@cache
def _note(message: str) -> None:
    """Log a message about a file once, however often the file is read."""
    log.info(message)


def _check_values(raw: pd.DataFrame, path: Path | str) -> None:
    def stop_if(bad: np.ndarray, column: str, reason: str) -> None:
        if bad.any():
            i = int(bad.argmax())
            value = raw[column].iloc[i]
            raise CandleError(f"{where(path, raw, i, column)}: {value:g} ({raw['timestamps'].iloc[i]}): {reason}")

    values = {name: raw[name].to_numpy() for name in FEATURES}
    for name in FEATURES:
        stop_if(np.isnan(values[name]), name, "not a number; remove or repair the row")
        stop_if(np.isinf(values[name]), name, "infinite; remove or repair the row")
        stop_if(np.abs(values[name]) > LARGEST, name, "too large for 32-bit numbers; use larger units")
    for name in PRICES:
        stop_if(values[name] <= 0, name, "a price must be positive")
        stop_if(values[name] < SMALLEST, name, "too small for 32-bit numbers; use smaller units")
    for name in ("volume", "amount"):
        stop_if(values[name] < 0, name, "must not be negative")
    top = np.maximum.reduce([values["open"], values["close"], values["low"]])
    stop_if(values["high"] < top * (1 - ROUNDING), "high", "high is below open, close or low of its candle")
    bottom = np.minimum(values["open"], values["close"])
    stop_if(values["low"] > bottom * (1 + ROUNDING), "low", "low is above open or close of its candle")


def _in_time_order(raw: pd.DataFrame, path: Path | str) -> pd.DataFrame:
    stamps = raw["timestamps"]
    if not stamps.is_monotonic_increasing:
        order = "newest first" if stamps.is_monotonic_decreasing else "not in time order"
        _note(f"{path}: rows are {order}, sorted")
        raw = raw.sort_values("timestamps", kind="stable")
    repeated = raw["timestamps"].duplicated().to_numpy()
    if repeated.any():
        same = (raw[FEATURES].to_numpy()[1:] == raw[FEATURES].to_numpy()[:-1]).all(axis=1)
        differing = np.flatnonzero(repeated[1:] & ~same)
        if differing.size:
            i = int(differing[0]) + 1
            first = raw.index[i - 1]
            raise CandleError(
                f"{where(path, raw, i, 'timestamps')}: {raw['timestamps'].iloc[i]} is also in {raw.index.name} {first} "
                f"with different values; both may be real (several markets, intervals or time zones in one file?)"
            )
        _note(f"{path}: {int(repeated.sum())} repeated row(s) dropped")
        raw = raw[~repeated]
    return raw


def _segments(raw: pd.DataFrame, step: pd.Timedelta, sessions: bool, path: Path | str) -> np.ndarray:
    """Return the segment number of each row; raise `CandleError` if the candles do not have the interval `step`."""
    if len(raw) < 2:
        return np.zeros(len(raw), dtype=np.int64)
    usual = usual_distance(raw, path)
    if usual != step:
        raise CandleError(
            f"{path}: the file's candles are {interval_name(usual)} apart, data.interval is {interval_name(step)}; "
            f"choose the data group of that interval or set data.interval"
        )
    differences = np.diff(raw["timestamps"].astype("int64").to_numpy())
    if sessions:
        return np.zeros(len(raw), dtype=np.int64)
    stray = differences % step.value != 0
    if stray.any():
        i = int(stray.argmax()) + 1
        raise CandleError(
            f"{where(path, raw, i, 'timestamps')}: {raw['timestamps'].iloc[i]} is not a whole number of "
            f"{interval_name(step)} after the candle before it ({raw['timestamps'].iloc[i - 1]})"
        )
    return np.concatenate([[0], np.cumsum(differences != step.value)])
