"""Token sampling from logits: temperature, top-k and top-p can be combined; temperature 0 is greedy."""

import hashlib
from collections.abc import Sequence
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from kronos_lightning.settings import NotNegative, Section, Share

Generators = torch.Generator | Sequence[torch.Generator] | None


class Sampling(Section):
    """Rules for drawing the next token.

    temperature: divides the logits; 0 takes the most likely token.
    top_k: keep the k most likely tokens; 0 keeps all.
    top_p: of these tokens keep the smallest set with this probability; 1 keeps all. Below 1 the paths become too narrow
        for probabilities and intervals.
    """

    temperature: NotNegative = 1.0
    top_k: Annotated[int, Field(ge=0)] = 0
    top_p: Share = 1.0

    @classmethod
    def of(cls, settings: "Sampling") -> "Sampling":
        """Return only the sampling fields of settings that have more fields."""
        return cls(temperature=settings.temperature, top_k=settings.top_k, top_p=settings.top_p)

    @property
    def greedy(self) -> bool:
        """True if the most likely token is always taken (float32 cannot distinguish temperatures below 1e-6)."""
        return self.temperature < 1e-6 or self.top_k == 1


def token_probabilities(logits: Tensor, sampling: Sampling) -> Tensor:
    """Return the probabilities ``(…, V)`` from which a token is drawn, float32."""
    logits = logits.float()
    if sampling.greedy:
        return torch.nn.functional.one_hot(logits.argmax(dim=-1), logits.size(-1)).float()
    if sampling.temperature != 1:
        logits = (logits - logits.amax(dim=-1, keepdim=True)) / sampling.temperature
    if 0 < sampling.top_k < logits.size(-1):
        smallest_kept = logits.topk(sampling.top_k, dim=-1).values[..., -1:]
        logits = logits.masked_fill(logits < smallest_kept, -torch.inf)
    probabilities = logits.softmax(dim=-1)
    if sampling.top_p < 1:
        ranked, order = probabilities.sort(dim=-1, descending=True)
        before = ranked.cumsum(dim=-1) - ranked  # probability of all more likely tokens
        ranked = ranked.masked_fill(before > sampling.top_p, 0.0)
        probabilities = torch.zeros_like(probabilities).scatter(-1, order, ranked)
        probabilities = probabilities / probabilities.sum(dim=-1, keepdim=True)
    return probabilities


def draw(logits: Tensor, sampling: Sampling, uniforms: Tensor) -> Tensor:
    """Draw S token ids from each distribution by inverse transform sampling.

    Args:
        logits: logits of the distributions, ``(…, V)``.
        sampling: temperature and filters.
        uniforms: random numbers in [0, 1), ``(…, S)``; greedy sampling ignores their values.

    Returns:
        int64, in the shape of `uniforms`.
    """
    if sampling.greedy:
        return logits.argmax(dim=-1, keepdim=True).expand(uniforms.shape)
    cumulative = token_probabilities(logits, sampling).cumsum(dim=-1)
    return torch.searchsorted(cumulative, uniforms * cumulative[..., -1:], right=True)


def draw_uniforms(generators: Generators, series: int, num_paths: int, horizon: int) -> Tensor:
    """Draw random numbers ``(N, S, h, 2)`` on the CPU, so that a seed gives the same paths on every device.

    Their maximum is 1 − 2⁻²²: multiplied by a sum of probabilities, they stay below this sum despite rounding.

    Args:
        generators: one generator that all series draw from in their order, or one generator per series; None for
            torch's global generator.
        series, num_paths, horizon: N, S, h.

    Raises:
        ValueError: the number of generators differs from the number of series.
    """
    each: Sequence[torch.Generator | None]
    each = [generators] * series if generators is None or isinstance(generators, torch.Generator) else generators
    if len(each) != series:
        raise ValueError(f"{len(each)} generators for {series} series")
    drawn = [torch.rand(num_paths, horizon, 2, generator=generator) for generator in each]
    return torch.stack(drawn).clamp_(max=1 - 2**-22)


def series_generators(seed: int, names: Sequence[object]) -> list[torch.Generator]:
    """Create a generator per series from the seed and its name; other series do not change its random numbers."""
    digests = (hashlib.sha256(f"{seed}|{name}".encode()).digest() for name in names)
    return [torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1) for digest in digests]
