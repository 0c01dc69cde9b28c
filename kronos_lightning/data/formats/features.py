"""Columns of every candle array, and the error for invalid candles."""

from typing import Any

import numpy as np
import pandas as pd

from kronos_lightning.errors import KronosError

PRICES = ["open", "high", "low", "close"]
FEATURES = [*PRICES, "volume", "amount"]
OPEN, HIGH, LOW, CLOSE, VOLUME, AMOUNT = range(len(FEATURES))  # column numbers of every candle array
BINANCE_COLUMNS = [
    "open_time",
    *PRICES,
    "volume",
    "close_time",
    "quote_asset_volume",
    "trades",
    "taker_buy_base",
    "taker_buy_quote",
    "unused",
]


def first_place(column: pd.Series, bad: pd.Series | np.ndarray) -> Any:
    """Return the line or row number (the index) of the first bad value."""
    return column.index[int(np.argmax(np.asarray(bad)))]


class CandleError(KronosError, ValueError):
    """Error for invalid candles; the message names file, place, value and a way out."""
