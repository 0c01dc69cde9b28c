"""Feeds: finished candles and the time of the exchange, from its API or from a file."""

import json
import threading
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Protocol, TypeVar

import numpy as np
import pandas as pd

from kronos_lightning.data.formats import FEATURES
from kronos_lightning.data.sources.binance import DownloadError, Endpoints
from kronos_lightning.data.sources.binance.candle_table import from_rest
from kronos_lightning.data.sources.binance.http import Client
from kronos_lightning.data.sources.binance.intervals import to_ms
from kronos_lightning.data.sources.binance.klines import API_LIMIT, klines
from kronos_lightning.errors import KronosError

from .closes import from_ms

Answer = TypeVar("Answer")


class Feed(Protocol):
    """Finished candles of markets, and a clock that says which have finished.

    rate: seconds by which the exchange's time advances in a second; 0 if it only advances in pauses.
    skew: seconds by which the local clock was ahead of the exchange's when that was last asked.
    """

    rate: float
    skew: float

    def synchronise(self) -> None:
        """Ask the exchange for its time.

        Raises:
            KronosError: it cannot be had.
        """

    def now(self) -> pd.Timestamp:
        """Return the exchange's time, continued from when it was last asked."""

    def candles(self, symbol: str, interval: str, start: pd.Timestamp, end: pd.Timestamp) -> pd.DataFrame:
        """Return the finished candles that open in [start, end), oldest first: timestamps and the six features.

        Raises:
            KronosError: they cannot be had.
        """

    def pause(self, seconds: float, stop: threading.Event) -> None:
        """Wait until the exchange's time has advanced by some seconds, or for `stop`."""

    def has_ended(self) -> bool:
        """Return True if no candle will follow."""

    def close(self) -> None:
        """End every request that is under way."""


class ExchangeFeed:
    """Feed of Binance's API.

    Args:
        endpoints: host, time-outs, retries and limits.
    """

    rate = 1.0

    def __init__(self, endpoints: Endpoints):
        self._endpoints, self._client = endpoints, Client(endpoints)
        self._asked, self._asked_at = from_ms(0), time.monotonic()  # the exchange's time, and a clock nobody can set
        self.skew = 0.0

    def synchronise(self) -> None:
        """Ask the exchange for its time."""
        url, local, started = f"{self._endpoints.rest_url}/api/v3/time", time.time(), time.monotonic()
        body = self._get(lambda client: client.get(url))
        half = (time.monotonic() - started) / 2
        try:
            stamp = from_ms(int(json.loads(body or b"")["serverTime"]))
        except (ValueError, KeyError, TypeError, OverflowError) as error:
            raise DownloadError(f"{url}: the answer is not a time; check rest_url") from error
        self._asked, self._asked_at, self.skew = stamp, started + half, local + half - stamp.timestamp()

    def now(self) -> pd.Timestamp:
        """Return the exchange's time, continued from when it was last asked."""
        return self._asked + pd.Timedelta(time.monotonic() - self._asked_at, "s")

    def candles(self, symbol: str, interval: str, start: pd.Timestamp, end: pd.Timestamp) -> pd.DataFrame:
        """Fetch candles, page by page; those count as finished that had closed before the request."""
        present = to_ms(self.now())
        span, rows = (to_ms(start), to_ms(end)), list[list[Any]]()
        begin = span[0]
        while begin < span[1]:
            end_time = span[1] - 1
            request = partial(
                klines, symbol=symbol, interval=interval, startTime=begin, endTime=end_time, limit=API_LIMIT
            )
            page = self._get(request)
            rows += page
            if len(page) < API_LIMIT:
                break
            begin = page[-1][0] + 1
        table: pd.DataFrame = from_rest([row for row in rows if row[6] < present], span).to_pandas()
        table.insert(0, "timestamps", pd.to_datetime(table.pop("time"), unit="ms", utc=True).dt.as_unit("ns"))
        return table.drop_duplicates("timestamps").sort_values("timestamps").reset_index(drop=True)

    def _get(self, call: Callable[[Client], Answer]) -> Answer:
        """Ask through the client; a client that has given a host up is replaced, because an outage ends some day."""
        try:
            return call(self._client)
        except DownloadError:
            self._client = Client(self._endpoints)
            raise

    def pause(self, seconds: float, stop: threading.Event) -> None:
        """Wait."""
        stop.wait(seconds)

    def has_ended(self) -> bool:
        """Return False: the market never closes."""
        return False

    def close(self) -> None:
        """End every request that is under way."""
        self._client.stop()


class ReplayFeed:
    """Feed of known candles, whose time advances in pauses alone.

    Args:
        frames: candles by symbol, with timestamps and the six features.
        interval, step: their length.
        begin: time at which the replay begins.
        speed: candles a second; None = as fast as possible.
    """

    skew = 0.0

    def __init__(
        self,
        frames: Mapping[str, pd.DataFrame],
        interval: str,
        step: pd.Timedelta,
        begin: pd.Timestamp,
        speed: float | None,
    ):
        self._frames = {
            symbol: frame[["timestamps", *FEATURES]].reset_index(drop=True) for symbol, frame in frames.items()
        }
        self._interval, self._step, self._now = interval, step, begin
        self.rate = 0.0 if speed is None else speed * step.total_seconds()
        self._end = max(frame["timestamps"].iloc[-1] for frame in frames.values()) + 2 * step

    def synchronise(self) -> None:
        """Do nothing: the time is known."""

    def now(self) -> pd.Timestamp:
        """Return the time of the replay."""
        return self._now

    def candles(self, symbol: str, interval: str, start: pd.Timestamp, end: pd.Timestamp) -> pd.DataFrame:
        """Return candles of the file that have closed by now.

        Raises:
            KronosError: the replay has no candles of this market.
        """
        if symbol not in self._frames or interval != self._interval:
            raise KronosError(f"the replay has no candles of {symbol} {interval}")
        frame = self._frames[symbol]
        end = min(end, self._now - self._step + pd.Timedelta(1, "ns"))
        first, last = np.searchsorted(frame["timestamps"], pd.DatetimeIndex([start, end]))
        return frame.iloc[first : max(first, last)].reset_index(drop=True)

    def pause(self, seconds: float, stop: threading.Event) -> None:
        """Advance the time, at the speed of the replay."""
        if not self.rate or not stop.wait(seconds / self.rate):
            self._now += pd.Timedelta(seconds, "s")

    def has_ended(self) -> bool:
        """Return True after the last candle."""
        return bool(self._now >= self._end)

    def close(self) -> None:
        """Do nothing: nothing is under way."""
