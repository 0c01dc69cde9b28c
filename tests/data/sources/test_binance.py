"""Downloading: complete, checked, up to date. The exchange is a local one (`exchange.py`)."""

import json

import numpy as np
import pandas as pd
import pytest

from kronos_lightning.data import read_candles
from kronos_lightning.data.sources.binance import DownloadError, download
from kronos_lightning.data.sources.binance.intervals import to_ms
from tests.helpers.commands import command
from tests.helpers.exchange import (
    KEY,
    NOW,
    assert_true,
    build,
    fetch,
    files,
    made_up_rows,
    truth,
)


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
    before, exchange.asked[:] = [p.stat().st_mtime_ns for p in sorted(tmp_path.glob("[!.]*"))], []
    again = fetch(exchange, path)
    assert exchange.asked == []
    assert (again.pieces, again.requests) == (0, 0)
    assert [p.stat().st_mtime_ns for p in sorted(tmp_path.glob("[!.]*"))] == before


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
