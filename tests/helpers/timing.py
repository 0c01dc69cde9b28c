"""Measured seconds of calls; no test compares them with a bound."""

import time


def best_of(function, repeats):
    """Best wall seconds of some calls, and the last result."""
    seconds = float("inf")
    for _ in range(repeats):
        start = time.perf_counter()
        result = function()
        seconds = min(seconds, time.perf_counter() - start)
    return seconds, result
