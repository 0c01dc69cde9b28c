"""Candles of Binance's API, a response at a time."""

import json
from typing import Any

from kronos_lightning.data.sources.binance.http import Client, DownloadError

API_LIMIT = 1000  # maximum number of candles in a response
LARGEST_TIME = 2**53  # of an open time in milliseconds


def klines(client: Client, symbol: str, interval: str, **parameters: Any) -> list[list[Any]]:
    """Return the rows of a response of ``/api/v3/klines``, 12 columns each, oldest first.

    Args:
        client: the client, with the host.
        symbol, interval: in Binance's notation.
        parameters: limit and, in milliseconds, startTime and endTime.

    Raises:
        DownloadError: the request failed, or the answer is not a list of candles.
    """
    url = f"{client.endpoints.rest_url}/api/v3/klines"
    body = client.get(url, symbol=symbol, interval=interval, **parameters)
    try:
        rows = json.loads(body or b"")
    except (ValueError, RecursionError):
        rows = None
    if not isinstance(rows, list) or not all(map(_is_candle, rows)):
        raise DownloadError(f"{url}: the answer is not a list of candles; check rest_url")
    if len(rows) > parameters["limit"]:
        raise DownloadError(f"{url}: {len(rows)} candles, {parameters['limit']} were asked for; check rest_url")
    return rows


def _is_candle(row: Any) -> bool:
    """Return True for a row of 12 columns with the times of its open and close."""
    times = (row[0], row[6]) if isinstance(row, list) and len(row) == 12 else ()
    return bool(times) and all(type(time) is int and 0 <= time < LARGEST_TIME for time in times)
