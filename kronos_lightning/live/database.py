"""SQLite file of a live record: its tables, its version, and how it is opened.

Times are UTC milliseconds. A forecast's paths are float32 in row order ``(S, h, C)``.
"""

import sqlite3
from pathlib import Path

from kronos_lightning.errors import KronosError

VERSION = 1
APPLICATION = 0x4B524F4E  # "KRON" in the file's header
BUSY_SECONDS = 10.0
TABLES = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT;
CREATE TABLE candles (
    symbol TEXT NOT NULL, interval TEXT NOT NULL, time INTEGER NOT NULL,
    open REAL NOT NULL, high REAL NOT NULL, low REAL NOT NULL, close REAL NOT NULL,
    volume REAL NOT NULL, amount REAL NOT NULL,
    PRIMARY KEY (symbol, interval, time)
) STRICT, WITHOUT ROWID;
CREATE TABLE forecasts (
    id INTEGER PRIMARY KEY,
    symbol TEXT NOT NULL, interval TEXT NOT NULL, cutoff INTEGER NOT NULL, account TEXT NOT NULL,
    made_at INTEGER NOT NULL, status TEXT NOT NULL, reason TEXT NOT NULL,
    late INTEGER NOT NULL, halted INTEGER NOT NULL, signal TEXT NOT NULL, model TEXT NOT NULL,
    decision TEXT, paths BLOB, candles_sha256 TEXT,
    UNIQUE (symbol, interval, cutoff, account)
) STRICT;
CREATE TABLE scores (
    forecast INTEGER NOT NULL REFERENCES forecasts (id), step INTEGER NOT NULL,
    close REAL NOT NULL, crps REAL NOT NULL, crps_last_price_60 REAL NOT NULL, crps_ewma REAL NOT NULL,
    pit REAL NOT NULL, up REAL NOT NULL, rose INTEGER NOT NULL,
    PRIMARY KEY (forecast, step)
) STRICT, WITHOUT ROWID;
CREATE TABLE events (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    symbol TEXT NOT NULL, time INTEGER NOT NULL, kind TEXT NOT NULL, content TEXT NOT NULL
) STRICT;
CREATE TABLE outbox (
    id INTEGER PRIMARY KEY, key TEXT NOT NULL UNIQUE, body TEXT NOT NULL,
    attempts INTEGER NOT NULL DEFAULT 0, state TEXT NOT NULL DEFAULT 'waiting'
) STRICT;
CREATE INDEX events_by_symbol ON events (symbol, id);
"""


class RecordError(KronosError, RuntimeError):
    """Error for a file that is no live record of this version, or of other settings; the message says what to do."""


def connect(path: Path, write: bool) -> sqlite3.Connection:
    """Open a record; to write, make it if it is missing.

    Args:
        path: the file.
        write: open it for the one process that writes; False = only read.

    Raises:
        RecordError: there is no record to read, or the file is none, or it was made by a newer version.
    """
    if path.is_dir():
        raise RecordError(f"{path}: is a folder; name a file for the record")
    if write:
        path.parent.mkdir(parents=True, exist_ok=True)
    elif not path.is_file():
        raise RecordError(f"{path}: no such record; start python -m kronos_lightning.live first")
    mode = "rwc" if write else "ro"
    connection = sqlite3.connect(
        f"{path.resolve().as_uri()}?mode={mode}", uri=True, timeout=BUSY_SECONDS, check_same_thread=False
    )
    connection.isolation_level = None  # transactions begin where the code says so
    try:
        _prepare(connection, path, write)
    except BaseException:
        connection.close()
        raise
    return connection


def _prepare(connection: sqlite3.Connection, path: Path, write: bool) -> None:
    try:
        application = connection.execute("PRAGMA application_id").fetchone()[0]
        empty = not connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
    except sqlite3.DatabaseError as error:
        raise RecordError(f"{path}: is not a live record ({error}); name another file") from error
    if write and empty and application == 0:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.executescript(
            f"BEGIN IMMEDIATE; {TABLES} PRAGMA application_id={APPLICATION};"
            f"INSERT INTO meta VALUES ('schema_version', '{VERSION}'); COMMIT;"
        )
    elif application != APPLICATION:
        raise RecordError(f"{path}: is not a live record; name another file")
    version = connection.execute("SELECT value FROM meta WHERE key = 'schema_version'").fetchone()
    if version is None or int(version[0]) != VERSION:
        made = "an unknown" if version is None else f"a newer ({version[0]})"
        raise RecordError(f"{path}: made by {made} version of kronos-lightning; update it, or name another file")
    if write:
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute("PRAGMA foreign_keys=ON")
