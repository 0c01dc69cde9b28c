"""Live record: what was known, decided and sent after each close, written by one process in one transaction a close."""

import json
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from kronos_lightning.data.formats import FEATURES

from .closes import (
    SIGNAL_COLUMNS,
    Close,
    Event,
    RecordedClose,
    SignalRow,
    from_ms,
    from_row,
    to_candles,
    to_ms,
    to_row,
    to_signal,
)
from .database import connect

SCORES = ("forecast", "step", "close", "crps", "crps_last_price_60", "crps_ewma", "pit", "up", "rose")
EVERYTHING = 2**62


@dataclass(frozen=True, kw_only=True)
class Account:
    """Sequence of decisions on one market.

    symbol, interval, step: market and length of its candles.
    name: name of the account.
    """

    symbol: str
    interval: str
    step: pd.Timedelta
    name: str

    @property
    def key(self) -> tuple[str, str, str]:
        """Values of the columns symbol, interval and account."""
        return self.symbol, self.interval, self.name


class LiveRecord:
    """Record in a SQLite file; one connection, which threads take in turn.

    Args:
        path: the file.
        write: open it to write; only one process may, see `storage.Lock`.

    Raises:
        RecordError: the file is no record, or of a newer version.
    """

    def __init__(self, path: Path, write: bool = False):
        self.path = path
        self._turn = threading.RLock()
        self._connection = connect(path, write)
        self._connection.row_factory = sqlite3.Row

    def close(self) -> None:
        """Close the file."""
        with self._turn:
            self._connection.close()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Write all or nothing of what happens inside; it is on the disk at the end.

        Raises:
            sqlite3.Error: the disk is full, or the file cannot be written; nothing of it was.
        """
        with self._turn:
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._connection.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise

    def _rows(self, query: str, parameters: Sequence[Any] = ()) -> list[sqlite3.Row]:
        with self._turn:
            return self._connection.execute(query, parameters).fetchall()

    def _one(self, query: str, parameters: Sequence[Any] = ()) -> sqlite3.Row | None:
        found = self._rows(query, parameters)
        return found[0] if found else None

    # --- inside of a transaction ----------------------------------------------------------------------------------

    def put_candles(self, account: Account, frame: pd.DataFrame) -> None:
        """Insert candles, or replace those of the same time."""
        times = [to_ms(stamp) for stamp in frame["timestamps"]]
        values = frame[list(FEATURES)].astype(float).to_numpy().tolist()
        rows = [(account.symbol, account.interval, time, *row) for time, row in zip(times, values, strict=True)]
        self._connection.executemany("INSERT OR REPLACE INTO candles VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", rows)

    def put_close(self, close: Close) -> int:
        """Insert a close and return the number of its row.

        Raises:
            sqlite3.IntegrityError: this close was recorded before.
        """
        row = to_row(close)
        names, places = ", ".join(row), ", ".join("?" * len(row))
        cursor = self._connection.execute(f"INSERT INTO forecasts ({names}) VALUES ({places})", list(row.values()))
        return int(cursor.lastrowid or 0)

    def put_scores(self, scores: pd.DataFrame) -> None:
        """Insert scores, one row per forecast and step, with the columns of `SCORES`."""
        rows = scores[list(SCORES)].astype(object).to_numpy().tolist()
        self._connection.executemany(f"INSERT INTO scores VALUES ({', '.join('?' * len(SCORES))})", rows)

    def drop_scores(self, account: Account, target: pd.Timestamp, horizon: int) -> None:
        """Remove the scores that compare a forecast with the candle of a time, because that candle was revised."""
        for step in range(1, horizon + 1):
            cutoff = to_ms(target - step * account.step)
            self._connection.execute(
                "DELETE FROM scores WHERE step = ? AND forecast IN (SELECT id FROM forecasts WHERE symbol = ? "
                "AND interval = ? AND account = ? AND cutoff = ?)",
                (step, *account.key, cutoff),
            )

    def put_event(self, event: Event) -> None:
        """Append an event."""
        content = json.dumps(event.content, allow_nan=False)
        self._connection.execute(
            "INSERT INTO events (symbol, time, kind, content) VALUES (?, ?, ?, ?)",
            (event.symbol, to_ms(event.time), event.kind, content),
        )

    def put_message(self, key: str, body: dict[str, Any]) -> None:
        """Append a message to the outbox, unless one with this key is there."""
        self._connection.execute(
            "INSERT OR IGNORE INTO outbox (key, body) VALUES (?, ?)", (key, json.dumps(body, allow_nan=False))
        )

    def set_message(self, key: str, state: str, attempts: int) -> None:
        """Set what became of a message: waiting, sent or failed."""
        self._connection.execute("UPDATE outbox SET state = ?, attempts = ? WHERE key = ?", (state, attempts, key))

    def set_meta(self, key: str, value: Any) -> None:
        """Set a value by name."""
        self._connection.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (key, json.dumps(value)))

    # --- to read --------------------------------------------------------------------------------------------------

    def meta(self, key: str) -> Any:
        """Return a value by name; None if it is not set."""
        row = self._one("SELECT value FROM meta WHERE key = ?", (key,))
        return None if row is None else json.loads(row[0])

    def candles(
        self, account: Account, until: pd.Timestamp | None = None, count: int = EVERYTHING,
        since: pd.Timestamp | None = None,
    ) -> pd.DataFrame:  # fmt: skip
        """Return the last candles from `since` to `until`, both included, oldest first."""
        end, begin = EVERYTHING if until is None else to_ms(until), 0 if since is None else to_ms(since)
        rows = self._rows(
            f"SELECT time, {', '.join(FEATURES)} FROM candles WHERE symbol = ? AND interval = ? AND time <= ? "
            "AND time >= ? ORDER BY time DESC LIMIT ?",
            (account.symbol, account.interval, end, begin, count),
        )
        return to_candles(rows[::-1])

    def signals(
        self,
        account: Account,
        since: pd.Timestamp | None = None,
        until: pd.Timestamp | None = None,
        after: int = 0,
        limit: int = EVERYTHING,
    ) -> list[SignalRow]:
        """Return the first closes from `since` to `until` with row numbers above `after`, in the order of their rows.

        That is the order of their cutoffs, because closes are recorded one after the other.
        """
        begin, end = 0 if since is None else to_ms(since), EVERYTHING if until is None else to_ms(until)
        rows = self._rows(
            f"SELECT {SIGNAL_COLUMNS} FROM forecasts WHERE symbol = ? AND interval = ? AND account = ? "
            "AND cutoff >= ? AND cutoff <= ? AND id > ? ORDER BY id LIMIT ?",
            (*account.key, begin, end, after, limit),
        )
        return [to_signal(row) for row in rows]

    def symbols(self, interval: str, name: str) -> list[str]:
        """Return the markets that have closes in an account."""
        rows = self._rows(
            "SELECT DISTINCT symbol FROM forecasts WHERE interval = ? AND account = ? ORDER BY symbol", (interval, name)
        )
        return [row[0] for row in rows]

    def newest(self, account: Account) -> SignalRow | None:
        """Return the newest close; None if there is none."""
        row = self._one(
            f"SELECT {SIGNAL_COLUMNS} FROM forecasts WHERE symbol = ? AND interval = ? AND account = ? "
            "ORDER BY cutoff DESC LIMIT 1",
            account.key,
        )
        return None if row is None else to_signal(row)

    def read_close(self, account: Account, number: int) -> RecordedClose | None:
        """Return a close with its paths by the number of its row; None if the account has none of this number."""
        row = self._one(
            "SELECT * FROM forecasts WHERE symbol = ? AND interval = ? AND account = ? AND id = ?",
            (*account.key, number),
        )
        return None if row is None else from_row(row, account.step)

    def forecasts(self, account: Account, since: pd.Timestamp, until: pd.Timestamp) -> list[RecordedClose]:
        """Return the closes from `since` to `until` that have a forecast, with their paths."""
        rows = self._rows(
            "SELECT * FROM forecasts WHERE symbol = ? AND interval = ? AND account = ? AND status = 'ok' "
            "AND cutoff >= ? AND cutoff <= ? ORDER BY cutoff",
            (*account.key, to_ms(since), to_ms(until)),
        )
        return [from_row(row, account.step) for row in rows]

    def scores(self, account: Account, since: pd.Timestamp | None = None) -> pd.DataFrame:
        """Return all scores of forecasts from `since` on, with cutoff, late and model, by cutoff and step."""
        rows = self._rows(
            f"SELECT {', '.join(SCORES)}, cutoff, late, model FROM scores JOIN forecasts ON forecast = id "
            "WHERE symbol = ? AND interval = ? AND account = ? AND cutoff >= ? ORDER BY cutoff, step",
            (*account.key, 0 if since is None else to_ms(since)),
        )
        frame = pd.DataFrame([tuple(row) for row in rows], columns=[*SCORES, "cutoff", "late", "model"])
        frame["cutoff"] = pd.to_datetime(frame["cutoff"], unit="ms", utc=True)
        return frame.astype({"late": bool, "rose": bool})

    def places(self, account: Account, model: str, step: int) -> pd.DataFrame:
        """Return cutoff and PIT of a step of a model's forecasts in time, by cutoff."""
        rows = self._rows(
            "SELECT cutoff, pit FROM forecasts JOIN scores ON forecast = id WHERE symbol = ? AND interval = ? "
            "AND account = ? AND model = ? AND late = 0 AND step = ? ORDER BY cutoff",
            (*account.key, model, step),
        )
        frame = pd.DataFrame([tuple(row) for row in rows], columns=["cutoff", "pit"])
        frame["cutoff"] = pd.to_datetime(frame["cutoff"], unit="ms", utc=True)
        return frame

    def events(self, after: int = 0, symbol: str | None = None, limit: int = 1000) -> list[tuple[int, Event]]:
        """Return the first events with row numbers above `after`, with these numbers."""
        where, parameters = ("", ()) if symbol is None else ("AND symbol = ?", (symbol,))
        rows = self._rows(
            f"SELECT id, symbol, time, kind, content FROM events WHERE id > ? {where} ORDER BY id LIMIT ?",
            (after, *parameters, limit),
        )
        return [(row[0], Event(symbol=row[1], time=from_ms(row[2]), kind=row[3], content=json.loads(row[4])))
                for row in rows]  # fmt: skip

    def last_event(self) -> int:
        """Return the row number of the newest event; 0 without any."""
        row = self._one("SELECT max(id) FROM events")
        return 0 if row is None or row[0] is None else int(row[0])

    def messages(self, limit: int = 100) -> list[tuple[str, str, int]]:
        """Return key, body and number of attempts of the oldest messages that wait."""
        rows = self._rows(
            "SELECT key, body, attempts FROM outbox WHERE state = 'waiting' ORDER BY id LIMIT ?", (limit,)
        )
        return [(row[0], row[1], row[2]) for row in rows]
