"""Autoregressive generation of candle tokens by recomputing the context at every step.

Shape letters: B sequences, T context tokens, h horizon.
"""

import torch
from torch import Tensor

from kronos_lightning.model import Kronos

from .sampling import Sampling, draw


@torch.no_grad()
def generate_tokens(
    predictor: Kronos,
    s1_ids: Tensor,
    s2_ids: Tensor,
    stamp: Tensor,
    future_stamp: Tensor,
    sampling: Sampling,
    max_context: int,
    trained_positions: bool = False,
    generator: torch.Generator | None = None,
) -> tuple[Tensor, Tensor]:
    """Continue token sequences; past `max_context` the window slides.

    Args:
        predictor: in eval mode (`Forecaster` sees to that).
        s1_ids, s2_ids: int64 ``(B, T)``, the context.
        stamp, future_stamp: ``(B, T, 5)`` and ``(B, h, 5)``, time features of context and future candles.
        sampling: how tokens are drawn.
        max_context: tokens the predictor sees at most.
        trained_positions: decode the fine token with the rotary positions of training; False decodes as the
            published weights' own code does.
        generator: makes the draw repeatable.

    Returns:
        ``(B, T + h)`` ids, coarse and fine, the context first.
    """
    stamps = torch.cat([stamp, future_stamp], dim=1)
    for end in range(s1_ids.size(1), stamps.size(1)):
        window = slice(max(0, end - max_context), end)
        context = predictor.encode_context(s1_ids[:, window], s2_ids[:, window], stamps[:, window])
        s1_next = draw(predictor.head.proj_s1(context[:, -1]), sampling, generator)[:, None]
        s2_logits = predictor.decode_s2(context, s1_next, trained_positions)
        s2_next = draw(s2_logits[:, -1], sampling, generator)[:, None]
        s1_ids = torch.cat([s1_ids, s1_next], dim=1)
        s2_ids = torch.cat([s2_ids, s2_next], dim=1)
    return s1_ids, s2_ids
