"""Candles of other exchanges through ccxt, against a local server that answers as OKX does."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

import numpy as np
import pandas as pd
import pytest

from kronos_lightning.data import CandleError
from kronos_lightning.data.formats import FEATURES, PRICES
from kronos_lightning.data.sources import Ccxt, DownloadError
from tests.helpers.layouts import candles, epochs

ccxt = pytest.importorskip("ccxt")
HOURS = candles(1000, start="2023-01-01")
INSTRUMENT = {
    "instType": "SPOT", "instId": "BTC-USDT", "baseCcy": "BTC", "quoteCcy": "USDT", "state": "live",
    "tickSz": "0.1", "lotSz": "0.00001", "minSz": "0.0001", "listTime": "1500000000000",
}  # fmt: skip


class Okx(BaseHTTPRequestHandler):
    """Answers instruments and candles; `failures` requests for candles fail first."""

    def do_GET(self):
        url = urlsplit(self.path)
        query = {key: values[0] for key, values in parse_qs(url.query).items()}
        if url.path.endswith("/instruments"):
            return self.answer([INSTRUMENT] if query["instType"] == "SPOT" else [])
        self.server.requests.append(query)
        if len(self.server.requests) in self.server.failing:
            return self.send_error(503)
        time = epochs(HOURS, "ms")
        rows = HOURS[(time > int(query["before"])) & (time < int(query["after"]))].tail(int(query["limit"]))
        numbers = rows[[*PRICES, "volume"]].to_numpy()
        values = [[str(t), *map(str, row), "0", "0", "1"] for t, row in zip(epochs(rows, "ms"), numbers, strict=True)]
        return self.answer(values[::-1])

    def answer(self, data):
        body = json.dumps({"code": "0", "msg": "", "data": data}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Okx)
    server.requests, server.failing = [], set()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()


@pytest.fixture
def source(server, tmp_path):
    address = f"http://127.0.0.1:{server.server_port}"
    options = {"urls": {"api": {"rest": address}}, "rateLimit": 1, "options": {"fetchMarkets": {"types": ["spot"]}}}
    return Ccxt(
        csv_dir=str(tmp_path), exchange="okx", options=options, retries=2, backoff_seconds=0.01, timeout_seconds=5
    )


def test_an_exchange_of_ccxt_is_a_source_of_candles(source, tmp_path):
    raw = source.fetch("BTCUSDT", "1h", "2023-01-01", "2023-01-31")
    expected = HOURS.iloc[: 31 * 24]
    assert raw["timestamps"].tolist() == expected["timestamps"].tolist()
    np.testing.assert_allclose(raw[[*PRICES, "volume"]], expected[[*PRICES, "volume"]])
    np.testing.assert_allclose(raw["amount"], raw["volume"] * raw[PRICES].mean(axis=1))
    manifest = json.loads((tmp_path / "okx" / "BTCUSDT_1h.manifest.json").read_text())
    assert manifest["candles"] == len(expected)
    assert set(raw) == {"timestamps", *FEATURES}


def test_a_file_that_exists_is_not_downloaded_again(source, server):
    source.fetch("BTCUSDT", "1h", "2023-01-01", "2023-01-31")
    asked = len(server.requests)
    source.fetch("BTCUSDT", "1h", "2023-01-01", "2023-01-31")
    assert len(server.requests) == asked


def test_an_interrupted_download_continues_where_it_was(source, server):
    server.failing = {3, 4, 5}
    with pytest.raises(DownloadError, match="okx cannot be reached after 3 attempts: ExchangeNotAvailable"):
        source.fetch("BTCUSDT", "1h", "2023-01-01", "2023-01-31")
    before = len(server.requests)
    raw = source.fetch("BTCUSDT", "1h", "2023-01-01", "2023-01-31")
    assert len(raw) == 31 * 24
    assert int(server.requests[before]["before"]) >= epochs(HOURS, "ms")[400] - 1  # two pages were kept


def test_a_failure_that_passes_is_not_noticed(source, server):
    server.failing = {1, 3}
    assert len(source.fetch("BTCUSDT", "1h", "2023-01-01", "2023-01-31")) == 31 * 24


NEW_YEAR = pd.Timestamp("2023-01-01", tz="UTC").value // 10**6


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ({"a": 1}, "not a list of candles"),
        ([[NEW_YEAR, 1, 1, 1, 1, 1]] * 100_000, "holds more than"),
        ([[NEW_YEAR, "x", 1, 1, 1, 1]], "holds no candles"),
        ([[NEW_YEAR, 1, 1]], "holds no candles"),
        ([[NEW_YEAR, 1, 1, 1, 1, float("nan")]], "not finite"),
        ([[NEW_YEAR + i, 1, 1, 1, 1, 1] for i in range(100)], "shorter than asked for"),
        ([[NEW_YEAR - 1, 1, 1, 1, 1, 1]], "has no candle"),
    ],
)
def test_what_no_honest_exchange_answers_is_told_after_few_requests(source, monkeypatch, rows, message):
    asked = []
    monkeypatch.setattr(ccxt.okx, "fetch_ohlcv", lambda *arguments: asked.append(arguments) or rows)
    with pytest.raises(DownloadError, match=message):
        source.fetch("BTCUSDT", "1h", "2023-01-01", "2023-01-31")
    assert len(asked) < 10


@pytest.mark.parametrize(
    ("symbol", "interval", "start", "message"),
    [
        ("BTCEUR", "1h", "2023-01-01", "no spot market BTCEUR; it has BTC/USDT"),
        ("BTCUSDT", "8h", "2023-01-01", "okx has no candles of 8h; it has 1m"),
        ("BTCUSDT", "1h", None, "set data.dataset_begin_time"),
        ("BTCUSDT", "1h", "2024-06-01", "okx has no candle of BTCUSDT 1h from 2024-06-01 on"),
    ],
)
def test_what_an_exchange_does_not_have_is_said(source, symbol, interval, start, message):
    with pytest.raises(DownloadError, match=message):
        source.fetch(symbol, interval, start, "2024-06-03" if start == "2024-06-01" else None)


def test_an_exchange_must_be_named_and_known(source):
    with pytest.raises(CandleError, match=r"data\.exchange=okx"):
        source.model_copy(update={"exchange": None}).path("BTCUSDT", "1h")
    with pytest.raises(DownloadError, match=r"ccxt does not know 'okex'; it knows .*okx"):
        source.model_copy(update={"exchange": "okex"}).fetch("BTCUSDT", "1h", "2023-01-01", None)


def test_the_files_of_two_exchanges_are_kept_apart(source):
    other = source.model_copy(update={"exchange": "bybit"})
    assert source.path("BTCUSDT", "1h") != other.path("BTCUSDT", "1h")
    assert pd.Series([source.path("BTCUSDT", "1h").parent.name])[0] == "okx"
