"""Costs and limits of a strategy."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Rules:
    """How signals become positions.

    cost: of the traded value, each side.
    max_position: share of the equity that a position takes when it is opened.
    stop_loss, take_profit: loss and gain from the entry price that close a position; None = none.
    max_drawdown: fall from the highest equity, seen at a close, at which trading halts; None = none.
    side: SELL closes a long position (long_only) or also opens a short one (long_short).
    slippage: share of the price by which a fill is worse than the candle says. It hits what trades at the market
        (signals, drawdown halts, the end) and stops; targets are limit orders and get their price or a better one.
    cooldown: candles whose signals a halt suppresses, that of the halt included; then trading resumes and the highest
        equity counts anew. None = a halt is for good.

    Raises:
        ValueError: a cooldown below 1.
    """

    cost: float = 0.001
    max_position: float = 1.0
    stop_loss: float | None = 0.05
    take_profit: float | None = 0.15
    max_drawdown: float | None = 0.20
    side: Literal["long_only", "long_short"] = "long_only"
    slippage: float = 0.0
    cooldown: int | None = None

    def __post_init__(self) -> None:
        if self.cooldown is not None and self.cooldown < 1:
            raise ValueError(f"cooldown must be at least 1 candle, or None (it is {self.cooldown})")
