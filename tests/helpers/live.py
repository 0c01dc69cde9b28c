"""A live operation on golden hours in this process: a feed with faults, and what a record holds."""

import sqlite3
import threading
from pathlib import Path

import pandas as pd

from kronos_lightning.config.sections import LiveSection
from kronos_lightning.live.feeds import ReplayFeed
from kronos_lightning.live.operation import LiveOperation, accounts_of, replay_feed
from kronos_lightning.live.record import Record
from tests.helpers.evaluated import LOOKBACK, btc_hours

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


def follow(folder: Path, model, frames=None, **changes) -> Record:
    """Replay candles to their end; return the record, open to read."""
    operation = operation_of(folder, model, frames, **changes)
    operation.follower.run(threading.Event())
    operation.close()
    return Record(folder / "record.db")


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
