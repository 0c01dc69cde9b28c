"""Downloads that are killed, and files that somebody touched."""

import multiprocessing
import os
import random
import signal
import threading
import time

import pandas as pd
import pytest

from kronos_lightning.data.sources.binance import DownloadError
from tests.helpers.exchange import (
    NOW,
    fetch,
    files,
)


def killed_after(exchange, path, requests, delay):
    """A download in a process of its own, killed without warning after so many requests and seconds."""
    enough = threading.Event()
    exchange.fault = lambda path, before: enough.set() if len(exchange.asked) >= requests else None
    exchange.asked[:] = []
    child = multiprocessing.get_context("fork").Process(target=fetch, args=(exchange, path))
    child.start()
    while child.is_alive() and not enough.wait(0.005):
        pass
    time.sleep(delay)
    child.kill()
    child.join()
    exchange.fault = lambda path, before: None
    return child.exitcode == -signal.SIGKILL


def test_killed_at_twenty_points_the_next_run_completes_it_byte_for_byte(exchange, tmp_path, undisturbed):
    rng, killed = random.Random(1), 0
    for attempt in range(20):
        path = tmp_path / str(attempt) / "BTCUSDT_1h.csv"
        killed += killed_after(exchange, path, rng.randrange(1, 42), rng.random() * 0.1)
        fetch(exchange, path)
        assert files(path) == undisturbed
        assert set(path.parent.iterdir()) - {path.with_name(f".{path.name}.kronos-lock")} == set(series_files(path))
    assert killed >= 15  # the others were done already


def series_files(path):
    return [path, path.with_suffix(".parquet"), path.with_suffix(".manifest.json")]


def test_what_was_fetched_before_a_kill_is_not_fetched_again(exchange, tmp_path):
    path = tmp_path / "x.csv"
    killed_after(exchange, path, 12, 0.05)
    first = {asked for asked in exchange.asked if asked.endswith(".zip")}
    kept = {p.stem for p in (tmp_path / ".x.parts").glob("BTC*.parquet")}
    assert kept
    exchange.asked[:] = []
    fetch(exchange, path)
    assert not any(name in asked for asked in exchange.asked for name in kept if f"{name}.zip" in asked)
    assert first


@pytest.mark.parametrize("survive", [1, 2])
def test_a_kill_between_the_files_of_a_series_is_noticed(exchange, tmp_path, undisturbed, survive, monkeypatch):
    path = tmp_path / "x.csv"
    exchange.now = pd.Timestamp("2024-12-20 07:10", tz="UTC")
    fetch(exchange, path)
    exchange.now = NOW
    replace, done = os.replace, []

    def die(source, target):
        if str(target).startswith(str(tmp_path / "x.")):
            if len(done) == survive:
                raise KeyboardInterrupt
            done.append(target)
        replace(source, target)

    monkeypatch.setattr(os, "replace", die)
    with pytest.raises(KeyboardInterrupt):
        fetch(exchange, path)
    monkeypatch.undo()
    fetch(exchange, path)
    assert files(path) == undisturbed


def test_a_full_disk_keeps_the_old_files(exchange, tmp_path, undisturbed, monkeypatch):
    path = tmp_path / "x.csv"
    exchange.now = pd.Timestamp("2024-12-20 07:10", tz="UTC")
    fetch(exchange, path)
    before, exchange.now = files(path), NOW

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("kronos_lightning.data.sources.binance.stored_series.write_csv", full)
    with pytest.raises(OSError, match="No space left"):
        fetch(exchange, path)
    assert files(path) == before
    monkeypatch.undo()
    fetch(exchange, path)
    assert files(path) == undisturbed


def test_files_of_others_are_never_overwritten(exchange, tmp_path):
    path = tmp_path / "x.csv"
    path.write_text("mine")
    with pytest.raises(DownloadError, match="not written by this command"):
        fetch(exchange, path)
    assert path.read_text() == "mine"


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_a_lost_or_changed_file_is_restored(exchange, tmp_path, undisturbed, suffix):
    path = fetch(exchange, tmp_path / "x.csv").path
    path.with_suffix(suffix).write_bytes(b"timestamps,open\n")
    fetch(exchange, path)
    assert files(path) == undisturbed
    path.with_suffix(suffix).unlink()
    fetch(exchange, path)
    assert files(path) == undisturbed


def test_a_damaged_part_is_downloaded_again(exchange, tmp_path, undisturbed):
    path = tmp_path / "x.csv"
    killed_after(exchange, path, 25, 0.05)
    part = next((tmp_path / ".x.parts").glob("BTC*.parquet"))
    part.write_bytes(part.read_bytes()[:100])
    fetch(exchange, path)
    assert files(path) == undisturbed


def test_two_downloads_of_one_series_at_a_time_do_not_disturb_each_other(exchange, tmp_path, undisturbed):
    path = tmp_path / "x.csv"
    threads = [threading.Thread(target=fetch, args=(exchange, path)) for _ in range(3)]
    [t.start() for t in threads]
    [t.join() for t in threads]
    assert files(path) == undisturbed
    assert max(exchange.times.values()) <= 3  # klines; archive files once
