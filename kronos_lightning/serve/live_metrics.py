"""Gauges of the live record."""

from .live_view import LiveView
from .metrics import Metrics


def show_live(metrics: Metrics, view: LiveView) -> None:
    """Set the gauges to the state of the record."""
    for symbol in view.symbols:
        state = view.state(symbol)
        metrics.live_stale.labels(symbol).set(state.stale)
        metrics.live_age.labels(symbol).set(state.age_s or 0.0)
        metrics.live_evidence.labels(symbol).set(view.track(symbol)[1].evidence)
        metrics.clock_skew.set(state.clock_skew_s)
