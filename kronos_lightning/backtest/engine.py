"""Backtest engine, candle by candle: decide at a close, fill at the next open.

The structure of the code prevents look-ahead. Only `_simulate` reads whole arrays: it reads the prices of the current
candle t after the order for t is fixed, and the signal of t after everything else of t. Every other function gets the
prices of one candle and the book, so it cannot reach a later price; `_settle` also reads the intrabar candles of t.

All compiled functions are in this file, because numba's cache notices only changes in the file of the caller. The cache
files name the types of the arguments: when one of these named tuples is renamed or moved, `_simulate` needs a new name
too, or the old cache files cannot be read.

Shape letters: T candles, K trades.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd
from numba import njit

from .market_data import Intrabar, MarketData, Prices
from .rules import ExecutionRules
from .strategy import BUY, HOLD, SELL

FLATTEN = 2  # order of a halt, by drawdown or from outside: close the open position
ROUNDING = 1e-12  # a drawdown equal to the limit counts as reached, such as one stop of 5 % at a limit of 5 %
FOREVER = -1
REASONS = np.array(["none", "signal", "stop", "target", "drawdown", "halt", "end"])
NONE, SIGNAL, STOP, TARGET, DRAWDOWN, HALT, END = range(len(REASONS))
TRADE = np.dtype(
    [
        ("direction", np.int64),  # +1 long, −1 short
        ("entry", np.int64),  # row of the candle
        ("entry_price", np.float64),  # as filled, slippage included
        ("exit", np.int64),
        ("exit_price", np.float64),
        ("quantity", np.float64),  # base units
        ("costs", np.float64),  # quote units, both sides
        ("profit", np.float64),  # quote units, after costs
        ("reason", np.int64),  # of the exit, in `REASONS`
    ]
)
BOOK = np.dtype(
    [
        ("cash", np.float64),
        ("quantity", np.float64),  # base units, negative = short
        ("entry", np.int64),
        ("entry_price", np.float64),
        ("entry_costs", np.float64),
        ("peak", np.float64),  # highest equity at a close since the start or the last cool-down
        ("waiting", np.int64),  # closes until trading resumes, or FOREVER
        ("closed", np.int64),  # trades so far
        ("ambiguous", np.int64),
        ("resolved_intrabar", np.int64),
    ]
)
compiled = njit(nogil=True, error_model="numpy")
compiled_once = njit(nogil=True, error_model="numpy", cache=True)  # cached on disk, with all functions that it calls


class _Limits(NamedTuple):
    """Execution rules as numbers; NaN = no limit, because no price compares as beyond NaN."""

    cost: float
    slippage: float
    max_position: float
    stop_loss: float
    take_profit: float
    max_drawdown: float
    cooldown: int
    shorts: bool


class _Curves(NamedTuple):
    """Output arrays that a run fills candle by candle; see `Backtest`."""

    equity: np.ndarray
    position: np.ndarray
    halted: np.ndarray


@dataclass(frozen=True, kw_only=True)
class Backtest:
    """Result of a backtest.

    stamps, interval: open times and length of the candles, as in `MarketData`.
    equity: equity in quote units at each candle's close, ``(T,)``; the first value is the initial equity.
    position: base units held at each close, ``(T,)``; the last value is before the final closing of the position.
    open_trade: open time and price of the entry into a position that is still open; None = there is none.
    halted: True if a drawdown halt suppressed the signal of a close, bool ``(T,)``.
    trades: structured array ``(K,)`` of `TRADE`, in order of exit.
    ambiguous: number of candles that reached both stop and target, in which the stop was assumed to come first.
    resolved_intrabar: number of candles that reached both, in which intrabar candles determined the order.
    """

    stamps: pd.DatetimeIndex
    interval: pd.Timedelta
    equity: np.ndarray
    position: np.ndarray
    halted: np.ndarray
    trades: np.ndarray
    ambiguous: int
    resolved_intrabar: int
    open_trade: tuple[pd.Timestamp, float] | None = None

    @property
    def returns(self) -> np.ndarray:
        """Net return of each candle except the first, ``(T − 1,)``; 0 once no equity is left."""
        before = self.equity[:-1]
        net: np.ndarray = np.divide(self.equity[1:], before, out=np.ones_like(before), where=before > 0) - 1
        return net

    @property
    def halts(self) -> pd.DatetimeIndex:
        """Open times of the candles at whose close the drawdown limit was reached."""
        reached: pd.DatetimeIndex = self.stamps[1:][self.halted[1:] & ~self.halted[:-1]]
        return reached

    def trade_table(self) -> pd.DataFrame:
        """Return the trades as a table, one row per trade."""
        columns: dict[str, np.ndarray | pd.DatetimeIndex] = {name: self.trades[name] for name in TRADE.names or ()}
        for side in ("entry", "exit"):
            columns[side] = self.stamps[self.trades[side]]
        columns["reason"] = REASONS[self.trades["reason"]]
        return pd.DataFrame(columns).rename(columns={"entry": "entry_time", "exit": "exit_time"})

    def signal_table(self, signals: np.ndarray) -> pd.DataFrame:
        """Return the signals ``(T,)`` of this run with its halts as a table, one row per close, for a trading bot.

        The columns are those of a live record: cutoff (open time of the candle, UTC), signal, halted, late.
        """
        names = pd.Series({BUY: "BUY", HOLD: "HOLD", SELL: "SELL"})
        columns = {"signal": names.loc[signals].to_numpy(), "halted": self.halted, "late": False}
        return pd.DataFrame({"cutoff": pd.to_datetime(self.stamps, utc=True), **columns})


def run_backtest(
    market: MarketData, signals: np.ndarray, rules: ExecutionRules, initial_equity: float, close_at_end: bool = True
) -> Backtest:
    """Trade the signals on the candles.

    A signal of candle t is known at its close and fills at the open of the next candle; no price of t + 1 or later
    can reach a decision. BUY and SELL ask for a position, and nothing happens if it is already held. FLATTEN closes the
    position, such as for a halt that a person ordered. Equity at or below zero at a close (possible with short
    positions) ends trading like a drawdown halt without cool-down; margin calls inside a candle are not modelled.

    Args:
        market: T candles.
        signals: BUY, HOLD, SELL or FLATTEN ``(T,)``, decided at each close.
        rules: execution rules: costs and limits.
        initial_equity: equity in quote units at the close of the first candle.
        close_at_end: close an open position at the last close; False for candles that go on.

    Raises:
        ValueError: the number of signals differs from the number of candles.
    """
    if signals.shape != (len(market),):
        raise ValueError(f"expected one signal for each of {len(market)} candles, got {signals.shape}")
    limits = _Limits(
        cost=float(rules.cost),
        slippage=float(rules.slippage),
        max_position=float(rules.max_position),
        stop_loss=_or_nan(rules.stop_loss),
        take_profit=_or_nan(rules.take_profit),
        max_drawdown=_or_nan(rules.max_drawdown),
        cooldown=FOREVER if rules.cooldown is None else rules.cooldown,
        shorts=rules.side == "long_short",
    )
    orders = np.array(signals, dtype=np.int64)
    curves = _Curves(np.empty(len(orders)), np.zeros(len(orders)), np.zeros(len(orders), dtype=bool))
    book, trades = np.zeros(1, BOOK), np.empty(np.count_nonzero(orders), TRADE)  # an order opens one trade at most
    book["cash"] = book["peak"] = initial_equity
    _simulate(market.prices, market.intrabar, orders, limits, book[0], trades, curves, close_at_end)
    held = book[0]["quantity"] != 0
    return Backtest(
        stamps=market.stamps,
        interval=market.interval,
        equity=curves.equity,
        position=curves.position,
        halted=curves.halted,
        trades=trades[: int(book[0]["closed"])].copy(),
        ambiguous=int(book[0]["ambiguous"]),
        resolved_intrabar=int(book[0]["resolved_intrabar"]),
        open_trade=(market.stamps[book[0]["entry"]], float(book[0]["entry_price"])) if held else None,
    )


def _or_nan(limit: float | None) -> float:
    return np.nan if limit is None else float(limit)


@compiled_once
def _simulate(
    prices: Prices,
    intrabar: Intrabar,
    signals: np.ndarray,
    limits: _Limits,
    book: np.record,
    trades: np.ndarray,
    curves: _Curves,
    close_at_end: bool,
) -> None:
    """Run the whole backtest; fill the book, the trades and the curves."""
    equity, position, halted = curves
    equity[0] = book.cash
    order = signals[0]
    for t in range(1, len(signals)):
        # The order is fixed; candle t is read only from here on.
        open_, high, low, close = prices.open[t], prices.high[t], prices.low[t], prices.close[t]
        if order == FLATTEN:
            reason = DRAWDOWN if book.waiting != 0 else HALT
            _close(book, trades, limits, t, _market_price(limits, open_, -book.quantity), reason)
        elif order != HOLD:
            _follow(book, trades, limits, order, t, open_)
        if book.quantity != 0:
            price, reason, ambiguous = _exit_inside(book, limits, open_, high, low)
            if ambiguous:
                price, reason = _settle(book, limits, price, intrabar, t)
            if reason == STOP:
                price = _market_price(limits, price, -book.quantity)
            if reason != NONE:
                _close(book, trades, limits, t, price, reason)
        equity[t] = book.cash + book.quantity * close
        position[t] = book.quantity
        order = _next_order(book, limits, equity[t], signals[t])
        halted[t] = book.waiting != 0
    if not close_at_end:
        return
    last = len(signals) - 1
    _close(book, trades, limits, last, _market_price(limits, prices.close[last], -book.quantity), END)
    equity[last] = book.cash


@compiled
def _next_order(book: np.record, limits: _Limits, value: float, signal: int) -> int:
    """Return the order for the next open, from the equity at this close and this candle's signal."""
    if book.waiting != 0:
        book.waiting -= 1
        if book.waiting != 0:
            return HOLD
        book.peak = value
    peak = max(book.peak, value)
    book.peak = peak
    if value <= 0:
        book.waiting = FOREVER
        return FLATTEN
    if value / peak - 1 <= ROUNDING - limits.max_drawdown:
        book.waiting = limits.cooldown
        return FLATTEN
    return signal


@compiled
def _market_price(limits: _Limits, price: float, direction: float) -> float:
    """Return the market price of a buy (positive direction) or a sale, slippage included."""
    return float(price * (1 + np.sign(direction) * limits.slippage))


@compiled
def _follow(book: np.record, trades: np.ndarray, limits: _Limits, order: int, t: int, open_: float) -> None:
    """Change the position to what a BUY or SELL asks for."""
    if order == np.sign(book.quantity):
        return
    _close(book, trades, limits, t, _market_price(limits, open_, -book.quantity), SIGNAL)
    if (order == BUY or limits.shorts) and book.cash > 0:
        price = _market_price(limits, open_, order)
        # The costs are paid from the invested share, so that a full position borrows nothing.
        size = limits.max_position * book.cash / (price * (1 + limits.cost))
        quantity, costs = order * size, limits.cost * size * price
        book.quantity = quantity
        book.entry, book.entry_price, book.entry_costs = t, price, costs
        book.cash -= quantity * price + costs


@compiled
def _close(book: np.record, trades: np.ndarray, limits: _Limits, t: int, price: float, reason: int) -> None:
    """Close the position, if there is one, at a price."""
    if book.quantity == 0:
        return
    exit_costs = limits.cost * abs(book.quantity) * price
    book.cash += book.quantity * price - exit_costs
    trade = trades[book.closed]
    trade.direction = np.sign(book.quantity)
    trade.entry, trade.entry_price = book.entry, book.entry_price
    trade.exit, trade.exit_price = t, price
    trade.quantity = abs(book.quantity)
    trade.costs = book.entry_costs + exit_costs
    trade.profit = book.quantity * (price - book.entry_price) - trade.costs
    trade.reason = reason
    book.closed += 1
    book.quantity = 0.0


@compiled
def _exit_inside(book: np.record, limits: _Limits, open_: float, high: float, low: float) -> tuple[float, int, bool]:
    """Return price, reason and ambiguity of an exit by stop or target inside a candle; reason NONE means no exit.

    A candle that opens beyond stop or target fills at the open; otherwise the exit fills at the level itself. If one
    candle reaches both after its open, their order is unknown (ambiguous) and the stop counts.
    """
    direction = np.sign(book.quantity)
    worst, best = (low, high) if direction > 0 else (high, low)
    stop = book.entry_price * (1 - direction * limits.stop_loss)
    target = book.entry_price * (1 + direction * limits.take_profit)
    if (open_ - stop) * direction <= 0:
        return open_, STOP, False
    if (open_ - target) * direction >= 0:
        return open_, TARGET, False
    reached = (best - target) * direction >= 0
    if (worst - stop) * direction <= 0:
        return stop, STOP, reached
    return target, TARGET if reached else NONE, False


@compiled
def _settle(book: np.record, limits: _Limits, stop: float, intrabar: Intrabar, t: int) -> tuple[float, int]:
    """Decide by intrabar candles if stop or target came first in candle t; without a decision the stop counts."""
    if intrabar.per_candle > 0 and intrabar.first[t] >= 0:
        for i in range(intrabar.first[t], intrabar.first[t] + intrabar.per_candle):
            inside = intrabar.prices.open[i], intrabar.prices.high[i], intrabar.prices.low[i]
            price, reason, ambiguous = _exit_inside(book, limits, *inside)
            if ambiguous:
                break
            if reason != NONE:
                book.resolved_intrabar += 1
                return price, reason
    book.ambiguous += 1
    return stop, STOP
