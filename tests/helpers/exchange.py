"""A small Binance on this machine: the archive's folders and the API's candles over HTTP, with faults on demand."""

import hashlib
import io
import json
import threading
import time
import zipfile
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

import numpy as np
import pandas as pd

from kronos_lightning.data.sources.binance import Endpoints, download

STEPS = {"1m": 60_000, "15m": 900_000, "1h": 3_600_000, "1d": 86_400_000, "1w": 7 * 86_400_000}
CUT = "cut"  # a fault: the connection breaks in the middle of the body
SLOW = "slow"  # a fault: the body trickles in


class Exchange:
    """Serves the candles of `series` ({(symbol, interval): rows of 12 columns}) as Binance does.

    archive: path → bytes of what the archive holds; tests add to it and take from it.
    fault: called with (path, how often it was asked for before); None = answer truly, else a status, a (status,
    headers, body) or CUT or SLOW.
    asked: every path with its query, in order.
    """

    def __init__(self, series, now=None):
        self.series, self.now = series, now
        self.archive, self.fault, self.asked, self.times = {}, lambda path, before: None, [], Counter()
        exchange = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            wbufsize = -1  # headers and body in one packet
            disable_nagle_algorithm = True

            def do_GET(self):
                exchange._answer(self)

            def date_time_string(self, timestamp=None):
                return super().date_time_string(exchange.now.timestamp() if exchange.now else timestamp)

            def log_message(self, *_):
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, *_):
                pass  # clients that are killed

        self.server = Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def close(self):
        self.server.shutdown()
        self.server.server_close()

    def endpoints(self, **changes):
        quick = {
            "source": "auto", "archive_url": self.url, "rest_url": self.url, "connect_timeout": 2.0,
            "read_timeout": 2.0, "retries": 4, "backoff": 0.01, "longest_wait_seconds": 5.0, "weight_per_minute": 4800,
            "parallel_requests": 4, "proxy": None,
        }  # fmt: skip
        return Endpoints(**quick | changes)

    def publish(self, symbol, interval, kind, period, microseconds=False, header=False):
        """Put the archive file of a month (2024-01) or day (2024-01-31) in place."""
        rows = self.series[symbol, interval]
        begin = pd.Timestamp(period, tz="UTC")
        end = begin + (pd.offsets.MonthBegin() if kind == "monthly" else pd.Timedelta(days=1))
        inside = [r for r in rows if begin.timestamp() * 1000 <= r[0] < end.timestamp() * 1000]
        if not inside:
            return None
        lines = [
            ",".join(str(c * 1000 if microseconds and i in (0, 6) else c) for i, c in enumerate(r)) for r in inside
        ]
        if header:
            lines.insert(0, "open_time,open,high,low,close,volume,close_time,quote_volume,count,tb,tq,ignore")
        name = f"{symbol}-{interval}-{period}"
        path = f"/data/spot/{kind}/klines/{symbol}/{interval}/{name}.zip"
        self.put(path, zipped(f"{name}.csv", "\n".join(lines) + "\n"))
        return path

    def put(self, path, content):
        """A file with its checksum."""
        self.archive[path] = content
        self.archive[f"{path}.CHECKSUM"] = f"{hashlib.sha256(content).hexdigest()}  {path.split('/')[-1]}\n".encode()

    # --- answers ------------------------------------------------------------------------------------------------

    def _answer(self, handler):
        path, query = urlsplit(handler.path).path, parse_qs(urlsplit(handler.path).query)
        self.asked.append(handler.path)
        before = self.times[path]
        self.times[path] += 1
        fault = self.fault(path, before)
        if isinstance(fault, int):
            return self._send(handler, fault, b"{}")
        if isinstance(fault, tuple):
            return self._send(handler, *[fault[0], fault[2], fault[1]])
        if path == "/api/v3/klines":
            status, body = self._klines({key: values[0] for key, values in query.items()})
        elif path == "/api/v3/time":
            status, body = 200, json.dumps({"serverTime": int(self.now.timestamp() * 1000)}).encode()
        else:
            body = self.archive.get(path)
            status, body = (200, body) if body is not None else (404, b"not found")
        self._send(handler, status, body, {"X-MBX-USED-WEIGHT-1M": "2"}, fault)

    def _klines(self, query):
        rows = self.series.get((query["symbol"], query["interval"]))
        if query["interval"] not in STEPS:
            return 400, b'{"code":-1120,"msg":"Invalid interval."}'
        if rows is None:
            return 400, b'{"code":-1121,"msg":"Invalid symbol."}'
        begin, end = int(query.get("startTime", 0)), int(query.get("endTime", 2**62))
        present = self.now.timestamp() * 1000 if self.now else 2**62
        found = [r for r in rows if begin <= r[0] <= end and r[0] <= present][: min(int(query.get("limit", 500)), 1000)]
        return 200, json.dumps(found).encode()

    def _send(self, handler, status, body, headers=None, fault=None):
        handler.send_response(status)
        for name, value in (headers or {}).items():
            handler.send_header(name, value)
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        if fault == CUT:
            handler.wfile.write(body[: len(body) // 2])
            handler.close_connection = True
            handler.connection.shutdown(2)
        elif fault == SLOW:
            for byte in body:
                handler.wfile.write(bytes([byte]))
                handler.wfile.flush()
                time.sleep(0.05)
        else:
            handler.wfile.write(body)


def zipped(name, text):
    """A zip with one file, the same bytes every time."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(zipfile.ZipInfo(name), text, zipfile.ZIP_DEFLATED)
    return buffer.getvalue()


def made_up_rows(start, interval, count, seed=0, missing=()):
    """Candles in the API's 12 columns: prices as texts of 8 decimals; the rows `missing` were an outage."""
    rng = np.random.default_rng(seed)
    step, begin = STEPS[interval], pd.Timestamp(start, tz="UTC").value // 10**6
    close = 30_000 * np.exp(np.cumsum(rng.normal(0, 0.003, count)))
    open_ = np.concatenate([[30_000], close[:-1]])
    high, low = np.maximum(open_, close) * 1.001, np.minimum(open_, close) * 0.999
    volume = rng.lognormal(3, 1, count)
    rows = []
    for i in sorted(set(range(count)) - set(missing)):
        opened = begin + i * step
        prices = [f"{p[i]:.2f}000000" for p in (open_, high, low, close)]
        rest = [f"{volume[i]:.8f}", opened + step - 1, f"{volume[i] * close[i]:.8f}", 10, "1.0", "2.0", "0"]
        rows.append([opened, *prices, *rest])
    return rows


# --- what the tests of downloading share ---------------------------------------------------------------------

NOW = pd.Timestamp("2025-01-18 15:30", tz="UTC")
OUTAGE = range(700, 705)
KEY = ("BTCUSDT", "1h")


def build(now=NOW):
    """Hours over two whole months and a begun one; µs in the archive from 2025 on; an outage."""
    exchange = Exchange({KEY: made_up_rows("2024-10-20", "1h", 24 * 91, missing=OUTAGE)}, now)
    exchange.publish(*KEY, "monthly", "2024-10")
    exchange.publish(*KEY, "monthly", "2024-11", header=True)
    exchange.publish(*KEY, "monthly", "2024-12")
    for day in pd.date_range("2024-12-01", "2025-01-17"):
        exchange.publish(*KEY, "daily", f"{day:%Y-%m-%d}", microseconds=day.year == 2025)
    return exchange


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
