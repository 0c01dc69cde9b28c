"""Numbers as people read them. Undefined ones (None, NaN, infinite) are a dash."""

import math

UNDEFINED = "–"


def number(value: float | None) -> str:
    """Five digits; two decimals and separated thousands from 1,000 on."""
    if value is None or not math.isfinite(value):
        return UNDEFINED
    return f"{value:,.2f}" if abs(value) >= 1000 else f"{value:.5g}"


def percent(value: float, decimals: int = 2) -> str:
    """Share in per cent: 0.1234 → "12.34 %"."""
    return f"{value * 100:.{decimals}f} %" if math.isfinite(value) else UNDEFINED


def share(value: float) -> str:
    """Share in per cent with one decimal, without a space: 0.1234 → "12.3%"."""
    return f"{value:.1%}" if math.isfinite(value) else UNDEFINED


def signed(value: float, decimals: int = 1) -> str:
    """Relative change in per cent with its sign: 0.1234 → "+12.3%"."""
    return f"{value:+.{decimals}%}" if math.isfinite(value) else UNDEFINED


def correlation(value: float) -> str:
    """Three decimals and the sign: 0.1234 → "+0.123"."""
    return f"{value:+.3f}" if math.isfinite(value) else UNDEFINED


def p_value(value: float) -> str:
    """Such as "p = 0.012" or "p < 0.001"."""
    return UNDEFINED if math.isnan(value) else "p < 0.001" if value < 0.001 else f"p = {value:.3f}"
