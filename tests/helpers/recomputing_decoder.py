"""The straightforward decoder: every step recomputes the whole context of every path. Slow, short, and the reference.

Shape letters: N series, S sample paths, T known candles, h horizon, C = 6 features.
"""

import torch

from kronos_lightning.forecast.sampling import draw


@torch.no_grad()
def generate_tokens(predictor, ids, stamp, future_stamp, sampling, uniforms, max_context, rotary_fine_token=False):
    """Continue coarse and fine ids, each ``(N, T)``: ids ``(N·S, T + h)``; `uniforms` ``(N, S, h, 2)``."""
    paths = uniforms.size(1)
    s1_ids, s2_ids, stamps = (
        part.repeat_interleave(paths, dim=0) for part in (*ids, torch.cat([stamp, future_stamp], dim=1))
    )
    for step, numbers in enumerate(uniforms.flatten(0, 1).unbind(dim=1)):
        end = ids[0].size(1) + step
        window = slice(max(0, end - max_context), end)
        context = predictor.encode_context(s1_ids[:, window], s2_ids[:, window], stamps[:, window])
        s1_next = draw(predictor.head.proj_s1(context[:, -1]), sampling, numbers[:, :1])
        s2_logits = predictor.decode_s2(context, s1_next, rotary_fine_token)
        s2_next = draw(s2_logits[:, -1], sampling, numbers[:, 1:])
        s1_ids = torch.cat([s1_ids, s1_next], dim=1)
        s2_ids = torch.cat([s2_ids, s2_next], dim=1)
    return s1_ids, s2_ids


@torch.no_grad()
def sample_normalised(
    tokenizer, predictor, x, stamp, future_stamp, sampling, uniforms, max_context, rotary_fine_token=False
):
    """Normalised paths ``(N, S, h, C)`` after normalised candles x ``(N, T, C)``; networks in eval mode."""
    ids = generate_tokens(
        predictor, tokenizer.encode(x, half=True), stamp, future_stamp, sampling, uniforms, max_context,
        rotary_fine_token,
    )  # fmt: skip
    decoded = tokenizer.decode(tuple(part[:, -max_context:] for part in ids), half=True)
    return decoded[:, -uniforms.size(2) :].unflatten(0, uniforms.shape[:2])
