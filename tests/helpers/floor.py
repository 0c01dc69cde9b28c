"""Least time that a machine needs for a forecast: what has to be multiplied and moved, over its measured rates.

The floor counts the products of the networks, with only those pairs of candles that attention needs, and the bytes of
the weights and of the KV cache. Other operations (norms, activations, draws) and launches are the gap that remains.

Shape letters: N series, S paths, T known candles, h horizon, D width.
"""

import time
from dataclasses import dataclass

import torch
from torch import nn

from kronos_lightning.training.throughput import matmul_peak

FLOAT32 = 4  # bytes
COPIED = {"cpu": 2**26}  # bytes of the block that is copied to measure the copy rate, by device type
COPIED_ELSEWHERE = 2**30
COPY_SECONDS = 0.25


@dataclass(frozen=True)
class Shape:
    """Size of a forecast; `known` + `horizon` must fit into the context, where nothing is computed twice."""

    series: int
    paths: int
    known: int
    horizon: int

    @property
    def forecast(self):
        """Number of forecast candles."""
        return self.series * self.paths * self.horizon

    def known_pairs(self):
        """Pairs of a known candle and a candle that it sees, per series: T (T + 1) / 2."""
        return self.known * (self.known + 1) // 2

    def own_pairs(self, first, last):
        """Pairs of own candles first … last (from 1) and the candles they see, per path: Σ (T + j)."""
        return sum(self.known + j for j in range(first, last + 1))


@dataclass(frozen=True)
class Cost:
    """Floating-point operations of products, and bytes of weights and KV cache."""

    flops: float
    bytes: float


@dataclass(frozen=True)
class Rates:
    """Measured rates of a device.

    products: operations a second of a large product in the predictor's precision.
    tokenizer_products: the same in float32, which the tokenizer always uses.
    copies: bytes read plus bytes written a second by a large copy.
    """

    products: float
    tokenizer_products: float
    copies: float


@dataclass(frozen=True)
class Floor:
    """Least seconds, and what they are spent on: products or bytes."""

    seconds: float
    bound: str


def predictor_cost(predictor, shape, itemsize=FLOAT32):
    """Cost of the predictor: known candles once per series, own candles once per path, weights once per step."""
    blocks, layer = predictor.transformer, predictor.dep_layer.cross_attn
    width, n, paths, steps = predictor.norm.weight.numel(), shape.series, shape.series * shape.paths, shape.horizon
    passed = n * shape.known + paths * (steps - 1)  # the last forecast candle is not passed again
    keys = _weights(layer.k_proj, layer.v_proj)
    fine = _weights(layer.out_proj, predictor.head.proj_s2)  # queries come from a table
    coarse = _weights(predictor.head.proj_s1)
    products = passed * (_weights(blocks) + keys) + paths * steps * fine + (n + paths * (steps - 1)) * coarse
    in_blocks = n * shape.known_pairs() + paths * shape.own_pairs(1, steps - 1)
    in_layer = paths * shape.own_pairs(0, steps - 1)
    flops = 2 * products + 4 * width * (len(blocks) * in_blocks + in_layer)
    # Every step reads the known candles' keys and values once per series and the own ones once per path.
    read = sum(n * shape.known + paths * i for i in range(steps))
    cache = 2 * width * (len(blocks) + 1) * (read + passed)  # read in every step, written once
    weights = steps * (_weights(blocks) + keys + fine + coarse)
    return Cost(flops, itemsize * (weights + cache))


def tokenizer_cost(tokenizer, shape):
    """Cost of encoding the known candles and of decoding the forecast ones after them, in float32."""
    encoder, decoder = tokenizer.encoder, tokenizer.decoder
    width, n, paths = tokenizer.embed.out_features, shape.series, shape.series * shape.paths
    ends = _weights(tokenizer.embed, tokenizer.quant_embed)
    last = decoder[-1].self_attn
    before = _weights(decoder[:-1]) + _weights(last.k_proj, last.v_proj)  # known candles need no more of the last block
    whole = _weights(decoder, tokenizer.head)
    known, own = n * shape.known, paths * shape.horizon
    products = known * (_weights(encoder) + ends + before) + own * whole
    known_pairs, own_pairs = n * shape.known_pairs(), paths * shape.own_pairs(1, shape.horizon)
    attention = (len(encoder) + len(decoder) - 1) * known_pairs + len(decoder) * own_pairs
    weights = _weights(encoder) + ends + whole
    cache = 2 * width * len(decoder) * 2 * (known + own)  # written once and read once
    return Cost(2 * products + 4 * width * attention, FLOAT32 * (weights + cache))


def forecast_floor(forecaster, shape, rates):
    """Return the least seconds of a whole forecast, tokenizer included.

    Raises:
        ValueError: the window slides, so that candles are passed several times.
    """
    if shape.known + shape.horizon > forecaster.max_context + 1:
        raise ValueError(f"{shape}: known and forecast candles do not fit into {forecaster.max_context}")
    predictor = predictor_cost(forecaster.predictor, shape, forecaster.dtype.itemsize)
    return floor(predictor, tokenizer_cost(forecaster.tokenizer, shape), rates)


def floor(predictor, tokenizer, rates):
    """Return the longer of the time for all products and the time for all bytes."""
    products = predictor.flops / rates.products + tokenizer.flops / rates.tokenizer_products
    moves = (predictor.bytes + tokenizer.bytes) / rates.copies
    return Floor(max(products, moves), "products" if products >= moves else "bytes")


def copy_rate(device):
    """Measure the bytes that a large copy reads and writes in a second."""
    size = COPIED.get(device.type, COPIED_ELSEWHERE)
    source = torch.zeros(size, dtype=torch.uint8, device=device)
    target, best, end = torch.empty_like(source), float("inf"), time.perf_counter() + COPY_SECONDS
    while time.perf_counter() < end:
        wait_for(device)
        start = time.perf_counter()
        target.copy_(source)
        wait_for(device)
        best = min(best, time.perf_counter() - start)
    return 2 * size / best


def product_rate(device, dtype):
    """Measure the operations a second of a large product in a precision."""
    return matmul_peak(device, {torch.bfloat16: "bf16", torch.float16: "16"}.get(dtype, "32"))


def wait_for(device):
    """Wait until the device has done what was given to it."""
    if device.type != "cpu":
        torch.accelerator.synchronize(device)


def _weights(*parts):
    """Number of weights in the linear layers of these parts; biases are no products."""
    return sum(m.weight.numel() for part in parts for m in part.modules() if isinstance(m, nn.Linear))
