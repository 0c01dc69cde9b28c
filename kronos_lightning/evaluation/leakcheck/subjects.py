"""Subjects of the leak check in a forecast, from the features to the baselines.

Shape letters: L lookback, h horizon, W rows of a training window, N cutoffs, S sample paths, C = 6 features.
"""

from collections.abc import Callable

import numpy as np
import torch

from kronos_lightning.data import Candles
from kronos_lightning.data.representation import AnyRepresentation
from kronos_lightning.data.windows import CandleWindows, WindowBatch
from kronos_lightning.evaluation.baselines import Baseline
from kronos_lightning.evaluation.rolling import Cutoffs
from kronos_lightning.forecast import Forecaster, ForecastSet

from .proof import Arrays, Subject


def features(lookback: int, horizon: int, clip: float, representation: AnyRepresentation) -> Subject:
    """Build the subject of the forecaster's inputs at a cutoff."""

    def at(candles: Candles, row: int) -> Arrays:
        target = _after(row, horizon, len(candles))
        batch = Cutoffs(candles, target, lookback=lookback, horizon=horizon, max_cutoffs=None, batch_size=1)[0]
        stamp = torch.cat([batch.stamp, batch.future_stamp], dim=1)
        x, scale = representation.normalise(batch.context, lookback, clip, stamp)
        return _arrays(context=batch.context, x=x, stamp=batch.stamp, future=batch.future_stamp, **scale._asdict())

    return Subject(name="features", what="candles, time features and normalised context of the forecasts", function=at)


def training_windows(forecaster: Forecaster, lookback: int, horizon: int) -> Subject:
    """Build the subject of a training window's context and its normalisation statistics.

    The window contains the targets.
    """

    def at(candles: Candles, row: int) -> Arrays:
        window = _window(candles, row, lookback, horizon, forecaster)
        x, scale = window.candles
        return _arrays(x=x[:, :lookback], stamp=window.stamp[:, :lookback], **scale._asdict())

    return Subject(
        name="training windows",
        what="normalised context and its statistics, in windows that hold the targets",
        function=at,
    )


def tokens(forecaster: Forecaster, lookback: int, horizon: int) -> Subject:
    """Build the subject of the context's tokens, encoded together with the candles that follow, as in training."""

    def at(candles: Candles, row: int) -> Arrays:
        window = _window(candles, row, lookback, horizon, forecaster)
        s1, s2 = _encode(forecaster, window)
        return _arrays(s1=s1[:, :lookback], s2=s2[:, :lookback])

    return Subject(
        name="tokens", what="tokens of the context, encoded in one window with the candles after it", function=at
    )


def logits(forecaster: Forecaster, lookback: int, horizon: int) -> Subject:
    """Build the subject of next-token logits at the context's positions under teacher forcing, as in training."""

    def at(candles: Candles, row: int) -> Arrays:
        window = _window(candles, row, lookback, horizon, forecaster)
        s1, s2 = _encode(forecaster, window)
        predictor = forecaster.predictor.eval()
        with torch.inference_mode():
            stamp = window.stamp[:, :-1].to(s1.device)
            coarse, fine = predictor(s1[:, :-1], s2[:, :-1], stamp, s1_next=s1[:, 1:])
        # The fine logits at the last known candle are conditioned on the next coarse token, by the factorisation.
        return _arrays(s1=coarse[:, :lookback], s2=fine[:, : lookback - 1])

    return Subject(
        name="logits",
        what="next-token logits at every position of the context, later tokens in the same pass",
        function=at,
    )


def forecasts(name: str, what: str, forecast: Callable[[Candles], ForecastSet]) -> Subject:
    """Build the subject of the sample paths of all cutoffs up to a row, made together with those of later cutoffs."""

    def at(candles: Candles, row: int) -> Arrays:
        found = forecast(candles)
        known = found.cutoffs <= time_of(candles, row)
        return {"paths": found.paths[known], "last close": found.last_close[known]}

    return Subject(name=name, what=what, function=at)


def baseline(name: str, forecaster: Baseline, horizon: int, num_paths: int) -> Subject:
    """Build the subject of a baseline's sample paths."""

    def at(candles: Candles, row: int) -> Arrays:
        return {"paths": forecaster.sample_paths(candles, np.array([row]), horizon, num_paths)}

    return Subject(name=f"baseline {name}", what="sample paths, fitted on all candles at hand", function=at)


def time_of(candles: Candles, row: int) -> np.datetime64:
    """Return the open time of a candle, in the type that forecast sets use."""
    time: np.datetime64 = candles.times[row]
    return time


def _after(row: int, count: int, length: int) -> np.ndarray:
    """Mark the `count` rows after `row`: bool ``(length,)``."""
    return np.isin(np.arange(length), np.arange(row + 1, row + 1 + count))


def _window(candles: Candles, row: int, lookback: int, horizon: int, forecaster: Forecaster) -> WindowBatch:
    """Build the training window whose context ends at `row`, ``(1, L + h, …)``."""
    begin, end = row + 1 - lookback, row + 1 + horizon
    frame = candles.frame.iloc[begin:end].assign(target=True)
    clip, volume, representation = forecaster.clip, forecaster.volume, forecaster.representation
    windows = CandleWindows(frame, lookback, horizon, clip, volume=volume, representation=representation)
    return windows.__getitems__([0])


def _encode(forecaster: Forecaster, window: WindowBatch) -> tuple[torch.Tensor, torch.Tensor]:
    """Encode a whole window into coarse and fine tokens, ``(1, L + h)`` each."""
    tokenizer = forecaster.tokenizer.eval()
    with torch.inference_mode():
        s1, s2 = tokenizer.encode(window.candles[0].to(next(tokenizer.parameters()).device), half=True)
    return s1, s2


def _arrays(**tensors: torch.Tensor) -> Arrays:
    return {name: tensor.cpu().numpy() for name, tensor in tensors.items()}
