"""`KronosPredictor` with the published code's forecasting interface, so that its users change only one import."""

import logging
import math
import time
from collections.abc import Sequence

import numpy as np
import pandas as pd

from kronos_lightning.data.formats import FEATURES, CandleError
from kronos_lightning.forecast.device import best_device
from kronos_lightning.forecast.forecaster import Forecaster
from kronos_lightning.forecast.sampling import Sampling
from kronos_lightning.forecast.series import Series, Stamps, as_stamps, candle_values
from kronos_lightning.model import Kronos, KronosTokenizer

log = logging.getLogger(__name__)


class KronosPredictor:
    """Forecaster of DataFrames with the signatures of the published `KronosPredictor`.

    Improvements: dropout is off; context and horizon together may be longer than `max_context`; the statistics come
    from the candles that the model sees; series of a batch may differ in length; a `DatetimeIndex` is accepted as well
    as a Series; T=0 is greedy. Stamps are used as they are written, without a change of time zone.

    Args:
        model, tokenizer: the networks; they are moved to the device.
        device: such as ``cuda:0``; None selects the best available device.
        max_context: maximum number of candles that the model sees (512; Kronos-mini 2048).
        clip: bound of the normalised values.
    """

    def __init__(
        self,
        model: Kronos,
        tokenizer: KronosTokenizer,
        device: str | None = None,
        max_context: int = 512,
        clip: float = 5,
    ):
        if not isinstance(model, Kronos) or not isinstance(tokenizer, KronosTokenizer):
            given = f"{type(model).__name__} and {type(tokenizer).__name__}"
            raise CandleError(f"KronosPredictor(model, tokenizer) takes a Kronos and a KronosTokenizer, not {given}")
        self.device = best_device(device or "auto")
        self.model, self.tokenizer = model.to(self.device), tokenizer.to(self.device)
        self.max_context, self.clip = max_context, clip
        self._forecaster = Forecaster(self.tokenizer, self.model, max_context=max_context, clip=clip)

    def predict(
        self,
        df: pd.DataFrame,
        x_timestamp: Stamps,
        y_timestamp: Stamps,
        pred_len: int,
        T: float = 1.0,
        top_k: int = 0,
        top_p: float = 0.9,
        sample_count: int = 1,
        verbose: bool = True,
    ) -> pd.DataFrame:
        """Return the mean of the sample paths after one series.

        Args:
            df: ``open high low close`` and optionally ``volume amount``; not changed.
            x_timestamp, y_timestamp: open times of the known and of the `pred_len` future candles.
            pred_len: horizon in candles.
            T, top_k, top_p: sampling parameters; see `Sampling`.
            sample_count: number of paths to average; `Forecaster.sample_paths` returns the paths themselves.
            verbose: log the duration.

        Returns:
            One row per candle with the six features, and `y_timestamp` as index.

        Raises:
            CandleError: the candles or their open times are invalid.
        """
        return self.predict_batch([df], [x_timestamp], [y_timestamp], pred_len, T, top_k, top_p, sample_count, verbose)[
            0
        ]

    def predict_batch(
        self,
        df_list: Sequence[pd.DataFrame],
        x_timestamp_list: Sequence[Stamps],
        y_timestamp_list: Sequence[Stamps],
        pred_len: int,
        T: float = 1.0,
        top_k: int = 0,
        top_p: float = 0.9,
        sample_count: int = 1,
        verbose: bool = True,
    ) -> list[pd.DataFrame]:
        """Run `predict` for several series at once; return their forecasts in the same order."""
        if not len(df_list) == len(x_timestamp_list) == len(y_timestamp_list):
            raise CandleError("df_list, x_timestamp_list and y_timestamp_list must have the same length")
        if sample_count < 1:
            raise CandleError(f"sample_count {sample_count}; it must be at least 1")
        started = time.perf_counter()
        series = [
            _series(*one, pred_len, f"series {i}")
            for i, one in enumerate(zip(df_list, x_timestamp_list, y_timestamp_list, strict=True))
        ]
        sampling = Sampling(temperature=T, top_k=int(top_k or 0), top_p=1.0 if top_p is None else top_p)
        paths = self._forecaster.with_sampling(sampling).sample_series(series, sample_count)
        if verbose:
            seconds = time.perf_counter() - started
            log.info("%d series, %d candles x %d path(s): %.2f s", len(series), pred_len, sample_count, seconds)
        means = paths.mean(axis=1, dtype=np.float64)
        return [
            pd.DataFrame(mean, columns=FEATURES, index=one.future.rename(getattr(stamps, "name", None)))
            for mean, one, stamps in zip(means, series, y_timestamp_list, strict=True)
        ]


def _series(df: pd.DataFrame, known: Stamps, future: Stamps, horizon: int, label: str) -> Series:
    if horizon < 1:
        raise CandleError(f"{label}: pred_len {horizon}; it must be at least 1")
    if not isinstance(df, pd.DataFrame):
        raise CandleError(f"{label}: {type(df).__name__} given; the candles must be a DataFrame")
    stamps = _as_written(known, f"{label}, x_timestamp")
    to_come = _as_written(future, f"{label}, y_timestamp", future=True)
    values = candle_values(df, label)
    exact = float(df["close"].iloc[-1]) if len(df) else math.nan
    if len(stamps) != len(values):
        raise CandleError(f"{label}: {len(stamps)} x_timestamp for {len(values)} candles")
    if len(to_come) != horizon:
        raise CandleError(f"{label}: {len(to_come)} y_timestamp for pred_len {horizon}")
    if len(values) < 2:
        raise CandleError(f"{label}: {len(values)} candle(s); at least 2 are needed, some hundred are better")
    if not stamps.is_monotonic_increasing or stamps.has_duplicates:
        raise CandleError(f"{label}: x_timestamp must increase from row to row; sort the candles, oldest first")
    if not to_come.is_monotonic_increasing or to_come.has_duplicates or to_come[0] <= stamps[-1]:
        raise CandleError(f"{label}: y_timestamp must increase and begin after the last candle ({stamps[-1]})")
    return Series(values=values, stamps=stamps, future=to_come, last_close=exact)


def _as_written(stamps: Stamps, label: str, future: bool = False) -> pd.DatetimeIndex:
    """Return stamps without their zone, as they are written."""
    return as_stamps(stamps, label, future).tz_localize(None)
