"""A live operation on golden hours in this process: a feed with faults, and what a record holds."""

import sqlite3
import threading
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pandas as pd

from kronos_lightning.config.sections import LiveSection
from kronos_lightning.live import feeds
from kronos_lightning.live.feeds import ExchangeFeed, ReplayFeed
from kronos_lightning.live.operation import LiveOperation, accounts_of, replay_feed
from kronos_lightning.live.record import LiveRecord
from tests.helpers.evaluated import LOOKBACK, btc_hours
from tests.helpers.exchange import Exchange

SYMBOL = "BTCUSDT"
HOUR = pd.Timedelta("1h")
(ACCOUNT,) = accounts_of([SYMBOL], "1h", "paper")


def live_settings(folder: Path, **changes) -> LiveSection:
    plain = {
        "clock": "replay", "record": str(folder / "record.db"), "account": "paper", "initial_equity": 1000.0,
        "halt": False, "speed": None, "start": None, "webhook_timeout": 2.0, "webhook_attempts": 3,
    }  # fmt: skip
    return LiveSection(**plain | changes)


def hours(closes: int | None = None) -> pd.DataFrame:
    """Golden hours: as many as the lookback needs for a number of closes."""
    frame = btc_hours().frame.drop(columns="segment")
    return frame if closes is None else frame.iloc[: LOOKBACK - 1 + closes].reset_index(drop=True)


def operation_of(folder: Path, model, frames=None, feed: ReplayFeed | None = None, **changes) -> LiveOperation:
    """Parts of a live operation; by default a replay of the golden hours."""
    settings = live_settings(folder, **changes)
    frames = {SYMBOL: hours()} if frames is None else frames
    if feed is None:
        feed = replay_feed(frames, "1h", LOOKBACK, settings)
    return LiveOperation(settings, list(frames), feed, lambda: model)


def follow(folder: Path, model, frames=None, **changes) -> LiveRecord:
    """Replay candles to their end; return the record, open to read."""
    operation = operation_of(folder, model, frames, **changes)
    operation.follower.run(threading.Event())
    operation.close()
    return LiveRecord(folder / "record.db")


def content(path: Path) -> dict[str, list[tuple]]:
    """Everything that two runs over the same candles have in common."""
    tables = {
        "candles": "*", "forecasts": "*", "scores": "*", "events": "symbol, kind, content", "outbox": "key, body",
    }  # fmt: skip
    connection = sqlite3.connect(path)
    try:
        return {name: connection.execute(f"SELECT {what} FROM {name}").fetchall() for name, what in tables.items()}
    finally:
        connection.close()


class World:
    """An exchange on this machine with golden hours, whose time is set by the test, and a follower of it.

    ahead: seconds by which the local clock is ahead of the exchange's.
    """

    def __init__(self, folder, model, monkeypatch, closes=8):
        self.frame, self.ahead = hours(closes + 4), 0.0
        self.exchange = Exchange({(SYMBOL, "1h"): rows_of(self.frame)})
        self.rows = self.exchange.series[SYMBOL, "1h"]
        self.first = self.frame["timestamps"].iloc[LOOKBACK - 1]
        self.at(0)
        clock = SimpleNamespace(
            time=lambda: self.exchange.now.timestamp() + self.ahead, monotonic=lambda: self.exchange.now.timestamp()
        )
        monkeypatch.setattr(feeds, "time", clock)
        self.feed = ExchangeFeed(self.exchange.endpoints(retries=1, read_timeout=0.5))
        self.operation = operation_of(folder, model, feed=self.feed, frames={SYMBOL: None}, clock="exchange")
        self.record = LiveRecord(folder / "record.db")

    def at(self, close, seconds=2.0):
        """Set the exchange's time to some seconds after a close, counted from 0."""
        self.exchange.now = self.first + (close + 1) * HOUR + pd.Timedelta(seconds, "s")

    def poll(self, close, seconds=2.0):
        """Let the follower look some seconds after a close; return the pause that it asks for."""
        self.at(close, seconds)
        return self.operation.follower.poll(threading.Event())

    def signals(self):
        return self.record.signals(ACCOUNT)

    def events(self, kind):
        return [event.content for _, event in self.record.events() if event.kind == kind]


@contextmanager
def world_of(folder, model, monkeypatch):
    world = World(folder, model, monkeypatch)
    try:
        yield world
    finally:
        world.record.close()
        world.operation.close()
        world.exchange.close()


def rows_of(frame):
    """Candles in the 12 columns of the exchange's API."""
    found = []
    for row in frame.itertuples():
        opened = row.timestamps.value // 10**6
        prices = [repr(float(getattr(row, name))) for name in ("open", "high", "low", "close", "volume")]
        found.append([opened, *prices, opened + 3_600_000 - 1, repr(float(row.amount)), 10, "1.0", "2.0", "0"])
    return found
