"""The backtest, candle by candle: decide at a close, fill at the next open.

Shape letter: T candles.
"""

from dataclasses import asdict, dataclass

import numpy as np
import pandas as pd

from .risk import Rules, exit_inside
from .signals import BUY, HOLD

FLATTEN = 2  # an order of the drawdown halt: close what is open


@dataclass(frozen=True)
class Trade:
    """One position from entry to exit."""

    direction: int  # +1 long, −1 short
    entry_time: pd.Timestamp  # open time of the candle
    entry_price: float
    exit_time: pd.Timestamp
    exit_price: float
    quantity: float  # base units
    costs: float  # quote units, both sides
    profit: float  # quote units, after costs
    reason: str  # signal, stop, target, drawdown, end


@dataclass(frozen=True)
class Backtest:
    """Result of a run.

    equity: quote units at each candle's close, ``(T,)``; the first is the initial equity.
    position: base units held at each close, ``(T,)``.
    trades: in order of exit.
    ambiguous: candles that held both stop and target.
    halted: open time of the candle at whose close the drawdown limit ended trading, or None.
    """

    equity: np.ndarray
    position: np.ndarray
    trades: list[Trade]
    ambiguous: int
    halted: pd.Timestamp | None

    def trade_table(self) -> pd.DataFrame:
        """The trades, one row each."""
        return pd.DataFrame([asdict(trade) for trade in self.trades], columns=list(Trade.__annotations__))


def run_backtest(candles: pd.DataFrame, signals: np.ndarray, rules: Rules, initial_equity: float) -> Backtest:
    """Trade the signals on the candles.

    A signal of candle t is known at its close and fills at the open of t + 1; no price of t + 1 or later can reach a
    decision. What is still open at the end is closed at the last close.

    Args:
        candles: candle frame, T rows.
        signals: BUY, HOLD or SELL ``(T,)``, decided at each close.
        rules: costs and limits.
        initial_equity: quote units at the close of the first candle.
    """
    stamps, close = candles["timestamps"], candles["close"].tolist()
    open_, high, low = (candles[name].tolist() for name in ("open", "high", "low"))
    decisions = signals.tolist()
    book = _Book(rules, initial_equity, stamps)
    equity, position, peak, halted = [initial_equity], [0.0], initial_equity, None
    order = decisions[0]
    for t in range(1, len(close)):
        if order == FLATTEN:
            book.close(t, open_[t], "drawdown")
        elif order != HOLD:
            book.follow(order, t, open_[t])
        book.check_limits(t, open_[t], high[t], low[t])
        value = book.value(close[t])
        peak = max(peak, value)
        if halted is None and (value <= 0 or (rules.max_drawdown and value / peak - 1 <= -rules.max_drawdown)):
            halted, order = t, FLATTEN
        else:
            order = decisions[t] if halted is None else HOLD
        equity.append(value)
        position.append(book.quantity)
    book.close(len(close) - 1, close[-1], "end")
    equity[-1] = book.cash
    halt_time = None if halted is None else stamps.iloc[halted]
    return Backtest(np.array(equity), np.array(position), book.trades, book.ambiguous, halt_time)


class _Book:
    """Cash, the open position, and the trades so far."""

    def __init__(self, rules: Rules, cash: float, stamps: pd.Series):
        self.rules, self.cash, self.stamps = rules, cash, stamps
        self.quantity = 0.0  # base units, negative = short
        self.trades: list[Trade] = []
        self.ambiguous = 0
        self.entry: tuple[int, float, float] = (0, 0.0, 0.0)  # candle, price, costs

    @property
    def direction(self) -> int:
        return int(np.sign(self.quantity))

    def value(self, price: float) -> float:
        """Equity at a price."""
        return self.cash + self.quantity * price

    def follow(self, order: int, t: int, price: float) -> None:
        """Bring the position in line with a BUY or SELL."""
        if order == self.direction:
            return
        self.close(t, price, "signal")
        if (order == BUY or self.rules.side == "long_short") and self.cash > 0:
            # The costs come out of the share that is invested, so that a full position borrows nothing.
            size = self.rules.max_position * self.cash / (price * (1 + self.rules.cost))
            costs = self.rules.cost * size * price
            self.quantity = order * size
            self.cash -= self.quantity * price + costs
            self.entry = (t, price, costs)

    def check_limits(self, t: int, open_: float, high: float, low: float) -> None:
        """Close at a stop or target that the candle reaches."""
        if self.quantity == 0:
            return
        exit_ = exit_inside(self.rules, self.direction, self.entry[1], open_, high, low)
        if exit_ is not None:
            self.ambiguous += exit_.ambiguous
            self.close(t, exit_.price, exit_.reason)

    def close(self, t: int, price: float, reason: str) -> None:
        """Close the position, if there is one, at a price."""
        if self.quantity == 0:
            return
        entered, entry_price, entry_costs = self.entry
        exit_costs = self.rules.cost * abs(self.quantity) * price
        self.cash += self.quantity * price - exit_costs
        costs = entry_costs + exit_costs
        profit = self.quantity * (price - entry_price) - costs
        self.trades.append(
            Trade(
                self.direction,
                self.stamps.iloc[entered],
                entry_price,
                self.stamps.iloc[t],
                price,
                abs(self.quantity),
                costs,
                profit,
                reason,
            )
        )
        self.quantity = 0.0
