"""Answers that no honest exchange gives: each ends in one sentence, after bounded time and memory."""

import io
import json
import zipfile

import pytest

from kronos_lightning.data.sources.binance import DownloadError
from kronos_lightning.data.sources.binance import http as client
from kronos_lightning.data.sources.binance.candle_table import DamagedError, from_rest, from_zip
from tests.helpers.clock import Clock
from tests.helpers.exchange import fetch, zipped

SPAN = (0, 10**12)


@pytest.fixture
def clock(monkeypatch):
    return Clock(monkeypatch)


@pytest.mark.parametrize("wait", ["0", "-5", "nan", "inf", "-inf", "1e-300", "x", "", "Fri, 01 Jan 1999 00:00:00 GMT"])
def test_no_wait_makes_the_client_hammer_or_hang(exchange, tmp_path, clock, wait):
    exchange.fault = lambda path, before: (429, {"Retry-After": wait}, b"{}")
    with pytest.raises(DownloadError, match="the exchange asks to wait"):
        fetch(exchange, tmp_path / "x.csv", source="rest", longest_wait_seconds=1e6, parallel_requests=1)
    assert len(exchange.asked) <= 2 * (client.MOST_WAITS + 1)
    assert all(seconds >= 0.9 for seconds in clock.waits if seconds)


def test_a_wait_of_ages_is_an_error_at_once(exchange, tmp_path, clock):
    exchange.fault = lambda path, before: (429, {"Retry-After": "1e308"}, b"{}")
    with pytest.raises(DownloadError, match=r"asks to wait 1e\+308 s"):
        fetch(exchange, tmp_path / "x.csv", source="rest", parallel_requests=1)
    assert not any(clock.waits)


def row(opened, **changes):
    cells = [opened, "1", "1", "1", "1", "1", opened + 1, "1", 1, "1", "1", "0"]
    for place, value in changes.items():
        cells[int(place[1:])] = value
    return cells


def test_an_exchange_that_answers_for_ever_is_not_asked_for_ever(exchange, tmp_path):
    def endless(path, before):
        if "/api/" not in path:
            return None
        begin = 1_700_000_000_000 + before * 1000
        return 200, {}, json.dumps([row(begin + i) for i in range(1000)]).encode()

    exchange.fault = endless
    with pytest.raises(DownloadError):
        fetch(exchange, tmp_path / "x.csv", source="rest", parallel_requests=1, start="2025-01-01", end="2025-01-03")
    assert len(exchange.asked) < 40


@pytest.mark.parametrize(
    "rows",
    [
        [row(1)] * 1001, [[None] * 12], [row(1, c6="x")], [row(1, c0=True)], [row(1, c0=10**30)],
        [row(1.5)], [row(1, c6=None)], {"a": 1}, [{}], [[]], [row(1, c0="1")],
    ],
)  # fmt: skip
def test_odd_rows_are_told(exchange, tmp_path, rows):
    exchange.fault = lambda path, before: (200, {}, json.dumps(rows).encode()) if "/api/" in path else None
    with pytest.raises(DownloadError, match=r"not a list of candles|were asked for|outside"):
        fetch(exchange, tmp_path / "x.csv", source="rest", start="2025-01-01", end="2025-01-03")


@pytest.mark.parametrize("value", ["nan", "inf", "1e999", None, [], "x", 10**400])
def test_values_that_are_no_finite_numbers_are_damage(value):
    with pytest.raises(DamagedError):
        from_rest([row(1, c1=value)], SPAN)


def test_a_body_without_end_is_not_read_to_its_end(exchange, tmp_path, monkeypatch):
    monkeypatch.setattr(client, "LARGEST", 1000)
    monkeypatch.setattr(client.Client.get, "__defaults__", (1000,))
    exchange.fault = lambda path, before: (200, {}, b" " * 10**6) if "/api/" in path else None
    with pytest.raises(DownloadError, match="more than 1000 bytes"):
        fetch(exchange, tmp_path / "x.csv", source="rest", start="2025-01-01", end="2025-01-03")


def encrypted():
    content = bytearray(zipped("x.csv", "1,2\n"))
    content[6] |= 1  # flag of the file
    content[content.index(b"PK\x01\x02") + 8] |= 1  # and of the directory
    return bytes(content)


def several():
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("a", "1")
        archive.writestr("b", "2")
    return buffer.getvalue()


@pytest.mark.parametrize("content", [encrypted(), several(), b"", b"PK\x03\x04", zipped("x.csv", "1," * 10**6)])
def test_odd_archives_are_damage(content):
    with pytest.raises(DamagedError):
        from_zip(content, SPAN, 10)


def test_an_encrypted_archive_stops_with_one_sentence(exchange, tmp_path):
    for path in [path for path in exchange.archive if path.endswith(".zip")]:
        exchange.put(path, encrypted())
    with pytest.raises(DownloadError, match="encrypted"):
        fetch(exchange, tmp_path / "x.csv", source="archive", start="2025-01-01", end="2025-01-03")
