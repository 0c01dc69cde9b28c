"""Leak certificate: proof by mutation that nothing up to a candle depends on later candles."""

from .proof import ProofResult, Subject, prove

__all__ = ["ProofResult", "Subject", "prove"]
