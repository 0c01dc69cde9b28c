"""Augmentation of whole candle windows before normalisation: plausible alternative markets.

Shape letters: B windows in a batch, W rows of a window, C = 6 features, P = 5 prices of a candle: open, high, low,
close and a typical price at which the candle's amount was traded.
"""

import math
from collections.abc import Sequence
from functools import cache
from typing import Annotated

import numpy as np
import torch
from pydantic import Field
from torch import Tensor
from torch.nn.functional import pad

from kronos_lightning.data.formats import CLOSE, HIGH, LOW, OPEN
from kronos_lightning.settings import NotNegative, Probability, Section

TYPICAL = 4  # row of the typical price, after open, high, low and close
KNOTS = 4  # knots of a smooth random curve over the window
CLIP = 2.0  # standard deviations at which such a curve is clipped
MAX_LOG_SPEED = math.log(1.6)  # around the mean: a warped candle lasts 1/2.56 to 2.56 old candles, touching at most 4
ROUNDING = 1e-5  # relative; float32 rounding moves a volume-weighted price out of its candle by less


class AugmentationSection(Section):
    """Strength of each augmentation; `conf/augmentation` explains the keys."""

    price_noise: NotNegative
    time_warp: NotNegative
    magnitude: NotNegative
    reversal: Probability

    @property
    def active(self) -> bool:
        """True if any augmentation is switched on."""
        return any(self.model_dump(include=set(AugmentationSection.model_fields)).values())


class Augmentation(AugmentationSection):
    """Random changes of candle windows that keep candles valid: lows stay lows and amount stays price times volume.

    The changes are applied in the order reversal, magnitude, time warp, noise. The random numbers of a window depend
    only on (seed, epoch, index), not on the batch, the process or the strengths of the changes.

    Args:
        price_noise: standard deviation of the noise on prices, as a share of the window's average candle range (log
            high/low).
        time_warp: standard deviation of the log speed of time along a smooth curve; speeds are clipped to
            [1/1.6, 1.6].
        magnitude: standard deviation of the log factor on returns, candle ranges and volume along a smooth curve. (A
            constant factor would vanish in the normalisation.)
        reversal: probability that a window is mirrored in log-price about its first open.
        seed: seed of all random numbers, not negative.
    """

    seed: Annotated[int, Field(ge=0)]

    def __call__(self, windows: Tensor, epochs: Sequence[int], indices: Sequence[int]) -> Tensor:
        """Augment windows ``(B, W, C)``: open high low close volume amount.

        Args:
            windows: prices > 0 in quote units; volume and amount >= 0 in any units.
            epochs: epoch in which each window is drawn, B numbers.
            indices: index of each window in the data set, B numbers.

        Returns:
            A new tensor of the same shape and dtype. Where amount / volume was between low and high, it still is.
        """
        if not self.active:
            return windows.clone()
        uniform, knots, noise = self._draws(windows.shape[1], epochs, indices)
        activity, speed = _curves(knots, windows.shape[1])
        prices, volume, weight = _take_apart(windows)
        if self.reversal:
            prices = torch.where((uniform < self.reversal)[:, None], _mirror(prices), prices)
        if self.magnitude:
            scale = (self.magnitude * activity).exp()
            prices, volume, weight = _scale_moves(prices, scale), volume * scale, weight * scale
        if self.time_warp:
            prices, volume, weight = _warp(prices, volume, weight, self.time_warp * speed)
        if self.price_noise:
            prices = _jitter(prices, self.price_noise * noise)
        return _put_together(prices, volume, weight, windows.dtype)

    def _draws(self, rows: int, epochs: Sequence[int], indices: Sequence[int]) -> tuple[Tensor, Tensor, Tensor]:
        """Draw a uniform number ``(B,)`` per window, normal knots ``(2, B, KNOTS)`` and noise ``(B, 3 W + 1)``."""
        uniform = np.empty(len(indices))
        normal = np.empty((len(indices), 2 * KNOTS + 3 * rows + 1))
        bits = np.random.Philox(key=self.seed)
        generator, start = np.random.Generator(bits), bits.state
        for i, place in enumerate(zip(indices, epochs, strict=True)):
            # Philox has a 256-bit counter. With the window in its upper half, streams start 2^128 blocks apart and
            # cannot overlap. Setting one generator's counter is four times as fast as creating a generator per window.
            start["state"]["counter"][2:] = place
            bits.state = start
            uniform[i] = generator.random()
            generator.standard_normal(out=normal[i])
        knots, noise = torch.from_numpy(normal).tensor_split([2 * KNOTS], dim=1)
        return torch.from_numpy(uniform), knots.view(len(indices), 2, KNOTS).transpose(0, 1), noise


def _take_apart(windows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Split windows into prices ``(P, B, W)``, volume and weight ``(B, W)``, all float64.

    Amount = weight × typical price. The typical price is the volume-weighted price and the weight is the volume. If
    that price is outside its candle (volume in lots, zero volume, or odd data), the mean price replaces it and the
    weight absorbs the difference.
    """
    *columns, volume, amount = windows.double().unbind(-1)
    ohlc = torch.stack(columns)
    vwap = amount / volume
    usual = (vwap >= ohlc[LOW] * (1 - ROUNDING)) & (vwap <= ohlc[HIGH] * (1 + ROUNDING))  # False for 0 / 0
    typical = torch.where(usual, vwap, ohlc.mean(0))
    return torch.cat([ohlc, typical[None]]), volume, torch.where(usual, volume, amount / typical)


def _put_together(prices: Tensor, volume: Tensor, weight: Tensor, dtype: torch.dtype) -> Tensor:
    """Invert `_take_apart`; the order of prices also holds exactly in the new dtype."""
    limits = torch.finfo(dtype)
    ohlc = prices[:TYPICAL].clamp(min=limits.tiny)
    candles = torch.stack([*ohlc, volume, weight * prices[TYPICAL]], dim=-1).clamp(max=limits.max).to(dtype)
    candles[..., HIGH] = candles[..., :TYPICAL].amax(-1)
    candles[..., LOW] = candles[..., :TYPICAL].amin(-1)
    return candles


def _mirror(prices: Tensor) -> Tensor:
    """Mirror in log-price about the first open: rises become falls of the same ratio, highs become lows."""
    return prices[OPEN, :, :1].square() / prices[[OPEN, LOW, HIGH, CLOSE, TYPICAL]]


def _scale_moves(prices: Tensor, scale: Tensor) -> Tensor:
    """Multiply all log moves, inside candles and in the gaps before them, by `scale` ``(B, W)``."""
    logs = prices.log()
    inside = (logs - logs[OPEN]) * scale
    gap = (logs[OPEN, :, 1:] - logs[CLOSE, :, :-1]) * scale[:, 1:]
    opens = logs[OPEN, :, :1] + pad((inside[CLOSE, :, :-1] + gap).cumsum(1), (1, 0))
    return (opens + inside).exp()


def _warp(prices: Tensor, volume: Tensor, weight: Tensor, log_speed: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Cut the same history into candles of other durations: new candle k covers the old time from τ(k) to τ(k+1).

    Inside an old candle, volume is spread evenly over time and the price moves in three straight legs of equal
    duration: open, low, high, close if it rises, otherwise open, high, low, close.

    Args:
        prices: ``(P, B, W)``.
        volume, weight: ``(B, W)``; their totals are conserved, and so is the total amount except for the clamp below.
        log_speed: log speed of old time at each new candle ``(B, W)``, up to a constant; τ maps [0, W] onto itself.
    """
    rows = volume.shape[1]
    elapsed = log_speed.clamp(-MAX_LOG_SPEED, MAX_LOG_SPEED).exp().cumsum(1)
    # Rounded, so that a boundary between two candles does not take a sliver of the wrong candle.
    tau = (pad(elapsed, (1, 0)) / elapsed[:, -1:] * rows).round(decimals=9)
    open_, high, low, close, typical = prices
    rising = close >= open_
    path = [open_, torch.where(rising, low, high), torch.where(rising, high, low), close]
    corners = torch.stack(path, dim=-1).flatten(1)  # (B, 4 W)

    # A new candle ends at the old price before τ and the next opens at the old price after τ: old candles have gaps.
    begin, end = tau[:, :-1], tau[:, 1:]
    candle = torch.stack([begin.floor(), end.ceil() - 1])  # (2, B, W), old candles at a new candle's start and end
    thirds = 3 * (torch.stack([begin, end]) - candle)
    leg = thirds.floor().clamp(max=2)
    corner = (4 * candle + leg).long()
    paths = corners.expand(2, -1, -1)
    open_, close = torch.lerp(paths.gather(2, corner), paths.gather(2, corner + 1), thirds - leg)

    high, low = torch.maximum(open_, close), torch.minimum(open_, close)
    # Corners passed: at least one, because no warped candle is shorter than a leg.
    corner, stop = (4 * candle + torch.stack([thirds[0].ceil(), thirds[1].floor()])).long()
    for i in range(int((stop - corner).max()) + 1):
        price = corners.gather(1, torch.minimum(corner + i, stop))
        high, low = torch.maximum(high, price), torch.minimum(low, price)

    flow = torch.stack([volume, weight, weight * typical])  # (3, B, W), each per candle duration
    old = tau.floor().long().expand(3, -1, -1)
    share = tau - tau.floor()
    until = pad(flow.cumsum(-1), (1, 0)).gather(-1, old) + share * flow.gather(-1, old.clamp(max=rows - 1))
    volume, weight, amount = until.diff(dim=-1)
    # Part of a candle may never reach the whole candle's typical price, hence the clamp. Without trades any price fits.
    typical = torch.where(weight > 0, amount / weight, close).clamp(low, high)
    return torch.stack([open_, high, low, close, typical]), volume, weight


def _jitter(prices: Tensor, noise: Tensor) -> Tensor:
    """Multiply prices by exp(noise × average log range of the window); noise ``(B, 3 W + 1)``.

    A close and the next open move together, so that candles that touched still touch.
    """
    rows = prices.shape[2]
    size = (prices[HIGH] / prices[LOW]).log().mean(1, keepdim=True)
    joint, up, down = torch.split((size * noise).exp(), [rows + 1, rows, rows], dim=1)
    open_, close = prices[OPEN] * joint[:, :-1], prices[CLOSE] * joint[:, 1:]
    ends = torch.stack([open_, close])
    high = torch.maximum(prices[HIGH] * up, ends.amax(0))
    low = torch.minimum(prices[LOW] * down, ends.amin(0))
    ratio = (open_ + high + low + close) / prices[:TYPICAL].sum(0)
    return torch.stack([open_, high, low, close, (prices[TYPICAL] * ratio).clamp(low, high)])


def _curves(knots: Tensor, rows: int) -> Tensor:
    """Return smooth curves ``(…, W)`` from normal `knots` ``(…, KNOTS)``, of unit deviation before clipping."""
    # No matrix product, because its rounding may depend on the batch size.
    curves: Tensor = sum(knots[..., k, None] * bump for k, bump in enumerate(_bumps(rows)))
    return curves.clamp(-CLIP, CLIP)


@cache
def _bumps(rows: int) -> Tensor:
    """Return weights ``(KNOTS, W)`` of evenly spaced knots in a curve; their squares sum to one at each window row."""
    place = torch.linspace(0, KNOTS - 1, rows, dtype=torch.float64)
    bumps = torch.exp(-2 * (place - torch.arange(KNOTS)[:, None]).square())
    length: Tensor = bumps.norm(dim=0)
    return bumps / length
