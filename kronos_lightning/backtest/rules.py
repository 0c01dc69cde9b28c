"""Execution rules: costs and limits of a strategy."""

from typing import Annotated, Literal

from pydantic import Field

from kronos_lightning.settings import Count, Positive, Section, Share


class ExecutionRules(Section):
    """How signals become positions. The defaults are free of costs and limits.

    cost: of the traded value, each side.
    max_position: share of the equity that a position takes when it is opened.
    stop_loss, take_profit: loss and gain from the entry price that close a position; None = none.
    max_drawdown: fall from the highest equity, seen at a close, at which trading halts; None = none.
    side: SELL closes a long position (long_only) or also opens a short one (long_short).
    slippage: share of the price by which a fill is worse than the candle says. It hits what trades at the market
        (signals, drawdown halts, the end) and stops; targets are limit orders and get their price or a better one.
    cooldown: candles whose signals a halt suppresses, that of the halt included; then trading resumes and the highest
        equity counts anew. None = a halt is for good.
    """

    cost: Annotated[float, Field(ge=0, lt=1)] = 0.0
    max_position: Share = 1.0
    stop_loss: Annotated[float, Field(gt=0, lt=1)] | None = None
    take_profit: Positive | None = None
    max_drawdown: Annotated[float, Field(gt=0, lt=1)] | None = None
    side: Literal["long_only", "long_short"] = "long_only"
    slippage: Annotated[float, Field(ge=0, lt=1)] = 0.0
    cooldown: Count | None = None
