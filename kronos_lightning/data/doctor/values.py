"""Checks of single candles: numbers, order of prices, volume and amount."""

import numpy as np

from kronos_lightning.data.candles import ROUNDING
from kronos_lightning.data.doctor.finding import Case, Finding, Findings
from kronos_lightning.data.formats import FEATURES, PRICES

SMALL_PRICE = 0.01  # quote units
VWAP_SLACK = 1e-3  # share of the price, because amounts and volumes in lots are rounded


def numbers(case: Case) -> Findings:
    """Find missing columns, missing or infinite values, prices not above zero, and negative volume or amount."""
    for name in FEATURES:
        values = getattr(case, name)
        if values is None:
            yield case.finding("columns", "info", f"there is no {name} column", np.empty(0, dtype=int))
            continue
        broken = ~np.isfinite(values)
        wrong = values <= 0 if name in PRICES else values < 0
        for bad, what in ((broken, "not a number"), (wrong, "not positive" if name in PRICES else "negative")):
            if bad.any():
                check = "missing value" if bad is broken else "negative value"
                yield case.finding(check, "error", f"{name} is {what} in {case.places(bad)}", bad)


def price_order(case: Case) -> Findings:
    """Check that high is the highest and low the lowest price of each candle."""
    top = np.maximum.reduce([case.open, case.close, case.low]) * (1 - ROUNDING)
    bottom = np.minimum.reduce([case.open, case.close, case.high]) * (1 + ROUNDING)
    bad = (case.high < top) | (case.low > bottom)
    if bad.any():
        yield case.finding("price order", "error", f"high or low lies inside the candle in {case.places(bad)}", bad)


def small_prices(case: Case) -> Findings:
    """Report prices so small that the published code's normalisation distorts them."""
    typical = float(np.nanmedian(case.close))
    if typical < SMALL_PRICE:
        message = (
            f"prices near {typical:.2g}: this package's forecasts do not depend on the unit of price; the published "
        )
        message += "code adds 1e-5 to the standard deviation, which makes its intervals for such prices too wide"
        yield Finding("small prices", "info", message)


def amounts(case: Case) -> Findings:
    """Check that amount / volume is the average price of the candle, times the size of a lot."""
    if case.volume is None or case.amount is None:
        return
    price = (case.open + case.high + case.low + case.close) / 4
    traded = (case.volume > 0) & (case.amount > 0) & (case.low > 0)
    traded &= np.isfinite(case.volume) & np.isfinite(case.amount) & np.isfinite(price)
    if traded.sum() < 10:
        return
    average = np.divide(case.amount, case.volume, out=np.ones(len(case)), where=traded)
    ratio = float(np.median(average[traded] / price[traded]))
    power = np.log10(ratio)
    if abs(power - round(power)) < 0.02:
        scale = 10.0 ** round(power)
        if scale > 1:
            message = f"volume is in lots of {scale:g}: amount / volume is {scale:g} x the price"
            yield case.finding("amount scale", "info", message, np.empty(0, dtype=int), scale=scale)
        elif scale < 1:
            message = f"amount is in units of {1 / scale:g}, or volume is {1 / scale:g} times too large"
            yield case.finding("amount scale", "info", message, np.empty(0, dtype=int), scale=scale)
    else:
        middle = float(np.median(average[traded]))
        if abs(middle - 1) < 0.02:
            message = "amount repeats the volume: it is in base units, not in quote units"
        elif abs(np.median(average[traded] * price[traded]) - 1) < 0.02:
            message = "volume and amount are swapped: volume / amount is the price"
        else:
            message = f"amount / volume is {ratio:.4g} x the price: not a known scale"
        yield case.finding("amount scale", "warning", message, np.empty(0, dtype=int), scale=ratio)
        return
    slack = np.where(traded, VWAP_SLACK * price, 0.0)
    average = average / scale
    outside = traded & ((average < case.low - slack) | (average > case.high + slack))
    if outside.any():
        message = f"amount / volume lies outside the candle's low and high in {case.places(outside)}"
        yield case.finding("amount outside candle", "warning", message, outside)


def no_trade(case: Case) -> Findings:
    """Find candles with zero volume, which is impossible if the price moved."""
    if case.volume is None or not (case.volume > 0).any():
        return
    zero = case.volume == 0
    moved = zero & (case.high > case.low)
    if moved.any():
        message = f"the price moved without volume in {case.places(moved)}"
        yield case.finding("zero volume", "warning", message, moved)
    still = zero & ~moved
    if still.any():
        message = f"nothing was traded in {case.places(still)}: an outage, a quiet market, or filled in later"
        yield case.finding("zero volume", "warning" if still.mean() > 0.01 else "info", message, still)
