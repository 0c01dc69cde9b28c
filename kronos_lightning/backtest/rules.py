"""Execution rules: costs and limits of a strategy."""

from typing import Annotated, Literal

from pydantic import Field

from kronos_lightning.settings import Count, Positive, Section, Share


class ExecutionRules(Section):
    """Execution rules that turn signals into positions; the defaults have no costs and no limits.

    cost: share of the traded value, per side.
    max_position: share of the equity that a position takes when it is opened.
    stop_loss, take_profit: loss and gain, as shares of the entry price, that close a position; None = no such exit.
    max_drawdown: fall from the highest equity, as a share of it and measured at closes, that halts trading; None = no
        limit.
    side: SELL closes a long position (long_only) or also opens a short one (long_short).
    slippage: share of the price by which a fill is worse than the candle's price. It applies to market orders (signals,
        drawdown halts, the end) and to stops; targets are limit orders and fill at their price or a better price.
    cooldown: number of candles whose signals a halt suppresses, including the candle of the halt. Then trading resumes
        and the highest equity is reset. None = a halt is permanent.
    """

    cost: Annotated[float, Field(ge=0, lt=1)] = 0.0
    max_position: Share = 1.0
    stop_loss: Annotated[float, Field(gt=0, lt=1)] | None = None
    take_profit: Positive | None = None
    max_drawdown: Annotated[float, Field(gt=0, lt=1)] | None = None
    side: Literal["long_only", "long_short"] = "long_only"
    slippage: Annotated[float, Field(ge=0, lt=1)] = 0.0
    cooldown: Count | None = None
