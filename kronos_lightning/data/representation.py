"""Representation of candles for the network: price levels or log returns, scaled by the lookback or by a forecast.

It is a property of a checkpoint: stored in its `training.json`, and used wherever its networks see candles.

Shape letters: B windows, W rows of a window, L lookback, h horizon, S sample paths, C = 6 features.
"""

import math
from typing import Annotated, Any, Literal, NamedTuple

import torch
from pydantic import Field, TypeAdapter, ValidationError
from torch import Tensor

from kronos_lightning.data.formats import CLOSE, HIGH, LOW, PRICES, VOLUME, CandleError
from kronos_lightning.data.volatility_regression import QUIETEST, VolatilityRegression, log_moves
from kronos_lightning.settings import Section

CONSTANT = 2.0**-22  # a smaller standard deviation, relative to the mean, is rounding: the column is constant
SMALLEST = 1e-30  # scale of a column that is zero everywhere
PRICED = len(PRICES)

LINEAR = 3.0  # normalised returns beyond this bound are compressed logarithmically
RETURN_UNIT = 1.2  # standard deviations of the returns in one unit of a normalised return
VOLUME_UNIT = 2.0  # standard deviations of the log volume in one unit of a normalised volume
LEAST_VOLUME = 1e-3  # volume that counts as zero, as a share of the lookback's mean
STEADY = 1e-3  # lower bound of the deviation of the log volume
NO_VOLUME = math.log(SMALLEST) + 1  # mean log volume of a window without any


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
        moves, volume = log_moves(window), _log_volume(window, lookback)
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


class ScaledReturns(Returns, VolatilityRegression):
    """Log returns in units of the volatility that is forecast at the end of the lookback, by hour of the week."""

    name: Literal["scaled_returns"] = "scaled_returns"  # type: ignore[assignment]

    def _volatility(self, moves: Tensor, lookback: int, stamp: Tensor) -> Tensor:
        """Return the volatility of every row that has a stamp, ``(B, ≥ W)``."""
        return self.by_row(moves[:, :lookback], stamp)


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


def _log_volume(window: Tensor, lookback: int) -> Tensor:
    volume = window[..., VOLUME]
    mean = volume[:, :lookback].mean(dim=1, keepdim=True)
    return volume.clamp(min=SMALLEST).maximum(LEAST_VOLUME * mean).log()
