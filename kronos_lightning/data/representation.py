"""Representation of candles for the network: price levels or log returns, scaled by the lookback or by a forecast.

It is a property of a checkpoint: stored in its `training.json`, and used wherever its networks see candles.

Shape letters: B windows, W rows of a window, L lookback, h horizon, S sample paths, C = 6 features.
"""

import math
from typing import Annotated, Any, Literal, NamedTuple, Self

import torch
from pydantic import Field, TypeAdapter, ValidationError, model_validator
from torch import Tensor

from kronos_lightning.data.formats import CLOSE, HIGH, LOW, OPEN, PRICES, VOLUME, CandleError
from kronos_lightning.settings import Section

CONSTANT = 2.0**-22  # a smaller standard deviation, relative to the mean, is rounding: the column is constant
SMALLEST = 1e-30  # scale of a column that is zero everywhere
PRICED = len(PRICES)

LINEAR = 3.0  # normalised returns beyond this bound are compressed logarithmically
RETURN_UNIT = 1.2  # standard deviations of the returns in one unit of a normalised return
VOLUME_UNIT = 2.0  # standard deviations of the log volume in one unit of a normalised volume
LEAST_VOLUME = 1e-3  # volume that counts as zero, as a share of the lookback's mean
STEADY = 1e-3  # lower bound of the deviation of the log volume
QUIETEST = 1e-8  # lower bound of a window's volatility, for markets that do not move
NO_VOLUME = math.log(SMALLEST) + 1  # mean log volume of a window without any
HOURS = 168  # of a week


class WindowScale(NamedTuple):
    """WindowScale of a batch of normalised windows, from their known rows.

    For levels, `mean` and `std` are in the candles' units, for returns in those of log returns and log volume.
    """

    mean: Tensor  # (B, 1, C)
    std: Tensor  # (B, 1, C), or (B, W, C) where every row has a scale of its own; never zero
    close: Tensor  # (B, 1) last known close

    def after(self, lookback: int) -> "WindowScale":
        """Return the scale of the rows after the lookback."""
        return self if self.std.size(1) == 1 else self._replace(std=self.std[:, lookback:])


class Levels(Section):
    """Price levels, standardised by mean and deviation of the lookback rows: the published representation."""

    name: Literal["levels"] = "levels"

    def normalise(self, window: Tensor, lookback: int, clip: float, stamp: Tensor) -> tuple[Tensor, WindowScale]:
        """Normalise windows ``(B, W, C)`` by their first `lookback` rows.

        Levels do not depend on the unit of price or volume: they are the same to the bit for windows times a power of
        two. The published code adds 1e-5 to the standard deviation, which matters only for prices far below 1.

        Args:
            window: candles; rows after the lookback never change the scale.
            lookback: number of known rows, L.
            clip: bound of the normalised values.
            stamp: time features ``(B, ≥ W, 5)`` of the window, and of later rows that share its scale.

        Returns:
            x ``(B, W, C)`` in [−clip, clip], and the scale.
        """
        mean = window[:, :lookback].mean(dim=1, keepdim=True)
        unit = mean.abs().clamp(min=SMALLEST)
        relative = (window - mean).div_(unit)  # its squares stay within float32, whatever the unit
        std = relative[:, :lookback].square().mean(dim=1, keepdim=True).sqrt().clamp(min=CONSTANT)
        x = relative.div_(std).clamp_(-clip, clip)
        return x, WindowScale(mean, std * unit, window[:, lookback - 1 : lookback, CLOSE])

    def denormalise(self, x: Tensor, scale: WindowScale, clip: float) -> Tensor:
        """Convert normalised paths ``(B, S, h, C)`` after the known candles into candles, same shape."""
        return x * scale.std[:, None] + scale.mean[:, None]

    def closes(self, known: Tensor, x: Tensor, clip: float) -> tuple[Tensor, Tensor]:
        """Return the last known close ``(B,)`` and the closes ``(…, h)`` of paths, in the units of the window.

        Args:
            known: normalised known rows ``(B, L, C)``.
            x: normalised rows after them, ``(B, …, h, C)``.
            clip: bound of the normalised values.
        """
        return known[:, -1, CLOSE], x[..., CLOSE]

    def log_returns(self, x: Tensor, scale: WindowScale, clip: float) -> Tensor:
        """Return the log returns of the closes of normalised windows ``(B, W, C)``: ``(B, W − 1)``."""
        close = (x * scale.std + scale.mean)[..., CLOSE]
        close = close.clamp_min(torch.finfo(close.dtype).tiny)
        return (close[:, 1:] / close[:, :-1]).log()


class Returns(Section):
    """Log returns against the close before, in units of the volatility of the lookback; volume in logarithms.

    Open, high, low and close are relative to the close of the candle before (the first row: to its own open), linear up
    to three units and logarithmic beyond. Volume is relative to its own mean; amount is not used, and forecasts have
    the amount of volume × mean price. Paths continue at the real last close, so that they do not carry the error of
    its reconstruction.
    """

    name: Literal["returns"] = "returns"

    def normalise(self, window: Tensor, lookback: int, clip: float, stamp: Tensor) -> tuple[Tensor, WindowScale]:
        """Normalise windows; see `Levels.normalise`."""
        moves, volume = _moves(window), _log_volume(window, lookback)
        mean = torch.zeros_like(window[:, :1])
        level = volume[:, :lookback].mean(dim=1)
        mean[:, 0, VOLUME] = level
        deviation = (volume[:, :lookback] - level[:, None]).square().mean(dim=1).sqrt().clamp(min=STEADY)
        volatility = self._volatility(moves, lookback, stamp)  # (B, 1 or W)
        std = torch.ones(*volatility.shape, window.size(-1), dtype=window.dtype, device=window.device)
        std[..., :PRICED] = RETURN_UNIT * volatility[..., None]
        std[..., VOLUME] = VOLUME_UNIT * deviation[:, None]
        x = torch.zeros_like(window)
        own = std if std.size(1) == 1 else std[:, : window.size(1)]
        x[..., :PRICED] = moves / own[..., :PRICED]
        x[..., VOLUME] = (volume - level[:, None]) / own[..., VOLUME]
        return compress(x).clamp_(-clip, clip), WindowScale(mean, std, window[:, lookback - 1 : lookback, CLOSE])

    def denormalise(self, x: Tensor, scale: WindowScale, clip: float) -> Tensor:
        """Convert normalised paths; see `Levels.denormalise`."""
        values = expand(x.clamp(-clip, clip)) * scale.std[:, None] + scale.mean[:, None]
        moves = values[..., :PRICED]
        before = (moves[..., CLOSE].cumsum(dim=-1) - moves[..., CLOSE]).exp() * scale.close[:, None]
        prices = before[..., None] * moves.exp()
        prices[..., HIGH], prices[..., LOW] = prices.amax(dim=-1), prices.amin(dim=-1)
        volume = values[..., VOLUME].exp() * (scale.mean[..., VOLUME] > NO_VOLUME)[:, None]
        return torch.cat([prices, torch.stack([volume, volume * prices.mean(dim=-1)], dim=-1)], dim=-1)

    def closes(self, known: Tensor, x: Tensor, clip: float) -> tuple[Tensor, Tensor]:
        """Return closes relative to the last known close, in units of the volatility; see `Levels.closes`."""
        return torch.zeros_like(known[:, -1, CLOSE]), expand(x[..., CLOSE].clamp(-clip, clip)).cumsum(dim=-1)

    def log_returns(self, x: Tensor, scale: WindowScale, clip: float) -> Tensor:
        """Return the log returns of windows; see `Levels.log_returns`."""
        returns = expand(x.clamp(-clip, clip))[..., CLOSE] * scale.std[..., : x.size(1), CLOSE]
        return returns[:, 1:]

    def _volatility(self, moves: Tensor, lookback: int, stamp: Tensor) -> Tensor:
        """Return the root mean square of the lookback's log returns, ``(B, 1)``."""
        returns = moves[:, :lookback, CLOSE]
        return returns.square().mean(dim=1, keepdim=True).sqrt().clamp(min=QUIETEST)


class ScaledReturns(Returns):
    """Log returns in units of the volatility that is forecast at the end of the lookback, by hour of the week.

    The forecast is a heterogeneous autoregression of the candles' ranges: the log variance of the candles to come is
    regressed on the logs of its means over several spans of the lookback, all without the weekly rhythm. It is fitted
    on the training candles by `fit_scaled_returns`.

    season: factor of the volatility of each hour of the week from Monday 00:00, 168 numbers.
    spans: numbers of candles over which the variance is averaged.
    coefficients: intercept, and one coefficient per span.
    """

    name: Literal["scaled_returns"] = "scaled_returns"  # type: ignore[assignment]
    season: Annotated[list[Annotated[float, Field(gt=0, lt=1e3)]], Field(min_length=HOURS, max_length=HOURS)]
    spans: Annotated[list[Annotated[int, Field(gt=0)]], Field(min_length=1, max_length=20)]
    coefficients: list[Annotated[float, Field(allow_inf_nan=False)]]

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if len(self.coefficients) != 1 + len(self.spans):
            raise ValueError(f"coefficients: {len(self.coefficients)} for {len(self.spans)} spans and an intercept")
        return self

    def _volatility(self, moves: Tensor, lookback: int, stamp: Tensor) -> Tensor:
        """Return the volatility of every row that has a stamp, ``(B, ≥ W)``."""
        season = torch.tensor(self.season, dtype=moves.dtype, device=moves.device)[_hour_of_week(stamp)]
        features = _features(moves[:, :lookback], season[:, :lookback], self.spans)
        weights = torch.tensor(self.coefficients, dtype=moves.dtype, device=moves.device)
        level = (0.5 * (features @ weights[1:] + weights[0])).exp().clamp(min=QUIETEST)
        return level[:, None] * season


Representation = Annotated[Levels | Returns | ScaledReturns, Field(discriminator="name")]
AnyRepresentation = Levels | Returns  # their common base in annotations; ScaledReturns is a Returns
ADAPTER: TypeAdapter[AnyRepresentation] = TypeAdapter(Representation)
LEVELS, RETURNS = Levels(), Returns()


def read_representation(content: Any, label: str) -> AnyRepresentation:
    """Read a representation from the content of a JSON file; None (of earlier versions) means levels.

    Raises:
        CandleError: the content is not a representation; the message begins with `label`.
    """
    if content is None:
        return LEVELS
    try:
        return ADAPTER.validate_python(content)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, ("representation", *first["loc"])))
        raise CandleError(f"{label}: {place}: {first['msg']}; train again") from error


def compress(z: Tensor) -> Tensor:
    """Compress values beyond ±3 logarithmically; the order of values is kept."""
    size = z.abs()
    return torch.where(size <= LINEAR, z, z.sign() * (LINEAR + (size - LINEAR).clamp(min=0).log1p()))


def expand(z: Tensor) -> Tensor:
    """Invert `compress`."""
    size = z.abs()
    return torch.where(size <= LINEAR, z, z.sign() * (LINEAR + (size - LINEAR).clamp(min=0).expm1()))


def fit_scaled_returns(windows: Tensor, stamps: Tensor, lookback: int) -> ScaledReturns:
    """Fit the volatility forecast of `ScaledReturns` on training windows.

    Args:
        windows: candles ``(B, W, C)`` with the rows to forecast after the lookback.
        stamps: time features ``(B, W, 5)``.
        lookback: number of known rows, L.
    """
    moves, hours = _moves(windows.double()), _hour_of_week(stamps)
    season = _fit_season(moves[:, lookback:, CLOSE], _variance(moves[:, :lookback]).mean(dim=1), hours[:, lookback:])
    factors = season[hours]
    spans = [span for span in (1, 3, 6, 24, 72, 168) if span < lookback] + [lookback]
    features = _features(moves[:, :lookback], factors[:, :lookback], spans)
    coming = (moves[:, lookback:, CLOSE] / factors[:, lookback:]).square()
    target = _variance(moves[:, lookback:], factors[:, lookback:]).mean(dim=1).clamp(min=QUIETEST**2).log()
    design = torch.cat([torch.ones_like(features[:, :1]), features], dim=1)
    gram = design.T @ design
    gram.diagonal().add_(1e-6 * gram.diagonal())
    weights = torch.linalg.solve(gram, design.T @ target)
    # The regression forecasts the mean of logs of ranges; the scale is that of the squared returns.
    weights[0] += (coming.mean(dim=1) / (design @ weights).exp()).mean().clamp(min=QUIETEST).log()
    return ScaledReturns(season=season.tolist(), spans=spans, coefficients=weights.tolist())


def _fit_season(returns: Tensor, variance: Tensor, hours: Tensor) -> Tensor:
    """Return the factor of volatility by hour of the week, ``(168,)``, shrunk towards that of its hour of the day."""
    relative = (returns.square() / variance.clamp(min=QUIETEST**2)[:, None]).flatten().sqrt()
    factor, groups = torch.ones(HOURS, dtype=relative.dtype), hours.flatten()
    for place in (groups % 24, groups):
        sums = torch.zeros(HOURS, dtype=relative.dtype).index_add_(0, place, relative)
        counts = torch.bincount(place, minlength=HOURS)
        own = relative.mean().clamp(min=QUIETEST)
        factor = (sums / own + 20 * factor) / (counts + 20)
        if place is not groups:
            factor = factor[torch.arange(HOURS) % 24]
    return (factor / factor.square().mean().sqrt()).clamp(0.1, 10)


def _moves(window: Tensor) -> Tensor:
    """Return log prices relative to the close before, ``(B, W, 4)``; the first row relative to its own open."""
    prices = window[..., :PRICED].clamp(min=torch.finfo(window.dtype).tiny)
    before = torch.cat([prices[:, :1, OPEN], prices[:, :-1, CLOSE]], dim=1)[..., None]
    return ((prices - before) / before).log1p()  # differences of logarithms would lose digits in float32


def _log_volume(window: Tensor, lookback: int) -> Tensor:
    volume = window[..., VOLUME]
    mean = volume[:, :lookback].mean(dim=1, keepdim=True)
    return volume.clamp(min=SMALLEST).maximum(LEAST_VOLUME * mean).log()


def _hour_of_week(stamp: Tensor) -> Tensor:
    """Return the hour of the week ``(B, W)`` from time features: minute hour weekday day month."""
    return stamp[..., 2].long() * 24 + stamp[..., 1].long()


def _variance(moves: Tensor, season: Tensor | float = 1.0) -> Tensor:
    """Return the Garman-Klass variance of candles without their weekly rhythm, ``(B, W)``."""
    open_, high, low, close = moves.unbind(dim=-1)
    found = 0.5 * (high - low).square() - (2 * math.log(2) - 1) * (close - open_).square()
    return found.clamp(min=0) / season**2


def _features(moves: Tensor, season: Tensor, spans: list[int]) -> Tensor:
    """Return log mean variances over the last candles of the lookback, one per span: ``(B, k)``."""
    variance = _variance(moves, season)
    floor = (0.01 * variance.mean(dim=1)).clamp(min=QUIETEST**2)
    means = [variance[:, -span:].mean(dim=1) for span in spans]
    return torch.stack([mean.maximum(floor).log() for mean in means], dim=1)
