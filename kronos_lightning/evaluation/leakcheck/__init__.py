"""The leak certificate: proof by mutation that nothing up to a candle depends on what came after it."""

from .proof import ProofResult, Subject, prove

__all__ = ["ProofResult", "Subject", "prove"]
