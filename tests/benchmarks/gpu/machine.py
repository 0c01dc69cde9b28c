"""The machine that is measured: device, sizes of the networks, rates of products and copies."""

import os
import platform
import subprocess
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import torch

from kronos_lightning import Forecaster, Kronos, KronosTokenizer
from kronos_lightning.training.cost import device_name
from tests.helpers.floor import Rates, copy_rate, product_rate
from tests.helpers.networks import TINY_PREDICTOR, TINY_TOKENIZER
from tests.helpers.paths import ROOT, published_config

# Nominal rates from the data sheets, in the order of `RATES`, without sparsity. The first name in a device's name
# counts.
NOMINAL = {
    "H100 PCIe": (756e12, 378e12, 51e12, 2.0e12),
    "H100 NVL": (835e12, 417e12, 60e12, 3.9e12),
    "H100": (989e12, 494e12, 67e12, 3.35e12),
    "H200": (989e12, 494e12, 67e12, 4.8e12),
    "A100": (312e12, 156e12, 19.5e12, 2.0e12),
    "L40S": (362e12, 183e12, 91.6e12, 0.864e12),
    "RTX 4090": (165e12, 82.6e12, 82.6e12, 1.008e12),
}
RATES = ("bf16", "tf32", "float32", "copies")


@dataclass(frozen=True)
class Machine:
    """A device, and whether sizes are tiny.

    device: the device to measure.
    folder: for data and runs.
    smoke: True for tiny networks and short measurements.
    candles: file of candles; None for synthetic ones.
    synthetic: number of synthetic candles to train on.
    seconds: of a measurement of training steps.
    largest: largest batches found, by stage, model and precision.
    """

    device: torch.device
    folder: Path
    smoke: bool = False
    candles: Path | None = None
    synthetic: int = 40_000
    seconds: float = 1.5
    largest: dict = field(default_factory=dict)
    _rates: dict = field(default_factory=dict)

    def rate(self, what):
        """Return a rate of the device, measured once: operations of products, or bytes of copies, a second."""
        if what not in self._rates:
            with tf32(what == "tf32"):
                dtype = torch.bfloat16 if what == "bf16" else torch.float32
                measured = copy_rate(self.device) if what == "copies" else product_rate(self.device, dtype)
            self._rates[what] = measured
        return self._rates[what]

    def nominal(self, what):
        """Return the nominal rate, or None if the device is not known."""
        name = device_name(self.device)
        return next((dict(zip(RATES, rates, strict=True))[what] for key, rates in NOMINAL.items() if key in name), None)

    def measured(self, *candidates):
        """Return those of the rates that were measured already."""
        return [what for what in candidates if what in self._rates]

    def floor_rates(self, dtype):
        """Return the rates for the floor of a forecast."""
        predictor = self.rate("float32" if dtype == torch.float32 else "bf16")
        return Rates(predictor, self.rate("float32"), self.rate("copies"))

    def networks(self, model):
        """Return a tokenizer and a predictor with random weights, always the same, on the CPU, in eval mode."""
        torch.manual_seed(0)
        if self.smoke:
            return KronosTokenizer(**TINY_TOKENIZER).eval(), Kronos(**TINY_PREDICTOR).eval()
        tokenizer = published_config("Kronos-Tokenizer-2k" if model == "mini" else "Kronos-Tokenizer-base")
        return KronosTokenizer(**tokenizer).eval(), Kronos(**published_config(f"Kronos-{model}")).eval()

    def forecaster(self, model, device=None, **options):
        """Return a forecaster with these networks; on this device, unless another one is given."""
        context = 2048 if model == "mini" else 512
        return Forecaster(*self.networks(model), max_context=context, **options).to(device or self.device)

    def description(self):
        """Describe the machine for the head of the report."""
        described = {
            "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
            "revision": _revision(),
            "device": device_name(self.device),
            "cores": os.cpu_count(),
            "python": platform.python_version(),
            "torch": torch.__version__,
            "candles": "synthetic" if self.candles is None else self.candles.name,
        }
        if self.device.type == "cuda":
            memory = torch.cuda.get_device_properties(self.device).total_memory
            described |= {"cuda": torch.version.cuda, "memory": f"{memory / 2**30:.0f} GiB"}
        return described

    def peak_memory(self):
        """Return the largest memory of the device since `forget_memory`, in GiB; None on a CPU."""
        return torch.cuda.max_memory_allocated(self.device) / 2**30 if self.device.type == "cuda" else None

    def forget_memory(self):
        """Free what is no longer used, and start to count the largest memory anew."""
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(self.device)


def measure_rates(machine):
    """Measure products and copies."""
    values = {}
    for what in RATES:
        unit, scale = ("GB/s", 1e9) if what == "copies" else ("TFLOP/s", 1e12)
        values[f"{what} {unit}"] = machine.rate(what) / scale
        if nominal := machine.nominal(what):
            values[f"{what} of nominal"] = machine.rate(what) / nominal
    return values


@contextmanager
def tf32(allowed):
    """Allow products of float32 in TF32, or forbid it."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high" if allowed else "highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def best_device():
    """Return the GPU if there is one, else the CPU."""
    return torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu")


def _revision():
    """Return the Git revision of the clone, or "unknown" outside of one."""
    asked = subprocess.run(["git", "describe", "--always", "--dirty"], cwd=ROOT, capture_output=True, text=True)
    return asked.stdout.strip() or "unknown"
