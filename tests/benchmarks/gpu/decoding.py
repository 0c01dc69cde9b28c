"""Speed of whole forecasts, tokenizer included, and their share of the floor."""

import time

import torch

from tests.helpers.decoding_work import Work, given
from tests.helpers.floor import Shape, forecast_floor, wait_for

from .rows import WrongResultError

# The rows of the forecast table in docs/guides/gpu.md, and one that fills a GPU.
WORKS = [
    Work("small", 360, 24, 4096, 1),
    Work("mini", 360, 24, 100, 16),
    Work("small", 360, 24, 30, 1),
    Work("small", 400, 112, 1, 1),
    Work("mini", 90, 10, 1, 1),
]
SECONDS, REPEATS = 1.5, 50  # of a measurement: until one of both is reached


def smaller(work):
    """Return the same kind of work in a tiny size."""
    return Work(work.model, 12, 3, min(work.paths, 8), min(work.series, 2))


def measure(machine, work, dtype, compiled=False):
    """Measure a forecast; its best time counts, the first call folds the weights and does not."""
    machine.forget_memory()
    if compiled:
        torch.compiler.reset()  # otherwise the sizes of earlier rows count, and it gives up at the eighth
    work = smaller(work) if machine.smoke else work
    forecaster = machine.forecaster(work.model, dtype=dtype, compile=compiled)
    inputs = [part.to(machine.device) for part in given(work)]
    generator, times, began = torch.Generator().manual_seed(2), [], None
    while began is None or (time.perf_counter() - began < SECONDS and len(times) < (2 if machine.smoke else REPEATS)):
        wait_for(machine.device)
        start = time.perf_counter()
        paths = forecaster.sample_normalised(*inputs, work.paths, generator)
        wait_for(machine.device)
        if began is None:
            began = time.perf_counter()
        else:
            times.append(time.perf_counter() - start)
    return figures(machine, forecaster, work, times, bool(paths.isfinite().all()))


def figures(machine, forecaster, work, times, finite):
    """Return the columns of a row.

    Raises:
        WrongResultError: a forecast candle is not a finite number.
    """
    shape, best = Shape(work.series, work.paths, work.known, work.horizon), min(times)
    memory = machine.peak_memory()
    least = forecast_floor(forecaster, shape, machine.floor_rates(forecaster.dtype))
    values = {
        "ms": 1000 * best,
        "forecasts/s": work.series / best,
        "tokens/s": shape.forecast / best,
        "share of the floor": least.seconds / best,
        "floor": least.bound,
    }
    if memory is not None:
        values["GiB"] = memory
    if not finite:
        raise WrongResultError("forecast candles are not finite", values)
    return values
