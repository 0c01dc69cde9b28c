"""The leak certificate: proof by mutation that nothing up to a candle depends on what came after it."""

from .proof import Finding, Subject, prove

__all__ = ["Finding", "Subject", "prove"]
