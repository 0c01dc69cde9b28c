"""Plan of the kit: all measurements, the most telling ones first, with the seconds that each should take on an H100."""

from functools import partial

import torch

from . import decoding, end_to_end, parity, training
from .machine import measure_rates
from .rows import Measurement

TRAINED = [("predictor", "small"), ("tokenizer", "small"), ("predictor", "base")]  # base has the tokenizer of small
BFLOAT16, FLOAT32 = torch.bfloat16, torch.float32


def measurements(machine):
    """Return the plan for a machine; a smoke run has each kind of measurement, but only for the small networks."""
    works = decoding.WORKS[:4:3] if machine.smoke else decoding.WORKS
    trained = TRAINED[:2] if machine.smoke else TRAINED
    plan = [
        ("rates", "products and copies", 5, measure_rates),
        *_networks("small"),
        *_forecasts(),
        *_decoding(works, BFLOAT16),
        *_training(trained, "bf16"),
        *_largest(trained, "bf16"),
        ("end to end", "Kronos-mini: both stages and evaluation", 120, end_to_end.measure),
        *_decoding(works, FLOAT32),
        *_training(trained, "float32"),
        *_training(trained, "tf32"),
        *_distributed(),
        *_training(trained, "bf16", compiled=True),
        *_decoding(works, BFLOAT16, compiled=True),
        *_filled(trained),
        *_largest(trained, "float32"),
        *([] if machine.smoke else _networks("base")),
    ]
    return [Measurement(section, name, seconds, partial(_cleanly, f, machine)) for section, name, seconds, f in plan]


def _cleanly(function, machine):
    """Run a measurement and free what it held, also if it fails."""
    try:
        return function(machine)
    finally:
        training.clean_up()


def _networks(model):
    for precision in parity.TOLERANCES:
        for kind in ("tokenizer", "predictor") if model == "small" else ("predictor",):
            function = partial(parity.compare_networks, kind=kind, model=model, precision=precision)
            yield "parity", f"{kind} {model}, {precision}", 4, function


def _forecasts():
    for dtype, compiled in ((FLOAT32, False), (FLOAT32, True), (BFLOAT16, False)):
        function = partial(parity.compare_forecasts, dtype=dtype, compiled=compiled)
        name = f"greedy forecasts small, {_named(dtype, compiled)}"
        yield "parity", name, 25 if compiled else 4, function


def _decoding(works, dtype, compiled=False):
    for work in works:
        function = partial(decoding.measure, work=work, dtype=dtype, compiled=compiled)
        yield "decoding", f"{work}, {_named(dtype, compiled)}", 20 if compiled else 4, function


def _training(trained, precision, compiled=False):
    for stage, model in trained:
        function = partial(training.measure, stage=stage, model=model, precision=precision, compiled=compiled)
        name = f"{stage} {model}, {precision}{', compiled' * compiled}, batch {training.BATCH}"
        yield "training", name, 45 if compiled else 5, function


def _largest(trained, precision):
    for stage, model in trained:
        function = partial(training.measure_largest, stage=stage, model=model, precision=precision)
        yield "training", f"{stage} {model}, {precision}, largest batch", 15, function


def _filled(trained):
    for stage, model in trained:
        function = partial(training.measure_filled, stage=stage, model=model)
        yield "training", f"{stage} {model}, bf16, compiled, largest batch of bf16", 50, function


def _distributed():
    for trainer, name in (("ddp", "DDP"), ("fsdp", "FSDP2")):
        for stage, model in TRAINED[:2]:
            function = partial(training.measure, stage=stage, model=model, precision="bf16", trainer=trainer)
            yield "training", f"{stage} {model}, bf16, {name}, batch {training.BATCH}", 6, function


def _named(dtype, compiled):
    return str(dtype).removeprefix("torch.") + ", compiled" * compiled
