"""Downloading from an exchange that fails, refuses, limits and lies."""

import random
import threading
import time

import pytest
import requests

from kronos_lightning.data.sources.binance import DownloadError, download
from tests.helpers.clock import Clock
from tests.helpers.exchange import (
    CUT,
    NOW,
    SLOW,
    assert_true,
    fetch,
    files,
    zipped,
)


@pytest.fixture
def clock(monkeypatch):
    return Clock(monkeypatch)


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
def test_faults_that_pass_change_nothing(exchange, tmp_path, undisturbed, request, fault):
    if "slow" not in request.node.name:  # the exchange itself takes its time there
        request.getfixturevalue("clock")
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
    ("answer", "message"),
    [
        ((451, {}, b'{"code":0,"msg":"Service unavailable from a restricted location"}'), "data-api.*source=archive"),
        ((403, {}, b"<html>"), "firewall"),
        ((418, {"Retry-After": "259200"}, b"{}"), "banned.*asks to wait 259200 s"),
        ((200, {}, b"<html>hello</html>"), "check rest_url"),
        ((500, {}, b""), r"no answer after 5 attempts \(status 500"),
    ],
)
def test_what_the_api_refuses_is_told_and_the_archive_is_kept(exchange, tmp_path, answer, message):
    exchange.fault = lambda path, before: answer if "/api/" in path else None
    path = tmp_path / "x.csv"
    with pytest.raises(DownloadError, match=f"holds 2024-10-20 .*2025-01-17 23:00:00; .*{message}"):
        fetch(exchange, path, start="2024-10-20")
    exchange.fault = lambda path, before: None
    fetch(exchange, path)
    assert_true(path, exchange)


@pytest.mark.parametrize(
    ("symbol", "interval", "message"), [("BTCUSD", "1h", "symbol.*-1121"), ("BTCUSDT", "2h", "interval.*-1120")]
)
def test_unknown_symbols_and_intervals_are_named(exchange, tmp_path, symbol, interval, message):
    with pytest.raises(DownloadError, match=message):
        download(symbol, interval, tmp_path / "x.csv", exchange.endpoints(source="rest"), now=NOW)


def test_nobody_at_home_ends_soon_and_names_host_and_ways_out(tmp_path, exchange, clock, monkeypatch):
    """Each thread tries each of the two services three times, however many months are wanted."""
    attempts, get = [], requests.Session.get
    monkeypatch.setattr(requests.Session, "get", lambda self, url, **k: attempts.append(url) or get(self, url, **k))
    exchange.close()
    with pytest.raises(DownloadError, match=r"no answer after 3 attempts \(.*refused.*HTTPS_PROXY"):
        fetch(exchange, tmp_path / "x.csv", retries=2, start="2018-01-01", backoff=1.0, parallel_requests=4)
    assert 3 <= len(attempts) <= 2 * 4 * 3
    assert max(clock.waits) <= 2 * 1.5
    assert len([seconds for seconds in clock.waits if seconds]) <= 2 * 4 * 2


def test_retry_after_is_waited_for_by_every_thread(exchange, tmp_path, clock):
    asked_at = []

    def limited_once(path, before):
        asked_at.append(clock.now)
        return (429, {"Retry-After": "1"}, b"{}") if len(asked_at) == 1 else None

    exchange.fault = limited_once
    fetch(exchange, tmp_path / "x.csv", source="rest")
    assert len(asked_at) > 2
    assert all(time >= asked_at[0] + 1 for time in asked_at[1:])


def test_a_used_up_weight_is_waited_out(exchange, tmp_path, clock):
    """One request uses up the weight of a minute, so that each has a minute of its own."""
    clock.now, minutes = 59.5, []
    exchange.fault = lambda path, before: minutes.append(clock.now // 60)
    fetch(exchange, tmp_path / "x.csv", source="rest", weight_per_minute=2, parallel_requests=1)
    assert len(minutes) > 2
    assert minutes == list(range(len(minutes)))


def test_a_proxy_is_asked_instead(exchange, tmp_path):
    with pytest.raises(DownloadError, match="no answer"):
        fetch(exchange, tmp_path / "x.csv", source="rest", retries=0, proxy="http://127.0.0.1:9")
    assert exchange.asked == []


def test_connecting_and_reading_have_their_own_time_outs(exchange, tmp_path, monkeypatch):
    seen, get = set(), requests.Session.get
    monkeypatch.setattr(requests.Session, "get", lambda *a, timeout, **k: seen.add(timeout) or get(*a, **k))
    fetch(exchange, tmp_path / "x.csv", source="rest", connect_timeout=1.5, read_timeout=7.0)
    assert seen == {(1.5, 7.0)}


def test_retries_wait_twice_as_long_each_time_with_jitter(exchange, tmp_path, clock):
    exchange.fault = first_times(3, 500, only="/api/")
    fetch(exchange, tmp_path / "x.csv", source="rest", backoff=8.0, parallel_requests=1)
    slept = [seconds for seconds in clock.waits if seconds]
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
    fetch(exchange, tmp_path / "x.csv", parallel_requests=parallel)
    assert most[0] == parallel
