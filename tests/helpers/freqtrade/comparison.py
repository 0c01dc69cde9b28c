"""Our trades beside freqtrade's."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

TICK = 0.01
EQUITY_TOLERANCE = 2e-4
FREQTRADE = {
    "open_date": "entry_time", "close_date": "exit_time", "open_rate": "entry_price", "close_rate": "exit_price",
    "profit_abs": "profit", "exit_reason": "reason",
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Trades that ended before the last candle, and how far the two differ.

    ours, theirs: number of such trades.
    same_entry, same_exit: trades of equal time, in order.
    entry_price, exit_price: largest difference of a price.
    our_equity, their_equity: final equity, as a multiple of the first.
    reasons: number of exits by our reason.
    """

    ours: int
    theirs: int
    same_entry: int
    same_exit: int
    entry_price: float
    exit_price: float
    our_equity: float
    their_equity: float
    reasons: dict[str, int]

    @property
    def equal(self):
        """True if both have traded alike, within a tick and the rounding to whole lots."""
        return (
            self.ours == self.theirs == self.same_entry == self.same_exit
            and max(self.entry_price, self.exit_price) <= TICK + 1e-9
            and abs(self.their_equity / self.our_equity - 1) <= EQUITY_TOLERANCE
        )


def from_freqtrade(trades):
    """Trades of freqtrade's export, in the form of our trade table."""
    table = pd.DataFrame(trades)[list(FREQTRADE)].rename(columns=FREQTRADE)
    times = {side: pd.to_datetime(table[side], utc=True) for side in ("entry_time", "exit_time")}
    return table.assign(**times).sort_values("entry_time", ignore_index=True)


def compare(ours, theirs, end, equity):
    """Compare two trade tables of runs that began with `equity`, up to the last candle, which opens at `end`.

    What is still open there is left out: the engine closes it at the last close, freqtrade at the last open.
    """
    ours = ours[pd.to_datetime(ours["exit_time"], utc=True) < end].reset_index(drop=True)
    theirs = theirs[theirs["exit_time"] < end].reset_index(drop=True)
    common = min(len(ours), len(theirs))
    a, b = ours.iloc[:common], theirs.iloc[:common]

    def same(name):
        return int((pd.to_datetime(a[name], utc=True).to_numpy() == b[name].to_numpy()).sum())

    def apart(name):
        return float(np.abs(a[name].to_numpy() - b[name].to_numpy()).max(initial=0.0))

    return Comparison(
        ours=len(ours),
        theirs=len(theirs),
        same_entry=same("entry_time"),
        same_exit=same("exit_time"),
        entry_price=apart("entry_price"),
        exit_price=apart("exit_price"),
        our_equity=1 + ours["profit"].sum() / equity,
        their_equity=1 + theirs["profit"].sum() / equity,
        reasons=ours["reason"].value_counts().to_dict(),
    )


def initial_equity(trades, rules):
    """Equity before the first trade, which took its share of all."""
    first = trades.iloc[0]
    return float(first["quantity"] * first["entry_price"] * (1 + rules["cost"]) / rules["max_position"])
