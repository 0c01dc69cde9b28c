"""Columns of every candle array, and the error for invalid candles."""

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


class CandleError(KronosError, ValueError):
    """Error for invalid candles; the message names file, place, value and a way out."""
