"""Building blocks of settings and stored content: sections, bounded numbers, dates, JSON files, safe text."""

from .dates import as_utc, end_of, interval_name, parse_interval
from .section import Count, NotNegative, Positive, Probability, Section, Share, as_list
from .stored import Stored, read_stored

__all__ = [
    "Count",
    "NotNegative",
    "Positive",
    "Probability",
    "Section",
    "Share",
    "Stored",
    "as_list",
    "as_utc",
    "end_of",
    "interval_name",
    "parse_interval",
    "read_stored",
]
