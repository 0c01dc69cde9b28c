"""Input series of the forecaster, from DataFrames: checked candles of one series, and open times of future candles.

Shape letters: T known candles, h horizon, C = 6 features.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from kronos_lightning.data.candles import time_features
from kronos_lightning.data.formats import FEATURES, PRICES, CandleError
from kronos_lightning.data.formats.stamps import parse_stamps

Stamps = pd.DatetimeIndex | pd.Series | Sequence[Any]


@dataclass(frozen=True, kw_only=True)
class Series:
    """Known candles of one market and the open times to forecast.

    values: known candles, float32 ``(T, C)``.
    stamps: open times of the known candles, ``(T,)``.
    future: open times of the future candles, ``(h,)``.
    last_close: close of the last known candle as it was given, not rounded to float32.
    """

    values: np.ndarray
    stamps: pd.DatetimeIndex
    future: pd.DatetimeIndex
    last_close: float

    def last(self, count: int) -> "Series":
        """Return the series with only the last `count` known candles."""
        return replace(self, values=self.values[-count:], stamps=self.stamps[-count:])

    def features(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the time features of known ``(T, 5)`` and future ``(h, 5)`` candles, int8."""
        return time_features(self.stamps), time_features(self.future)


def read_series(
    frame: pd.DataFrame,
    horizon: int,
    timestamp_column: str = "timestamps",
    future: Stamps | None = None,
    label: str = "candles",
) -> Series:
    """Check one series of candles; the frame is not changed.

    Rows are sorted by time; stamps may be the index, and of any kind that files hold. Stamps without a zone are UTC.
    Missing `amount` is volume × mean price, missing `volume` is amount / mean price; without both, both are zero.
    Without `future` the candles must be evenly spaced, and the future stamps continue at that distance.

    Raises:
        CandleError: the series is invalid; the message says what is wrong, where, and what to do.
    """
    if horizon < 1:
        raise CandleError(f"{label}: horizon {horizon}; it must be at least 1")
    if timestamp_column not in frame and isinstance(frame.index, pd.DatetimeIndex):
        frame = frame.assign(**{timestamp_column: frame.index})
    if timestamp_column not in frame:
        raise CandleError(
            f"{label}: no column {timestamp_column!r}; the columns are {', '.join(map(str, frame.columns))}. Name the "
            f"column of the candles' open times"
        )
    stamps = as_stamps(frame[timestamp_column], f"{label}, column {timestamp_column}").tz_convert("UTC")
    order = np.argsort(stamps.to_numpy(), kind="stable")
    values, stamps = candle_values(frame, label)[order], stamps[order]
    if len(stamps) < 2:
        raise CandleError(f"{label}: {len(stamps)} candle(s); at least 2 are needed, some hundred are better")
    if stamps.has_duplicates:
        raise CandleError(f"{label}: duplicate timestamp {stamps[stamps.duplicated()][0]}; keep one row per candle")
    last_close = float(frame["close"].iloc[order[-1]])
    if future is None:
        return Series(values=values, stamps=stamps, future=_continued(stamps, horizon, label), last_close=last_close)
    future = as_stamps(future, f"{label}, future timestamps", future=True).tz_convert("UTC")
    if len(future) != horizon:
        raise CandleError(f"{label}: {len(future)} future timestamps for a horizon of {horizon}")
    if not future.is_monotonic_increasing or future.has_duplicates or future[0] <= stamps[-1]:
        raise CandleError(f"{label}: future timestamps must increase and begin after the last candle ({stamps[-1]})")
    return Series(values=values, stamps=stamps, future=future, last_close=last_close)


def candle_values(frame: pd.DataFrame, label: str) -> np.ndarray:
    """Return the candles as float32 ``(T, C)``, with missing volume and amount filled in.

    Raises:
        CandleError: a price column is missing, or a value is not a finite number.
    """
    missing = [name for name in PRICES if name not in frame]
    if missing:
        raise CandleError(
            f"{label}: column {', '.join(missing)} missing; the columns are {', '.join(map(str, frame.columns))}. "
            f"Rename yours to {', '.join(FEATURES)} (volume and amount may be absent)"
        )
    columns = {}
    for name in FEATURES:
        if name in frame:
            try:
                columns[name] = frame[name].to_numpy(dtype=np.float64)
            except (TypeError, ValueError) as error:
                raise CandleError(f"{label}, column {name}: not all numbers ({error})") from error
    price = np.mean([columns[name] for name in PRICES], axis=0)
    if "volume" not in columns:
        columns["volume"] = columns["amount"] / price if "amount" in columns else np.zeros(len(frame))
    columns.setdefault("amount", columns["volume"] * price)
    values = np.stack([columns[name] for name in FEATURES], axis=1)
    bad = ~np.isfinite(values)
    if bad.any():
        row, column = np.argwhere(bad)[0]
        raise CandleError(
            f"{label}, row {row + 1}, column {FEATURES[column]}: {values[row, column]} is not a number ({bad.sum()} "
            f"such value(s)); remove or repair the rows"
        )
    with np.errstate(over="ignore"):
        narrow = values.astype(np.float32)
    if not np.isfinite(narrow).all():
        row, column = np.argwhere(~np.isfinite(narrow))[0]
        raise CandleError(
            f"{label}, row {row + 1}, column {FEATURES[column]}: {values[row, column]:g} is too large for 32-bit "
            f"numbers; use larger units"
        )
    return narrow


def as_stamps(stamps: Stamps, label: str, future: bool = False) -> pd.DatetimeIndex:
    """Parse open times with their zone; stamps without a zone are taken as UTC.

    Raises:
        CandleError: a stamp is missing or not a date.
    """
    column = pd.Series(stamps).set_axis(pd.RangeIndex(1, len(stamps) + 1)).rename("timestamps")
    if pd.api.types.is_datetime64_any_dtype(column) and column.notna().all():
        index = pd.DatetimeIndex(column)
        return index.tz_localize("UTC") if index.tz is None else index
    return pd.DatetimeIndex(parse_stamps(column, label, "row", future=future).utc(None, label).times)


def _continued(stamps: pd.DatetimeIndex, horizon: int, label: str) -> pd.DatetimeIndex:
    gaps = stamps[1:] - stamps[:-1]
    step = gaps.min()
    uneven = gaps != step
    if uneven.any():
        i = int(uneven.argmax())
        raise CandleError(
            f"{label}: not evenly spaced: {gaps[i]} after {stamps[i]}, the shortest distance is {step}; give only the "
            f"candles after the last gap, or the future timestamps if the market closes"
        )
    return pd.date_range(stamps[-1] + step, periods=horizon, freq=step)


def rows_by_id(df: pd.DataFrame, id_column: str | None, label: str) -> dict[Any, pd.DataFrame]:
    """Return the rows of each series, with series in the order of their first rows."""
    if id_column is None:
        return {"candles": df}
    if id_column not in df:
        raise CandleError(
            f"{label}: no column {id_column!r}; the columns are {', '.join(map(str, df.columns))}. Name the column "
            f"that tells the series apart, or id_column=None for a single series"
        )
    if df[id_column].isna().any():
        raise CandleError(f"{label}: column {id_column!r} is empty in row {int(df[id_column].isna().argmax()) + 1}")
    return dict(list(df.groupby(id_column, sort=False)))
