"""Comparison of the device with the CPU in float32: outputs, losses, gradients, tokens, greedy forecasts.

Shape letters: B windows, W rows of a window.
"""

import copy
from dataclasses import dataclass

import torch

from kronos_lightning.forecast import Sampling
from kronos_lightning.model import token_losses
from kronos_lightning.training.regularization import override_dropout
from tests.helpers.decoding_work import Work, given

from .machine import tf32
from .rows import WrongResultError

CPU = torch.device("cpu")
# What may differ from float32 on the CPU. outputs and gradients: norm of the difference over the norm; loss: difference
# in nats or squared deviations; tokens: share of most likely tokens, or of the code's bits, that differ. bfloat16 has 8
# bits of precision: its limits are three times what small differs by on a CPU, and more. TF32 has 11.
TOLERANCES = {
    "float32": {"outputs": 1e-4, "loss": 1e-4, "gradients": 1e-3, "tokens": 2e-3},
    "tf32": {"outputs": 5e-3, "loss": 2e-3, "gradients": 2e-2, "tokens": 1e-2},
    "bf16": {"outputs": 4e-2, "loss": 1e-2, "gradients": 6e-2, "tokens": 8e-2},
}
# Share of forecast candles that may differ: a token that differs changes all candles after it.
CANDLES = {
    "float32": {"first candles": 0.02, "all candles": 0.1},
    "bfloat16": {"first candles": 0.3, "all candles": 0.5},
}


@dataclass
class Computed:
    """Results of a forward and backward pass, on the CPU in float32."""

    outputs: torch.Tensor
    loss: float
    gradients: torch.Tensor
    tokens: torch.Tensor


def compare_networks(machine, kind, model, precision):
    """Compare tokenizer or predictor with the CPU; see `TOLERANCES`."""
    tokenizer, predictor = machine.networks(model)
    network, compute = (tokenizer, tokenizer_results) if kind == "tokenizer" else (predictor, predictor_results)
    override_dropout(network, ffn=0.0, attn=0.0, resid=0.0, token=0.0)
    network.train()  # as in training, whose attention differs from that of validation
    inputs = example(tokenizer, 4 if model == "base" else 8, 21 if machine.smoke else 101)
    with tf32(precision == "tf32"):
        found = compute(moved(network, machine.device), *(part.to(machine.device) for part in inputs), precision)
    expected = compute(network, *inputs, "float32")
    errors = {
        "outputs": distance(found.outputs, expected.outputs),
        "loss": abs(found.loss - expected.loss),
        "gradients": distance(found.gradients, expected.gradients),
        "tokens": float((found.tokens != expected.tokens).float().mean()),
    }
    return checked(errors, TOLERANCES[precision])


def compare_forecasts(machine, dtype, compiled=False):
    """Compare greedy forecasts of the folded networks with those of the CPU in float32; see `CANDLES`."""
    work = Work("small", 20 if machine.smoke else 90, 4 if machine.smoke else 10, 2, 8)
    greedy = Sampling(temperature=0.0)
    if compiled:
        torch.compiler.reset()
    expected = machine.forecaster("small", CPU, sampling=greedy).sample_normalised(*given(work), work.paths)
    found = machine.forecaster("small", sampling=greedy, dtype=dtype, compile=compiled)
    paths = found.sample_normalised(*given(work), work.paths).cpu()
    differ = ~torch.isclose(paths, expected, atol=1e-2).all(dim=-1)  # (N, S, h)
    shares = {"first candles": float(differ[:, :, 0].float().mean()), "all candles": float(differ.float().mean())}
    return checked(shares, CANDLES[str(dtype).removeprefix("torch.")])


def checked(errors, tolerances):
    """Return each error with what is allowed; raise `WrongResultError` if one is larger or not a number."""
    values = {name: [error, tolerances[name]] for name, error in errors.items()}
    wrong = [f"{name} differ by {error:.2g}" for name, error in errors.items() if not error <= tolerances[name]]
    if wrong:
        raise WrongResultError(", ".join(wrong), values)
    return values


def moved(network, device):
    """Return a copy of a network on a device."""
    return copy.deepcopy(network).to(device)


def example(tokenizer, windows, rows):
    """Return candles ``(B, W, 6)``, coarse and fine ids ``(B, W)`` and time features ``(B, W, 5)``, always the same."""
    x, stamp, _ = given(Work("small", rows, 1, 1, windows))
    generator = torch.Generator().manual_seed(3)
    ids = [
        torch.randint(0, 2**bits, (windows, rows), generator=generator)
        for bits in (tokenizer.s1_bits, tokenizer.s2_bits)
    ]
    return x, *ids, stamp


def predictor_results(network, x, s1, s2, stamp, precision):
    """Run the predictor forward and backward, with the next coarse token known."""
    with autocast(x.device, precision):
        logits = network(s1[:, :-1], s2[:, :-1], stamp[:, :-1], s1[:, 1:])
        losses = token_losses(*logits, s1[:, 1:], s2[:, 1:])
    loss = sum(part.mean() for part in losses) / 2
    loss.backward()
    tokens = torch.stack([part.argmax(dim=-1) for part in logits])
    return results(network, torch.cat([part.flatten() for part in logits]), loss, tokens)


def tokenizer_results(network, x, s1, s2, stamp, precision):
    """Run the tokenizer forward and backward, and decode given tokens, which no rounding can flip."""
    with autocast(x.device, precision):
        output = network(x)
        loss = output.loss(x)
        with torch.no_grad():
            decoded = network.decode((s1, s2), half=True)
    loss.backward()
    return results(network, decoded.flatten(), loss, output.code > 0)


def results(network, outputs, loss, tokens):
    """Collect results on the CPU."""
    gradients = [p.grad.flatten() for p in network.parameters() if p.grad is not None]
    place = {"device": CPU, "dtype": torch.float32}
    return Computed(outputs.detach().to(**place), loss.item(), torch.cat(gradients).to(**place), tokens.cpu())


def autocast(device, precision):
    """Return the context in which Lightning runs a step in bf16-mixed precision, or one that changes nothing."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == "bf16")


def distance(found, expected):
    """Return the norm of the difference over the norm."""
    return float((found - expected).norm() / expected.norm())
