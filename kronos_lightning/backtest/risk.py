"""Costs and limits of a strategy."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Rules:
    """How signals become positions.

    cost: of the traded value, each side.
    max_position: share of the equity that a position takes.
    stop_loss, take_profit: loss and gain from the entry price that close a position; None = none.
    max_drawdown: fall from the highest equity at which trading ends; None = none.
    side: SELL closes a long position (long_only) or also opens a short one (long_short).
    """

    cost: float = 0.001
    max_position: float = 1.0
    stop_loss: float | None = 0.05
    take_profit: float | None = 0.15
    max_drawdown: float | None = 0.20
    side: Literal["long_only", "long_short"] = "long_only"


@dataclass(frozen=True)
class Exit:
    """Where a stop or target closes a position inside a candle."""

    price: float
    reason: Literal["stop", "target"]
    ambiguous: bool  # the candle held both; the stop is taken


def exit_inside(rules: Rules, direction: int, entry: float, open_: float, high: float, low: float) -> Exit | None:
    """Whether stop or target is met in a candle; None = neither.

    A price that opens beyond stop or target fills at the open; else at the level itself. Where one candle reaches
    both after its open, their order is unknown and the stop counts.

    Args:
        direction: +1 long, −1 short.
        entry: entry price of the position.
        open_, high, low: of the candle.
    """
    worst, best = (low, high) if direction > 0 else (high, low)
    stop = None if rules.stop_loss is None else entry * (1 - direction * rules.stop_loss)
    target = None if rules.take_profit is None else entry * (1 + direction * rules.take_profit)
    stopped = stop is not None and (worst - stop) * direction <= 0
    reached = target is not None and (best - target) * direction >= 0
    if stopped and (open_ - stop) * direction <= 0:
        return Exit(open_, "stop", ambiguous=False)
    if reached and (open_ - target) * direction >= 0:
        return Exit(open_, "target", ambiguous=False)
    if stopped:
        return Exit(stop, "stop", ambiguous=reached)
    return Exit(target, "target", ambiguous=False) if reached else None
