"""The doctor: what is wrong with a candle file, before anything is trained on it."""

from .diagnosis import Diagnosis, diagnose
from .finding import Finding

__all__ = ["Diagnosis", "Finding", "diagnose"]
