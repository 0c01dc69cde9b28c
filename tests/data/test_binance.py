"""Downloading: complete, checked, resumable, polite. The exchange is a local one (`exchange.py`)."""

import itertools
import json
import multiprocessing
import os
import random
import signal
import threading
import time

import numpy as np
import pandas as pd
import pytest
import requests
from hypothesis import given
from hypothesis import strategies as st

from kronos_lightning.data import read_candles
from kronos_lightning.data.binance import DownloadError, download
from kronos_lightning.data.binance.intervals import INTERVALS, closed_before, floor, grid, months, to_ms, union, without
from tests.conftest import command
from tests.data.exchange import CUT, SLOW, STEPS, Exchange, made_up_rows, zipped

NOW = pd.Timestamp("2025-01-18 15:30", tz="UTC")
OUTAGE = range(700, 705)
KEY = ("BTCUSDT", "1h")


def build(now=NOW):
    """Hours over two whole months and a begun one; µs in the archive from 2025 on; an outage; one month too short."""
    exchange = Exchange({KEY: made_up_rows("2024-10-20", "1h", 24 * 91, missing=OUTAGE)}, now)
    exchange.publish(*KEY, "monthly", "2024-10")
    exchange.publish(*KEY, "monthly", "2024-11", header=True)
    exchange.publish(*KEY, "monthly", "2024-12")
    for day in pd.date_range("2024-12-01", "2025-01-17"):
        exchange.publish(*KEY, "daily", f"{day:%Y-%m-%d}", microseconds=day.year == 2025)
    return exchange


@pytest.fixture
def exchange():
    served = build()
    yield served
    served.close()


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """The files of a download that nothing disturbed."""
    served, path = build(), tmp_path_factory.mktemp("undisturbed") / "BTCUSDT_1h.csv"
    fetch(served, path)
    served.close()
    return files(path)


def fetch(exchange, path, now=None, start=None, end=None, **changes):
    return download(*KEY, path, exchange.endpoints(**changes), start, end, now or exchange.now)


def files(path):
    return path.read_bytes(), path.with_suffix(".parquet").read_bytes()


def truth(exchange, now=NOW):
    return [r for r in exchange.series[KEY] if r[6] < now.timestamp() * 1000]


def assert_true(path, exchange, now=NOW):
    """Every closed candle once, in order, with the exchange's own figures."""
    frame, rows = pd.read_csv(path), truth(exchange, now)
    assert list(frame.columns) == ["timestamps", "open", "high", "low", "close", "volume", "amount"]
    assert pd.to_datetime(frame["timestamps"]).astype("int64").floordiv(10**3).tolist() == [r[0] for r in rows]
    for i, name in enumerate(["open", "high", "low", "close", "volume"]):
        assert frame[name].tolist() == [float(r[i + 1]) for r in rows]
    assert frame["amount"].tolist() == [float(r[7]) for r in rows]


@pytest.mark.parametrize("source", ["auto", "rest"])
def test_a_full_download_holds_every_closed_candle_once(exchange, tmp_path, source):
    done = fetch(exchange, tmp_path / "x.csv", source=source)
    assert_true(done.path, exchange)
    assert done.manifest["candles"] == len(truth(exchange))
    assert done.manifest["gaps"] == [{"from": "2024-11-18 04:00:00", "to": "2024-11-18 09:00:00", "candles": 5}]


def test_csv_and_parquet_hold_the_same_and_can_be_trained_on(exchange, tmp_path):
    path = fetch(exchange, tmp_path / "x.csv").path
    text, binary = (read_candles(p, "1h", "X") for p in (path, path.with_suffix(".parquet")))
    assert text.fingerprint == binary.fingerprint
    assert len(text.gaps) == 1


def test_archive_and_api_give_byte_identical_files(exchange, tmp_path, undisturbed):
    assert files(fetch(exchange, tmp_path / "x.csv", source="rest").path) == undisturbed


def test_months_come_from_monthly_files_then_days_then_the_api_once(exchange, tmp_path):
    done = fetch(exchange, tmp_path / "x.csv")
    kinds = {p["name"]: p["kind"] for p in done.manifest["pieces"]}
    assert kinds["BTCUSDT-1h-2024-12"] == "monthly"
    assert kinds["BTCUSDT-1h-2025-01-17"] == "daily"
    assert kinds["api-2025-01-18T000000"] == "api"
    assert sum("klines?" in path for path in exchange.asked) == 3  # the listing, the day that runs, the outage
    assert not any("2024-12-0" in path or "2017" in path for path in exchange.asked)


def test_the_archive_alone_ends_with_its_last_day(exchange, tmp_path):
    with pytest.raises(DownloadError, match=r"holds 2024-10-20 00:00:00 \.\. 2025-01-17 23:00:00; .* source=auto"):
        fetch(exchange, tmp_path / "x.csv", source="archive", start="2024-10-20")
    done = fetch(exchange, tmp_path / "x.csv", source="archive", start="2024-10-20", end="2025-01-17")
    assert done.manifest["last"] == "2025-01-17 23:00:00"
    assert not any("/api/" in path for path in exchange.asked)


def test_a_second_run_asks_for_nothing_and_leaves_the_files_alone(exchange, tmp_path):
    path = fetch(exchange, tmp_path / "x.csv").path
    before, exchange.asked[:] = [p.stat().st_mtime_ns for p in sorted(tmp_path.iterdir())], []
    again = fetch(exchange, path)
    assert exchange.asked == []
    assert (again.pieces, again.requests) == (0, 0)
    assert [p.stat().st_mtime_ns for p in sorted(tmp_path.iterdir())] == before


@pytest.mark.parametrize("source", ["auto", "rest"])
def test_an_update_fetches_what_is_new_and_gives_what_one_run_would(exchange, tmp_path, undisturbed, source):
    path, early = tmp_path / "x.csv", pd.Timestamp("2024-12-20 07:10", tz="UTC")
    exchange.now = early
    fetch(exchange, path, source=source)
    assert_true(path, exchange, early)
    exchange.now, exchange.asked[:] = NOW, []
    fetch(exchange, path, source=source)
    assert files(path) == undisturbed
    assert not any("2024-10" in asked or "2024-11" in asked for asked in exchange.asked)


def test_an_earlier_start_and_a_later_end_are_added(exchange, tmp_path, undisturbed):
    path = tmp_path / "x.csv"
    fetch(exchange, path, start="2024-12-24", end="2024-12-26")
    assert pd.read_csv(path)["timestamps"].iloc[[0, -1]].tolist() == ["2024-12-24 00:00:00", "2024-12-26 23:00:00"]
    fetch(exchange, path, start="2025-01-10")  # what lies between is fetched as well
    fetch(exchange, path, start="2017-01-01")
    assert files(path) == undisturbed


def test_an_unfinished_candle_is_left_out_even_if_the_clock_here_is_ahead(exchange, tmp_path, undisturbed):
    path = tmp_path / "x.csv"
    fetch(exchange, path, now=NOW + pd.Timedelta("7h"))
    assert files(path) == undisturbed
    exchange.now = NOW + pd.Timedelta("2h")
    fetch(exchange, path)
    assert_true(path, exchange, exchange.now)


def test_a_month_published_too_short_is_filled_by_the_api(exchange, tmp_path, undisturbed):
    (path,) = [p for p in exchange.archive if p.endswith("2024-12.zip")]
    rows = truth(exchange)
    whole, exchange.series[KEY] = exchange.series[KEY], rows[:1200] + rows[1250:1700]
    exchange.publish(*KEY, "monthly", "2024-12")
    exchange.series[KEY] = whole
    assert exchange.archive[path] is not None
    assert files(fetch(exchange, tmp_path / "x.csv").path) == undisturbed


def test_a_gap_is_asked_about_once(exchange, tmp_path):
    path = fetch(exchange, tmp_path / "x.csv", source="archive", start="2024-10-20", end="2025-01-17").path
    exchange.asked[:] = []
    fetch(exchange, path, end="2025-01-17")
    assert sum("klines?" in asked for asked in exchange.asked) == 1
    exchange.asked[:] = []
    fetch(exchange, path, end="2025-01-17")
    assert exchange.asked == []


# --- faults -----------------------------------------------------------------------------------------------------


def first_times(count, fault, only=""):
    """The fault for the first `count` times that a path is asked for."""
    return lambda path, before: fault if before < count and only in path else None


LIMITED = (429, {"Retry-After": "0"}, b'{"code":-1003,"msg":"Too many requests."}')
BANNED = (418, {"Retry-After": "0"}, b'{"code":-1003,"msg":"Banned."}')


@pytest.mark.parametrize(
    "fault",
    [
        first_times(3, 500),
        first_times(2, 503),
        first_times(2, CUT),
        first_times(2, LIMITED),
        first_times(2, BANNED),
        first_times(1, (200, {}, b""), only=".zip"),
        first_times(1, SLOW, only="2024-12.zip"),
        lambda path, before: (
            random.Random(path + str(before)).choice([None, 500, CUT, LIMITED]) if before < 4 else None
        ),
    ],
    ids=["500", "503", "cut", "429", "418", "empty", "slow", "all sorts"],
)
def test_faults_that_pass_change_nothing(exchange, tmp_path, undisturbed, fault):
    exchange.fault = fault
    assert files(fetch(exchange, tmp_path / "x.csv", read_timeout=0.5).path) == undisturbed


def damage(exchange, name, how):
    (path,) = [p for p in exchange.archive if p.endswith(f"{name}.zip")]
    how(exchange, path)


def other_content(exchange, path):
    exchange.archive[path] = zipped("x.csv", "1,2,3\n")


def cut_short(exchange, path):
    exchange.put(path, exchange.archive[path][:-500])  # and its checksum fits


def another_month(exchange, path):
    exchange.put(path, exchange.archive[path.replace("2024-12", "2024-11")])


def no_numbers(exchange, path):
    exchange.put(path, zipped("x.csv", "1733011200000," + "a," * 10 + "0\n"))


def missing(exchange, path):
    del exchange.archive[path], exchange.archive[f"{path}.CHECKSUM"]


@pytest.mark.parametrize("how", [other_content, cut_short, another_month, no_numbers, missing])
def test_a_bad_or_missing_month_is_replaced_by_its_days(exchange, tmp_path, undisturbed, how):
    damage(exchange, "2024-12", how)
    done = fetch(exchange, tmp_path / "x.csv")
    assert files(done.path) == undisturbed
    assert "BTCUSDT-1h-2024-12-31" in {p["name"] for p in done.manifest["pieces"]}


def test_a_bad_day_is_replaced_by_the_api(exchange, tmp_path, undisturbed):
    damage(exchange, "2025-01-07", cut_short)
    assert files(fetch(exchange, tmp_path / "x.csv").path) == undisturbed


def test_a_bad_file_in_the_archive_alone_stops_before_the_hole_and_goes_on_when_it_is_mended(exchange, tmp_path):
    (path,) = [p for p in exchange.archive if p.endswith("2025-01-07.zip")]
    whole = exchange.archive[path]
    exchange.archive[path] = whole[:-9]
    target = {"source": "archive", "start": "2024-10-20", "end": "2025-01-17"}
    with pytest.raises(DownloadError, match=r"holds .* 2025-01-06 23:00:00; .*2025-01-07.zip: damaged, its checksum"):
        fetch(exchange, tmp_path / "x.csv", **target)
    exchange.archive[path], exchange.asked[:] = whole, []
    assert fetch(exchange, tmp_path / "x.csv", **target).manifest["last"] == "2025-01-17 23:00:00"
    assert {asked.split("/")[-1] for asked in exchange.asked} == {p.split("/")[-1] for p in (path, path + ".CHECKSUM")}


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ((451, {}, b'{"code":0,"msg":"Service unavailable from a restricted location"}'), "data-api.*source=archive"),
        ((403, {}, b"<html>"), "firewall"),
        ((418, {"Retry-After": "259200"}, b"{}"), "banned.*asks to wait 259200 s"),
        ((200, {}, b"<html>hello</html>"), "is rest_url right"),
        ((500, {}, b""), r"no answer after 5 attempts \(status 500"),
    ],
)
def test_what_the_api_refuses_is_told_and_the_archive_is_kept(exchange, tmp_path, answer, words):
    exchange.fault = lambda path, before: answer if "/api/" in path else None
    path = tmp_path / "x.csv"
    with pytest.raises(DownloadError, match=f"holds 2024-10-20 .*2025-01-17 23:00:00; .*{words}"):
        fetch(exchange, path, start="2024-10-20")
    exchange.fault = lambda path, before: None
    fetch(exchange, path)
    assert_true(path, exchange)


@pytest.mark.parametrize(
    ("symbol", "interval", "words"), [("BTCUSD", "1h", "symbol.*-1121"), ("BTCUSDT", "2h", "interval.*-1120")]
)
def test_unknown_symbols_and_intervals_are_named(exchange, tmp_path, symbol, interval, words):
    with pytest.raises(DownloadError, match=words):
        download(symbol, interval, tmp_path / "x.csv", exchange.endpoints(source="rest"), now=NOW)


def test_nobody_at_home_ends_soon_and_names_host_and_ways_out(tmp_path, exchange):
    exchange.close()
    began = time.monotonic()
    with pytest.raises(DownloadError, match=r"no answer after 3 attempts \(.*refused.*HTTPS_PROXY"):
        fetch(exchange, tmp_path / "x.csv", retries=2, start="2018-01-01")
    assert time.monotonic() - began < 10


def test_retry_after_is_waited_for_by_every_thread(exchange, tmp_path):
    exchange.fault = lambda path, before: (429, {"Retry-After": "1"}, b"{}") if len(exchange.asked) == 1 else None
    began = time.monotonic()
    fetch(exchange, tmp_path / "x.csv", source="rest")
    assert time.monotonic() - began >= 1


def test_a_used_up_weight_is_waited_out(exchange, tmp_path, monkeypatch):
    monkeypatch.setattr("kronos_lightning.data.binance.http.time.time", lambda: 59.5)  # half a second to the minute
    began = time.monotonic()
    fetch(exchange, tmp_path / "x.csv", source="rest", weight_per_minute=2, parallel=1)
    assert time.monotonic() - began >= 1


def test_a_proxy_is_asked_instead(exchange, tmp_path):
    with pytest.raises(DownloadError, match="no answer"):
        fetch(exchange, tmp_path / "x.csv", source="rest", retries=0, proxy="http://127.0.0.1:9")
    assert exchange.asked == []


def test_connecting_and_reading_have_their_own_time_outs(exchange, tmp_path, monkeypatch):
    seen, get = set(), requests.Session.get
    monkeypatch.setattr(requests.Session, "get", lambda *a, timeout, **k: seen.add(timeout) or get(*a, **k))
    fetch(exchange, tmp_path / "x.csv", source="rest", connect_timeout=1.5, read_timeout=7.0)
    assert seen == {(1.5, 7.0)}


def test_retries_wait_twice_as_long_each_time_with_jitter(exchange, tmp_path, monkeypatch):
    waits, wait = [], threading.Event.wait
    monkeypatch.setattr(threading.Event, "wait", lambda self, seconds=None: waits.append(seconds) or wait(self, 0))
    exchange.fault = first_times(3, 500, only="/api/")
    fetch(exchange, tmp_path / "x.csv", source="rest", backoff=8.0, parallel=1)
    slept = [seconds for seconds in waits if seconds and seconds >= 4]
    assert len(slept) == 3
    assert all(0.5 <= seconds / usual <= 1.5 for seconds, usual in zip(slept, (8, 16, 32), strict=True))
    assert all(seconds / usual != 1.0 for seconds, usual in zip(slept, (8, 16, 32), strict=True))


@pytest.mark.parametrize("parallel", [1, 3])
def test_no_more_requests_are_under_way_than_allowed(exchange, tmp_path, parallel):
    under_way, most, lock = [0], [0], threading.Lock()

    def count(path, before):
        with lock:
            under_way[0] += 1
            most[0] = max(most[0], under_way[0])
        time.sleep(0.02)
        with lock:
            under_way[0] -= 1

    exchange.fault = count
    fetch(exchange, tmp_path / "x.csv", parallel=parallel)
    assert most[0] == parallel


# --- interruptions ----------------------------------------------------------------------------------------------


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
        assert set(path.parent.iterdir()) - {path.with_name(f".{path.name}.lock")} == set(series_files(path))
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

    monkeypatch.setattr("kronos_lightning.data.binance.series.write_csv", full)
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


def test_a_damaged_part_is_fetched_anew(exchange, tmp_path, undisturbed):
    path = tmp_path / "x.csv"
    killed_after(exchange, path, 25, 0.05)
    part = next((tmp_path / ".x.parts").glob("BTC*.parquet"))
    part.write_bytes(part.read_bytes()[:100])
    fetch(exchange, path)
    assert files(path) == undisturbed


@pytest.mark.parametrize("source", ["auto", "archive", "rest"])
def test_weeks_are_asked_for_by_the_month_and_begin_on_mondays(exchange, tmp_path, source):
    key = "BTCUSDT", "1w"
    exchange.series[key] = made_up_rows("2024-10-07", "1w", 15)
    for month in ("2024-10", "2024-11", "2024-12"):
        exchange.publish(*key, "monthly", month)
    path, end = tmp_path / "w.csv", "2024-12-31" if source == "archive" else None
    done = download(*key, path, exchange.endpoints(source=source), "2024-10-01", end, NOW)
    assert done.manifest["last"] == ("2024-12-30 00:00:00" if source == "archive" else "2025-01-06 00:00:00")
    assert not any("/daily/" in asked for asked in exchange.asked)
    exchange.asked[:] = []
    download(*key, path, exchange.endpoints(source=source), "2024-10-01", end, NOW)
    assert exchange.asked == []


def test_two_downloads_of_one_series_at_a_time_do_not_disturb_each_other(exchange, tmp_path, undisturbed):
    path = tmp_path / "x.csv"
    threads = [threading.Thread(target=fetch, args=(exchange, path)) for _ in range(3)]
    [t.start() for t in threads]
    [t.join() for t in threads]
    assert files(path) == undisturbed
    assert max(exchange.times.values()) <= 3  # klines; archive files once


# --- time -------------------------------------------------------------------------------------------------------


@given(st.sampled_from(INTERVALS), st.integers(1_500_000_000_000, 1_900_000_000_000))
def test_a_floor_is_a_possible_open_time_at_or_before(interval, time):
    assert floor(interval, time) <= time
    assert floor(interval, floor(interval, time)) == floor(interval, time)
    if interval not in ("1M", "3d"):
        assert time - floor(interval, time) < grid(interval)
        assert closed_before(interval, time) == floor(interval, time)


def test_weeks_begin_on_mondays_and_months_on_the_first():
    now = to_ms("2024-05-16 13:00")
    assert floor("1w", now) == to_ms("2024-05-13")
    assert floor("1M", now) == to_ms("2024-05-01")
    assert closed_before("3d", now) == to_ms("2024-05-14")  # one that opened on the 14th may still run
    assert months((to_ms("2023-12-31 23:00"), to_ms("2024-02-01"))) == [
        (to_ms("2023-12-01"), to_ms("2024-01-01")),
        (to_ms("2024-01-01"), to_ms("2024-02-01")),
    ]


ranges = st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30)), max_size=6)


@given(ranges, st.tuples(st.integers(0, 30), st.integers(0, 30)))
def test_what_is_missing_and_what_is_known_share_out_the_time(known, span):
    def points(spans):
        return {t for begin, end in spans for t in range(begin, end)}

    assert points(without(span, known)) == points([span]) - points(known)
    assert points(union(known)) == points(known)
    merged = union(known)
    assert all(a[1] < b[0] for a, b in itertools.pairwise(merged))


# --- the command ------------------------------------------------------------------------------------------------


def test_the_command_fetches_several_symbols_and_tells_what_there_is(tmp_path):
    served = build(now=None)
    for symbol in ("BTCUSDT", "ETHUSDT"):
        served.series[symbol, "1d"] = made_up_rows("2024-01-01", "1d", 90, seed=len(symbol))
        served.publish(symbol, "1d", "monthly", "2024-02")
    hosts = [f"archive_url={served.url}", f"rest_url={served.url}"]
    wanted = ["symbol=BTCUSDT,ETHUSDT", "interval=1d", "start=2024-01-10", "end=2024-03-10"]
    first = command("kronos_lightning.data.binance", *wanted, *hosts, cwd=tmp_path)
    assert "csv/ETHUSDT_1d.csv" in first.stdout
    assert len(pd.read_csv(tmp_path / "csv" / "BTCUSDT_1d.csv")) == 61
    again = command("kronos_lightning.data.binance", *wanted, *hosts, cwd=tmp_path)
    assert again.stdout.count("up to date") == 2
    wanted[0] = "symbol=NONE,BTCUSDT"
    bad = command("kronos_lightning.data.binance", *wanted, *hosts, "csv_dir=mine", cwd=tmp_path, check=False)
    served.close()
    assert bad.returncode == 1
    assert "-1121" in bad.stderr
    assert (tmp_path / "mine" / "BTCUSDT_1d.csv").is_file()
    assert "Traceback" not in bad.stderr


def test_manifest_names_sources_and_checksums(exchange, tmp_path):
    path = fetch(exchange, tmp_path / "x.csv").path
    manifest = json.loads(path.with_suffix(".manifest.json").read_text())
    pieces = {p["name"]: p for p in manifest["pieces"]}
    published = exchange.archive["/data/spot/monthly/klines/BTCUSDT/1h/BTCUSDT-1h-2024-12.zip.CHECKSUM"].split()[0]
    assert pieces["BTCUSDT-1h-2024-12"]["checksum"] == published.decode()
    assert pieces["BTCUSDT-1h-2024-12"]["candles"] == 744
    assert sum(p["candles"] for p in manifest["pieces"]) >= manifest["candles"]
    assert np.diff([to_ms(t) for t in manifest["covered"][0]]) > 0
    assert STEPS["1h"] == grid("1h")
