"""Drawing tokens from logits: temperature, top-k and top-p compose; temperature 0 is greedy."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Sampling:
    """How the next token is drawn.

    temperature: divides the logits; 0 takes the likeliest token.
    top_k: keep the k likeliest tokens; 0 keeps all.
    top_p: of those keep the fewest that hold this much probability; 1 keeps all. Below 1 the paths get too narrow
        for probabilities and intervals.
    """

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0

    def __post_init__(self) -> None:
        if self.temperature < 0 or self.top_k < 0 or not 0 < self.top_p <= 1:
            raise ValueError(f"{self}: temperature and top_k must be >= 0, top_p in (0, 1]")

    @property
    def greedy(self) -> bool:
        """Whether the likeliest token is always taken (below 1e-6 float32 could not tell temperatures apart)."""
        return self.temperature < 1e-6 or self.top_k == 1


def token_probabilities(logits: Tensor, sampling: Sampling) -> Tensor:
    """Probabilities ``(…, V)`` from which a token is drawn, float32."""
    logits = logits.float()
    if sampling.greedy:
        return torch.nn.functional.one_hot(logits.argmax(dim=-1), logits.size(-1)).float()
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


def draw(logits: Tensor, sampling: Sampling, generator: torch.Generator | None) -> Tensor:
    """One token id per row: logits ``(B, V)`` → int64 ``(B,)``."""
    if sampling.greedy:
        return logits.argmax(dim=-1)
    return torch.multinomial(token_probabilities(logits, sampling), 1, generator=generator).squeeze(-1)
