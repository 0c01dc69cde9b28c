"""Subjects of the leak check inside the networks, in windows that hold later candles, as in training.

An evaluation never shows a network candles after its cutoff, so that only training could use a non-causal layer.

Shape letters: L lookback, h horizon.
"""

import torch

from kronos_lightning.data import Candles
from kronos_lightning.data.windows import CandleWindows, WindowBatch
from kronos_lightning.forecast import Forecaster

from .proof import Arrays, Subject


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
