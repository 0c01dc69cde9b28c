"""Micro-batches: one thread runs the model on requests that wait at the same time and fit together."""

import asyncio
import logging
import queue
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field

import torch

from kronos_lightning.forecast.series import Series
from kronos_lightning.pipeline.loaded_model import LoadedModel
from kronos_lightning.pipeline.signals import Decision, decide_together

from .errors import ServiceError

log = logging.getLogger("serve")


@dataclass(frozen=True, kw_only=True, eq=False)
class ForecastJob:
    """Series that waits for its forecast; its model is that of the moment of the request, also after a reload."""

    model: LoadedModel
    series: Series
    num_paths: int
    calibrated: bool
    future: "Future[Decision]" = field(default_factory=Future)

    @property
    def key(self) -> tuple[object, ...]:
        """Key of the jobs that can be forecast together."""
        return id(self.model), self.calibrated, len(self.series.future), self.num_paths


class Batcher:
    """Bounded queue and the thread that empties it.

    Args:
        max_batch: maximum number of series that are forecast together.
        max_queue: maximum number of waiting requests; more are answered with 429.
        wait: seconds that a batch waits for more requests.
        threads: torch threads of the model.
        measured: called with the size and the seconds of each batch.
    """

    def __init__(
        self,
        max_batch: int,
        max_queue: int,
        wait: float,
        threads: int,
        measured: Callable[[int, float], None] = lambda size, seconds: None,
    ):
        self.max_batch, self.wait, self.threads, self.measured = max_batch, wait, threads, measured
        self.busy = False  # True while a batch is forecast
        self._waiting: queue.Queue[ForecastJob | None] = queue.Queue(max_queue)
        self._thread = threading.Thread(target=self._run, name="model", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """Number of requests in the queue."""
        return self._waiting.qsize()

    async def decide(self, job: ForecastJob) -> Decision:
        """Wait for the decision of a job.

        Raises:
            ServiceError: 429 if the queue is full, 503 if the model failed.
        """
        try:
            self._waiting.put_nowait(job)
        except queue.Full:
            raise ServiceError(
                429, "queue_full", "too many requests are waiting", "Try again.", {"Retry-After": "1"}
            ) from None
        decision = await asyncio.wrap_future(job.future)
        if not decision.is_finite:
            raise model_failed("the forecast holds values that are not numbers")
        return decision

    def close(self, timeout: float = 10.0) -> None:
        """Finish the waiting requests and end the thread."""
        try:
            self._waiting.put(None, timeout=timeout)
        except queue.Full:
            return
        self._thread.join(timeout)

    def _run(self) -> None:
        torch.set_num_threads(self.threads)
        left: list[ForecastJob] = []  # taken from the queue, but of another kind than the batch before
        closing = False
        while not (closing and not left and self._waiting.empty()):
            if not left:
                job = self._waiting.get()
                if job is None:
                    closing = True
                    continue
                left.append(job)
            batch, left, ended = self._gather(left)
            closing = closing or ended
            batch = [job for job in batch if job.future.set_running_or_notify_cancel()]
            if batch:
                self.busy = True
                self._forecast(batch)
                self.busy = False

    def _gather(self, left: list[ForecastJob]) -> tuple[list[ForecastJob], list[ForecastJob], bool]:
        """Return a batch, the other jobs that were taken, and True if the end was asked for."""
        key, deadline, ended = left[0].key, time.monotonic() + self.wait, False
        batch = [job for job in left if job.key == key][: self.max_batch]
        taken = {id(job) for job in batch}
        others = [job for job in left if id(job) not in taken]
        while len(batch) < self.max_batch and len(others) < self.max_batch:
            try:
                job = self._waiting.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                break
            if job is None:
                ended = True
                break
            (batch if job.key == key else others).append(job)
        return batch, others, ended

    def _forecast(self, batch: list[ForecastJob]) -> None:
        first, started = batch[0], time.monotonic()
        try:
            found = decide_together(
                [job.series for job in batch],
                first.model.forecaster(first.calibrated),
                first.model.strategy,
                first.num_paths,
                first.model.decision.seed,
            )
        except Exception as error:
            log.exception("a batch of %d failed", len(batch))
            if len(batch) > 1:  # one request must not fail the others
                for job in batch:
                    self._forecast([job])
                return
            first.future.set_exception(model_failed(type(error).__name__))
            return
        self.measured(len(batch), time.monotonic() - started)
        for job, decision in zip(batch, found, strict=True):
            job.future.set_result(decision)


def model_failed(reason: str) -> ServiceError:
    """Return the error of a forecast that failed."""
    return ServiceError(503, "model_failed", f"the model gave no forecast: {reason}", "Try other candles or settings.")
