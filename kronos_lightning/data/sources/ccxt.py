"""Candle source for the exchanges of the ccxt library: files in a folder, downloaded and continued page by page."""

import logging
import time
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pandas as pd
import pyarrow as pa
from pydantic import Field

from kronos_lightning.data.formats import PRICES, CandleError, read_raw
from kronos_lightning.settings import Count, NotNegative, Section, as_utc, end_of
from kronos_lightning.storage import Lock

from .binance.candle_table import SCHEMA
from .binance.download import series_path
from .binance.http import DownloadError
from .binance.intervals import Range, closed_before, floor, grid, to_ms, without
from .binance.stored_series import API, FetchedPart, StoredSeries, iso, spans

PAGE = 200  # candles a request; every exchange gives as many or says how many it gives
MOST_ROWS = 20_000  # rows of a response; exchanges that give more than asked for give up to some thousand
LONGEST_PAUSE = 300.0  # seconds between two attempts

log = logging.getLogger(__name__)


class Ccxt(Section):
    """Candles of ``EXCHANGE/SYMBOL_INTERVAL.csv`` in a folder, downloaded from an exchange that ccxt knows.

    The files, their manifest and the way in which an interrupted download continues are those of the Binance source.
    The exchanges give no amount; it is volume × mean price.

    csv_dir: the folder.
    exchange: name of the exchange in ccxt, such as okx.
    options: further arguments of ccxt's exchange class, such as ``{httpsProxy: "http://localhost:8080"}``.
    retries: further attempts after a failure of the network.
    backoff_seconds: pause before the first of them; it doubles each time.
    timeout_seconds: limit of one request.
    """

    csv_dir: str
    exchange: Annotated[str, Field(pattern=r"^[a-z0-9]+$")] | None
    options: dict[str, Any]
    retries: Annotated[int, Field(ge=0)]
    backoff_seconds: NotNegative
    timeout_seconds: Count

    @property
    def synthetic(self) -> bool:
        """True if the candles are generated; always False, because candles of an exchange are real."""
        return False

    def path(self, symbol: str, interval: str) -> Path:
        """Return the file of a symbol and interval.

        Raises:
            CandleError: no exchange is named.
        """
        if self.exchange is None:
            raise CandleError("data.source=ccxt needs the name of an exchange, such as data.exchange=okx")
        return series_path(Path(self.csv_dir) / self.exchange, symbol, interval)

    def fetch(self, symbol: str, interval: str, start: str | None, end: str | None) -> pd.DataFrame:
        """Read the file, and download it first if it does not exist; an interrupted download continues.

        Raises:
            DownloadError, CandleError: the file does not exist and cannot be downloaded.
        """
        path = self.path(symbol, interval)
        if not path.is_file() or StoredSeries(symbol, interval, path).parts_path.exists():
            self._download(symbol, interval, path, start, end)
        return read_raw(path)

    def _download(self, symbol: str, interval: str, path: Path, start: str | None, end: str | None) -> None:
        """Fetch the missing candles, and write all of them; after a failure the fetched pages stay on disk."""
        if start is None:
            raise DownloadError(f"{path}: set data.dataset_begin_time, the first day to download from {self.exchange}")
        series = StoredSeries(symbol, interval, path)
        with Lock(path, wait=True):
            series.clear_leftovers()
            manifest = series.manifest()
            stop = closed_before(interval, to_ms(pd.Timestamp.now("UTC")))
            if end is not None:
                stop = min(stop, floor(interval, to_ms(end_of(end)) - 1) + grid(interval))
            wanted = (to_ms(as_utc(start)), stop)
            known = spans(manifest, "covered") + [part["span"] for part, _ in series.parts()]
            self._fetch(series, wanted, known)
            found = series.joined(manifest, wanted)
            if found is None or not len(found[0]):
                raise DownloadError(f"{self.exchange} has no candle of {symbol} {interval} from {start} on")
            series.write(manifest, *found)

    def _fetch(self, series: StoredSeries, wanted: Range, known: list[Range]) -> None:
        """Fetch the missing candles page by page; each page is stored at once."""
        exchange = self._exchange()
        market = self._market(exchange, series.symbol)
        step = grid(series.interval)
        if series.interval not in exchange.timeframes:
            raise DownloadError(
                f"{self.exchange} has no candles of {series.interval}; it has {', '.join(exchange.timeframes)}"
            )
        for begin, stop in without(wanted, known):
            since, told = begin, time.monotonic()
            while since < stop:
                rows = self._request(exchange.fetch_ohlcv, market, series.interval, since, PAGE)
                table = _table(rows, (since, stop), step, f"{self.exchange} {market}")
                opens = table["time"].to_numpy()
                after = int(opens[-1]) + step if len(opens) else since + PAGE * step
                span = since, min(after, stop)
                series.add(FetchedPart(name=f"{API}-{since}", kind=API, span=span, table=table))
                if len(opens) and opens[0] >= since + PAGE * step:
                    log.warning("%s gives %s from %s on only", self.exchange, market, iso(int(opens[0])))
                if time.monotonic() - told > 5:
                    log.info("%s %s: candles up to %s", self.exchange, market, iso(span[1]))
                    told = time.monotonic()
                since = span[1]

    def _exchange(self) -> Any:
        try:
            import ccxt
        except ImportError as error:
            raise DownloadError("data.source=ccxt needs ccxt: pip install 'kronos-lightning[ccxt]'") from error
        if self.exchange not in ccxt.exchanges:
            raise DownloadError(
                f"data.exchange: ccxt does not know {self.exchange!r}; it knows {', '.join(ccxt.exchanges)}"
            )
        limits = {"enableRateLimit": True, "timeout": self.timeout_seconds * 1000}
        return getattr(ccxt, str(self.exchange))(limits | self.options)

    def _market(self, exchange: Any, symbol: str) -> str:
        """Return ccxt's name of a symbol such as BTCUSDT: the spot market of this base and quote."""
        markets = self._request(exchange.load_markets)
        names = [name for name, market in markets.items() if f"{market['base']}{market['quote']}" == symbol]
        spot = [name for name in names if markets[name].get("spot")]
        if not spot:
            alike = sorted(n for n, m in markets.items() if m.get("spot") and symbol.startswith(m["base"]))[:8]
            raise DownloadError(
                f"{self.exchange} has no spot market {symbol}; it has {', '.join(alike) or 'none alike'}"
            )
        return str(spot[0])

    def _request(self, call: Any, *arguments: Any) -> Any:
        """Call ccxt; repeat after failures of the network."""
        import ccxt

        for attempt in range(self.retries + 1):
            try:
                return call(*arguments)
            except ccxt.NetworkError as error:
                problem = f"{type(error).__name__}: {str(error)[:200]}"
                if attempt < self.retries:
                    pause = min(LONGEST_PAUSE, self.backoff_seconds * 2.0 ** min(attempt, 30))
                    log.warning("%s: %s; next attempt in %.0f s", self.exchange, problem, pause)
                    time.sleep(pause)
            except ccxt.BaseError as error:
                raise DownloadError(f"{self.exchange}: {type(error).__name__}: {str(error)[:300]}") from error
        raise DownloadError(f"{self.exchange} cannot be reached after {self.retries + 1} attempts: {problem}")


def _table(rows: Any, span: Range, step: int, name: str) -> pa.Table:
    """Convert ccxt's rows (time, prices, volume) into candles of a range, in order and without repetitions."""
    if not isinstance(rows, list) or len(rows) > MOST_ROWS:
        raise DownloadError(f"{name}: the answer is not a list of candles, or holds more than {MOST_ROWS}")
    try:
        values = np.array([row[:6] for row in rows], dtype=np.float64).reshape(-1, 6)
    except (TypeError, ValueError, KeyError, OverflowError) as error:
        raise DownloadError(f"{name}: the answer holds no candles ({str(error)[:200]})") from error
    values = values[(values[:, 0] >= span[0]) & (values[:, 0] < span[1])]
    values = values[np.unique(values[:, 0], return_index=True)[1]]
    if not np.isfinite(values).all():
        raise DownloadError(f"{name}: the answer holds values that are not finite numbers")
    if (np.diff(values[:, 0]) < step).any():
        raise DownloadError(f"{name}: the answer holds candles that are shorter than asked for")
    amount = values[:, 5] * values[:, 1 : 1 + len(PRICES)].mean(axis=1)
    columns = [values[:, 0].astype(np.int64), *values[:, 1:].T, amount]
    return pa.table(dict(zip(SCHEMA.names, columns, strict=True)), schema=SCHEMA)
