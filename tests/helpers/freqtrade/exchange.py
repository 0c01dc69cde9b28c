"""What freqtrade asks of Binance, and of our service, on this machine."""

import json
import math
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

import pandas as pd

MINUTE = 60_000
TICK, LOT = "0.01", "0.00001"


def market(symbol):
    """A spot market of the exchange's list, with the filters of BTCUSDT."""
    filters = [
        {"filterType": "PRICE_FILTER", "minPrice": TICK, "maxPrice": "1000000.00", "tickSize": TICK},
        {"filterType": "LOT_SIZE", "minQty": LOT, "maxQty": "9000000.0", "stepSize": LOT},
        {"filterType": "NOTIONAL", "minNotional": "5.0", "applyMinToMarket": True, "maxNotional": "1e12"},
    ]
    base = symbol.removesuffix("USDT")
    return {
        "symbol": symbol, "status": "TRADING", "baseAsset": base, "quoteAsset": "USDT", "baseAssetPrecision": 8,
        "quoteAssetPrecision": 8, "quotePrecision": 8, "orderTypes": ["LIMIT", "MARKET", "STOP_LOSS_LIMIT"],
        "isSpotTradingAllowed": True, "isMarginTradingAllowed": False, "permissions": ["SPOT"],
        "permissionSets": [["SPOT"]], "filters": filters,
    }  # fmt: skip


def price(minute):
    """Price in the minute that opens at `minute` (ms): it moves, but reaches neither stop nor target."""
    return round(60_000 + 20 * math.sin(minute / MINUTE), 2)


class Exchange:
    """Serves the list of markets, candles of one minute up to now, order books, and signals of the service.

    signal: what the service says of every closed minute; None = it has no row.
    asked: the last candle that each request for signals was about.
    """

    def __init__(self, symbol, decision=None):
        self.symbol, self.decision, self.signal, self.asked = symbol, decision, "BUY", []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self):
                parts = urlsplit(self.path)
                answer = outer._answer(parts.path, {key: one[0] for key, one in parse_qs(parts.query).items()})
                content = json.dumps({"code": -1, "msg": "unknown"} if answer is None else answer).encode()
                self.send_response(404 if answer is None else 200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.server.server_close()

    def _answer(self, path, query):
        now = int(time.time() * 1000)
        quote = price(now // MINUTE * MINUTE)
        bid, ask = f"{quote - 0.01:.2f}", f"{quote:.2f}"
        if path == "/v1/model":
            return {"decision": self.decision}
        if path == f"/v1/{self.symbol}/signals":
            return self._signals(query, now)
        match path.removeprefix("/api/v3/"):
            case "exchangeInfo":
                return {"timezone": "UTC", "serverTime": now, "symbols": [market(self.symbol)]}
            case "klines":
                return self._candles(query, now)
            case "depth":
                return {"lastUpdateId": now, "bids": [[bid, "100"]], "asks": [[ask, "100"]]}
            case "ticker/bookTicker" | "ticker/24hr":
                ticker = {
                    "symbol": self.symbol, "bidPrice": bid, "askPrice": ask, "bidQty": "100", "askQty": "100",
                    "lastPrice": ask, "closeTime": now, "volume": "1000", "quoteVolume": "60000000",
                }  # fmt: skip
                return ticker if "symbol" in query else [ticker]
            case "time":
                return {"serverTime": now}
        return None

    def _candles(self, query, now):
        last = min(int(query.get("endTime", now)), now) // MINUTE * MINUTE
        count = int(query.get("limit", 500))
        first = max(int(query.get("startTime", 0)), last - (count - 1) * MINUTE)
        rows = []
        for minute in range(-(-first // MINUTE) * MINUTE, last + 1, MINUTE)[:count]:
            open_, close = price(minute - MINUTE), price(minute)
            edges = (open_, max(open_, close), min(open_, close), close)
            rows.append([minute, *map(str, edges), "10", minute + MINUTE - 1, "600000", 100, "5", "300000", "0"])
        return rows

    def _signals(self, query, now):
        first, last = pd.Timestamp(query["from"]), pd.Timestamp(query["to"])
        self.asked.append(last)
        closed = pd.Timestamp(now, unit="ms", tz="UTC").floor("min") - pd.Timedelta("1min")
        cutoffs = pd.date_range(first, min(last, closed), freq="min") if self.signal else []
        rows = [{"cutoff": one.isoformat(), "signal": self.signal, "halted": False, "late": False} for one in cutoffs]
        return {"signals": rows, "next": None}
