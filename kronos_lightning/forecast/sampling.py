"""Drawing tokens from logits: temperature, top-k and top-p compose; temperature 0 is greedy."""

from collections.abc import Sequence
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from kronos_lightning.settings import NotNegative, Section, Share

Generators = torch.Generator | Sequence[torch.Generator] | None


class Sampling(Section):
    """How the next token is drawn.

    temperature: divides the logits; 0 takes the likeliest token.
    top_k: keep the k likeliest tokens; 0 keeps all.
    top_p: of those keep the fewest that hold this much probability; 1 keeps all. Below 1 the paths get too narrow
        for probabilities and intervals.
    """

    temperature: NotNegative = 1.0
    top_k: Annotated[int, Field(ge=0)] = 0
    top_p: Share = 1.0

    @classmethod
    def of(cls, settings: "Sampling") -> "Sampling":
        """Just the sampling of settings that hold more."""
        return cls(temperature=settings.temperature, top_k=settings.top_k, top_p=settings.top_p)

    @property
    def greedy(self) -> bool:
        """Whether the likeliest token is always taken (below 1e-6 float32 could not tell temperatures apart)."""
        return self.temperature < 1e-6 or self.top_k == 1


def token_probabilities(logits: Tensor, sampling: Sampling) -> Tensor:
    """Probabilities ``(…, V)`` from which a token is drawn, float32."""
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
        before = ranked.cumsum(dim=-1) - ranked  # probability of all likelier tokens
        ranked = ranked.masked_fill(before > sampling.top_p, 0.0)
        probabilities = torch.zeros_like(probabilities).scatter(-1, order, ranked)
        probabilities = probabilities / probabilities.sum(dim=-1, keepdim=True)
    return probabilities


def draw(logits: Tensor, sampling: Sampling, uniforms: Tensor) -> Tensor:
    """Token ids by inverse transform sampling: S of each distribution.

    Args:
        logits: ``(…, V)``.
        sampling: temperature and filters.
        uniforms: random numbers in [0, 1), ``(…, S)``; of no account when greedy.

    Returns:
        int64, shaped as `uniforms`.
    """
    if sampling.greedy:
        return logits.argmax(dim=-1, keepdim=True).expand(uniforms.shape)
    cumulative = token_probabilities(logits, sampling).cumsum(dim=-1)
    return torch.searchsorted(cumulative, uniforms * cumulative[..., -1:], right=True)


def draw_uniforms(generators: Generators, series: int, num_paths: int, horizon: int) -> Tensor:
    """Random numbers ``(N, S, h, 2)`` on the CPU, so that a seed gives the same paths on every device.

    They end at 1 − 2⁻²²: times a sum of probabilities they stay below it, whatever the rounding.

    Args:
        generators: one that all series draw from in their order, or one a series; None for torch's own.
        series, num_paths, horizon: N, S, h.
    """
    if isinstance(generators, torch.Generator) or generators is None:
        generators = [generators] * series
    if len(generators) != series:
        raise ValueError(f"{len(generators)} generators for {series} series")
    drawn = [torch.rand(num_paths, horizon, 2, generator=generator) for generator in generators]
    return torch.stack(drawn).clamp_(max=1 - 2**-22)
