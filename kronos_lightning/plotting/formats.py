"""Number formats for readers; undefined numbers (None, NaN, infinite) become a dash."""

import math

UNDEFINED = "–"


def number(value: float | None) -> str:
    """Format a number with five significant digits; from 1,000 on with two decimals and thousands separators."""
    if value is None or not math.isfinite(value):
        return UNDEFINED
    return f"{value:,.2f}" if abs(value) >= 1000 else f"{value:.5g}"


def percent(value: float, decimals: int = 2) -> str:
    """Format a share in per cent: 0.1234 → "12.34 %"."""
    return f"{value * 100:.{decimals}f} %" if math.isfinite(value) else UNDEFINED


def share(value: float) -> str:
    """Format a share in per cent with one decimal and without a space: 0.1234 → "12.3%"."""
    return f"{value:.1%}" if math.isfinite(value) else UNDEFINED


def signed(value: float, decimals: int = 1) -> str:
    """Format a relative change in per cent with its sign: 0.1234 → "+12.3%"."""
    return f"{value:+.{decimals}%}" if math.isfinite(value) else UNDEFINED


def correlation(value: float) -> str:
    """Format a correlation with its sign and three decimals: 0.1234 → "+0.123"."""
    return f"{value:+.3f}" if math.isfinite(value) else UNDEFINED


def p_value(value: float) -> str:
    """Format a p-value, such as "p = 0.012" or "p < 0.001"."""
    return UNDEFINED if math.isnan(value) else "p < 0.001" if value < 0.001 else f"p = {value:.3f}"
