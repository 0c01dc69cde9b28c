"""Speed of a training step against the plain one: float32, encoding on the fly, nothing fused. `make bench` prints it.

Kronos-small and its tokenizer, random weights, batches of 50 windows of 101 candles, two threads. A process each for
the plain and the fast step, which take turns; the best of each counts.
"""

import json
import os
import subprocess
import sys

import pytest
from rich.console import Console
from rich.table import Table

from kronos_lightning.training.acceleration import has_bfloat16

pytestmark = pytest.mark.minutes

STEPS = """
import json, sys, time
import torch
import torch.nn.functional as F
from torch import nn
from kronos_lightning import Kronos, KronosTokenizer
from kronos_lightning.model import layers, token_losses
from kronos_lightning.training.acceleration import keep_freed_memory
from kronos_lightning.training.optimization import Optimization
from tests.conftest import published_config

stage, way, threads, repeats = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
plain = way == "plain"
torch.set_num_threads(threads)
if plain:  # what a first version of the code does, and did
    layers.by_hand = lambda x: False
    layers.dropout = lambda x, p: F.dropout(x, p)
    layers.attention_with_dropout = lambda q, k, v, p, causal: F.scaled_dot_product_attention(
        q, k, v, dropout_p=p, is_causal=causal)
else:
    keep_freed_memory()

torch.manual_seed(0)
tokenizer = KronosTokenizer(**published_config("Kronos-Tokenizer-base"))
predictor = Kronos(**published_config("Kronos-small"))
network = tokenizer if stage == "tokenizer" else predictor
optimizer = Optimization(1e-5, (0.9, 0.95), 0.1, 0.03, 10.0).optimizer(network, fused=not plain)
generator = torch.Generator().manual_seed(1)
x = torch.randn(50, 101, 6, generator=generator).cumsum(dim=1).clamp(-5, 5)
stamp = torch.randint(0, 7, (50, 101, 5), generator=generator)
with torch.no_grad():
    cached = tokenizer.eval().encode(x, half=True)
network.train()

def reconstruction():
    if not plain:
        return tokenizer(x).loss(x)
    code, quantizer_loss = tokenizer.tokenizer["bsq"](tokenizer._embed(x))
    coarse = tokenizer._decode(tokenizer.post_quant_embed_pre(code[..., : tokenizer.s1_bits]))
    full = tokenizer._decode(tokenizer.post_quant_embed(code))
    return (F.mse_loss(coarse, x) + F.mse_loss(full, x) + quantizer_loss) / 2

def cross_entropy():
    if plain:
        with torch.no_grad():
            s1, s2 = tokenizer.encode(x, half=True)
    else:
        s1, s2 = cached
    logits = predictor(s1[:, :-1], s2[:, :-1], stamp[:, :-1], s1[:, 1:])
    targets = s1[:, 1:], s2[:, 1:]
    if plain:
        losses = [F.cross_entropy(part.transpose(1, 2), ids) for part, ids in zip(logits, targets, strict=True)]
        return sum(losses) / 2
    return sum(loss.mean() for loss in token_losses(*logits, *targets)) / 2

def step():
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=way == "bfloat16"):
        loss = reconstruction() if stage == "tokenizer" else cross_entropy()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(network.parameters(), 3.0)
    optimizer.step()
    optimizer.zero_grad()

step()
print(json.dumps("ready"), flush=True)
for _ in range(repeats):  # a step at each line that comes in
    sys.stdin.readline()
    begin = time.process_time(), time.perf_counter()
    step()
    print(json.dumps([time.process_time() - begin[0], time.perf_counter() - begin[1]]), flush=True)
"""

# With instructions for bfloat16 products: what is asked for. Without, products of float32 are most of both steps.
WANTED = {"bfloat16": {"predictor": 2.3, "tokenizer": 2.5}, "float32": {"predictor": 1.1, "tokenizer": 1.15}}


class Stepper:
    """A process that makes a step when asked."""

    def __init__(self, stage, way, repeats):
        threads = min(2, os.cpu_count())
        self.process = subprocess.Popen(
            [sys.executable, "-c", STEPS, stage, way, str(threads), str(repeats)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert json.loads(self.process.stdout.readline()) == "ready"

    def step(self):
        """Processor and wall seconds."""
        print(file=self.process.stdin, flush=True)
        return json.loads(self.process.stdout.readline())


@pytest.mark.parametrize("stage", ["predictor", "tokenizer"])
def test_a_training_step_reaches_its_ratio(stage):
    way, repeats = ("bfloat16" if has_bfloat16() else "float32"), 5
    racers = {"plain": Stepper(stage, "plain", repeats), way: Stepper(stage, way, repeats)}
    seconds = {name: [] for name in racers}
    for _ in range(repeats):  # in turns
        for name, racer in racers.items():
            seconds[name].append(racer.step())
    for racer in racers.values():
        racer.process.communicate(timeout=60)
    processor, wall = ({n: min(t[i] for t in times) for n, times in seconds.items()} for i in (0, 1))
    table = Table("step", "processor s", "wall s", "ratio", "at least", title=f"A step of the {stage}")
    for name in racers:
        ratio = f"{wall['plain'] / wall[name]:.2f}x"
        least = f"{WANTED[name][stage]}x" if name in WANTED else ""
        table.add_row(name, f"{processor[name]:.2f}", f"{wall[name]:.2f}", ratio, least)
    print()
    Console(width=100).print(table)
    assert wall["plain"] / wall[way] >= WANTED[way][stage]
