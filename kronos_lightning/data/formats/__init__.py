"""Readers of candle files in many layouts; they return raw columns and do not check the candles.

`reading` joins the parts: `tables` (files of all kinds), `columns` (which column is what), `stamps` and `numbers`.
"""

from .features import AMOUNT, BINANCE_COLUMNS, CLOSE, FEATURES, HIGH, LOW, OPEN, PRICES, VOLUME, CandleError
from .layout import LayoutSection
from .reading import as_raw, describe, read_raw, require_file, usual_distance, where

__all__ = [
    "AMOUNT",
    "BINANCE_COLUMNS",
    "CLOSE",
    "FEATURES",
    "HIGH",
    "LOW",
    "OPEN",
    "PRICES",
    "VOLUME",
    "CandleError",
    "LayoutSection",
    "as_raw",
    "describe",
    "read_raw",
    "require_file",
    "usual_distance",
    "where",
]
