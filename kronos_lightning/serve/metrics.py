"""Metrics of the service in Prometheus's format."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


class Metrics:
    """Counters of one app; each app has its own registry."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter("kronos_requests", "Answered requests.", ("route", "status"), registry=self.registry)
        self.seconds = Histogram(
            "kronos_request_seconds", "Duration of a request.", ("route",), buckets=SECONDS, registry=self.registry
        )
        self.batch_size = Histogram(
            "kronos_batch_size", "Series that were forecast together.", buckets=(1, 2, 4, 8, 16, 32),
            registry=self.registry,
        )  # fmt: skip
        self.forecast_seconds = Histogram(
            "kronos_forecast_seconds", "Duration of a batch.", buckets=SECONDS, registry=self.registry
        )
        self.failures = Counter("kronos_model_failures", "Forecasts that failed.", registry=self.registry)
        self.reloads = Counter("kronos_reloads", "Reloads of the model.", ("result",), registry=self.registry)
        self.waiting = Gauge("kronos_queue_length", "Requests that wait for the model.", registry=self.registry)
        self.live_age = Gauge(
            "kronos_live_age_seconds",
            "Time since the close of the newest decision.",
            ("symbol",),
            registry=self.registry,
        )
        self.live_stale = Gauge(
            "kronos_live_stale", "1 if a close has passed without a decision.", ("symbol",), registry=self.registry
        )
        self.live_evidence = Gauge(
            "kronos_live_drift_evidence", "Evidence against the coverage; 100 is the alarm.", ("symbol",),
            registry=self.registry,
        )  # fmt: skip
        self.clock_skew = Gauge(
            "kronos_live_clock_skew_seconds", "Local clock minus the exchange's.", registry=self.registry
        )
        self.model = Gauge("kronos_model_loaded", "1 for the model in use.", ("id",), registry=self.registry)

    def batch(self, size: int, seconds: float) -> None:
        """Count a batch."""
        self.batch_size.observe(size)
        self.forecast_seconds.observe(seconds)

    def use(self, model_id: str) -> None:
        """Show a model as the one in use."""
        self.model.clear()
        self.model.labels(model_id).set(1)

    def text(self) -> bytes:
        """Return all metrics as text."""
        return generate_latest(self.registry)
