"""Building blocks of settings: the section base class, bounded numbers, dates and intervals."""

from .dates import as_utc, end_of, interval_name, parse_interval
from .section import Count, NotNegative, Positive, Probability, Section, Share, as_list

__all__ = [
    "Count",
    "NotNegative",
    "Positive",
    "Probability",
    "Section",
    "Share",
    "as_list",
    "as_utc",
    "end_of",
    "interval_name",
    "parse_interval",
]
