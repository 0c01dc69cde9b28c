"""Small candle frames."""

import numpy as np
import pandas as pd

from kronos_lightning.data.sources.synthetic import synthetic_candles


def frame_with_gap(rows, gap_at):
    """A candle frame whose row `gap_at` begins a new segment."""
    frame = synthetic_candles(rows, "1h", "2023-01-01", seed=5, start_price=50.0, volatility=0.5).frame
    return frame.assign(segment=(np.arange(rows) >= gap_at).astype(np.int64), target=True)


def utc(text):
    return pd.Timestamp(text, tz="UTC")
