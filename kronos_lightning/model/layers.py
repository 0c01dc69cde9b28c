"""Building blocks shared by the tokenizer and the predictor.

Shape letters: B batch, T tokens (candles), D d_model, H heads, K head size, V vocabulary size.
Source of the architecture: arXiv 2508.02739; module names follow the published checkpoints' keys.
"""

import math

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from kronos_lightning.model.cpu_kernels import (
    RootMeanSquareNorm,
    Rotation,
    attention_in_training,
    dropout,
    use_cpu_kernels,
)

ROTARY_BASE = 10_000.0


class Dropout(nn.Dropout):
    """Variant of `torch.nn.Dropout` that is faster on the CPU."""

    def forward(self, x: Tensor) -> Tensor:
        return dropout(x, self.p) if self.training else x


class RMSNorm(nn.Module):
    """Root-mean-square normalisation over the last axis, computed in float32.

    Under autocast the result is cast to the autocast precision once; otherwise every layer that reads it would cast it.
    """

    def __init__(self, dim: int, eps: float = 1e-5):
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(dim))

    def forward(self, x: Tensor) -> Tensor:
        device, exact = x.device.type, x.float()
        if use_cpu_kernels(x) and self.weight.dtype == torch.float32:
            normed = RootMeanSquareNorm.apply(exact, self.weight, self.eps)
        else:
            normed = F.rms_norm(exact, (x.size(-1),), eps=self.eps).type_as(x) * self.weight
        return normed.to(torch.get_autocast_dtype(device)) if torch.is_autocast_enabled(device) else normed


class FeedForward(nn.Module):
    """SwiGLU feed-forward layer ``w2(silu(w1 x) * w3 x)``, followed by dropout."""

    def __init__(self, d_model: int, ff_dim: int, dropout: float):
        super().__init__()
        self.w1 = nn.Linear(d_model, ff_dim, bias=False)
        self.w3 = nn.Linear(d_model, ff_dim, bias=False)
        self.w2 = nn.Linear(ff_dim, d_model, bias=False)
        self.dropout = Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        return self.dropout(self.w2(F.silu(self.w1(x)) * self.w3(x)))


def inverse_frequencies(head_dim: int, device: torch.device | None = None) -> Tensor:
    """Return the rotary frequencies ``(K/2,)``, always in float32."""
    exponent = torch.arange(0, head_dim, 2, device=device, dtype=torch.float32) / head_dim
    return 1.0 / ROTARY_BASE**exponent


def rotary_table(length: int, head_dim: int, device: torch.device) -> Tensor:
    """Return the cosines and sines of positions 0 … T−1: ``(2, T, 1, K/2)`` in float32.

    Every call computes the table from the formula; it is never read from the ``inv_freq`` buffer and never cached.
    Angles therefore stay exact in a half-precision model, and a table made under ``inference_mode`` cannot reach a
    later training step.
    """
    positions = torch.arange(length, device=device, dtype=torch.float32)
    angles = torch.outer(positions, inverse_frequencies(head_dim, device)).unsqueeze(1)  # (T, 1, K/2)
    return torch.stack([angles.cos(), angles.sin()])


def rotate(x: Tensor, table: Tensor) -> Tensor:
    """Rotate the first half of the features against the second half.

    `x` is ``(B, H, T, K)``; `table` is a `rotary_table` of the same positions. The result has the shape of `x`.
    """
    cos, sin = table.squeeze(2)
    if use_cpu_kernels(x):
        return Rotation.apply(x.float(), cos, sin).type_as(x)
    halves = x.float().unflatten(-1, (2, -1))  # (B, H, T, 2, K/2); a compiler would write torch.cat in float32
    crossed = halves.flip(-2) * torch.stack([-sin, sin], dim=-2)
    return (halves * cos.unsqueeze(-2) + crossed).flatten(-2).type_as(x)


class RotaryFrequencies(nn.Module):
    """Container of the ``inv_freq`` buffer in published checkpoints; angles come from `rotary_table`."""

    def __init__(self, head_dim: int):
        super().__init__()
        self.register_buffer("inv_freq", inverse_frequencies(head_dim))


class Attention(nn.Module):
    """Multi-head scaled dot-product attention, for self-attention and cross-attention."""

    def __init__(self, d_model: int, n_heads: int, attn_dropout_p: float, resid_dropout_p: float):
        super().__init__()
        self.n_heads = n_heads
        self.head_dim = d_model // n_heads
        self.attn_dropout_p = attn_dropout_p
        self.q_proj = nn.Linear(d_model, d_model)
        self.k_proj = nn.Linear(d_model, d_model)
        self.v_proj = nn.Linear(d_model, d_model)
        self.out_proj = nn.Linear(d_model, d_model)
        self.rotary = RotaryFrequencies(self.head_dim)
        self.resid_dropout = Dropout(resid_dropout_p)

    def forward(self, query: Tensor, memory: Tensor, rotary: Tensor | None, causal: bool) -> Tensor:
        """Attend from query ``(B, Tq, D)`` to memory ``(B, Tk, D)``; return ``(B, Tq, D)``.

        `rotary` is the table of positions 0 … Tk−1, or None for no positions. The queries take the last Tq of these
        positions. `causal` needs Tq = Tk; a single query at the end sees all keys and needs no mask.
        """
        q, k, v = (
            rearrange(project(x), "b t (h k) -> b h t k", h=self.n_heads)
            for project, x in ((self.q_proj, query), (self.k_proj, memory), (self.v_proj, memory))
        )
        if rotary is not None:
            q, k = rotate(q, rotary[:, -q.size(2) :]), rotate(k, rotary)
        if self.training:
            mixed = attention_in_training(q, k, v, self.attn_dropout_p, causal)
        else:
            mixed = F.scaled_dot_product_attention(q, k, v, is_causal=causal)
        return self.resid_dropout(self.out_proj(rearrange(mixed, "b h t k -> b t (h k)")))


class TransformerBlock(nn.Module):
    """Transformer block: pre-norm causal self-attention and pre-norm feed-forward layer, both residual."""

    def __init__(
        self,
        d_model: int,
        n_heads: int,
        ff_dim: int,
        ffn_dropout_p: float,
        attn_dropout_p: float,
        resid_dropout_p: float,
    ):
        super().__init__()
        self.norm1 = RMSNorm(d_model)
        self.self_attn = Attention(d_model, n_heads, attn_dropout_p, resid_dropout_p)
        self.norm2 = RMSNorm(d_model)
        self.ffn = FeedForward(d_model, ff_dim, ffn_dropout_p)

    def forward(self, x: Tensor, rotary: Tensor) -> Tensor:
        h = self.norm1(x)
        x = x + self.self_attn(h, h, rotary, causal=True)
        return x + self.ffn(self.norm2(x))


def run_blocks(blocks: nn.ModuleList, x: Tensor) -> Tensor:
    """Pass ``(B, T, D)`` through the blocks, which share one rotary table."""
    if len(blocks) == 0:
        return x
    rotary = rotary_table(x.size(1), blocks[0].self_attn.head_dim, x.device)
    for block in blocks:
        x = block(x, rotary)
    return x


class HierarchicalEmbedding(nn.Module):
    """Fused embedding of coarse and fine token ids: two ``(B, T)`` → ``(B, T, D)``."""

    def __init__(self, s1_bits: int, s2_bits: int, d_model: int):
        super().__init__()
        self.scale = math.sqrt(d_model)
        self.emb_s1 = nn.Embedding(2**s1_bits, d_model)
        self.emb_s2 = nn.Embedding(2**s2_bits, d_model)
        self.fusion_proj = nn.Linear(2 * d_model, d_model)

    def forward(self, s1_ids: Tensor, s2_ids: Tensor) -> Tensor:
        pair = torch.cat([self.emb_s1(s1_ids), self.emb_s2(s2_ids)], dim=-1)
        return self.fusion_proj(pair * self.scale)


class FixedEmbedding(nn.Module):
    """Sinusoidal embedding that is not trained."""

    def __init__(self, size: int, d_model: int):
        super().__init__()
        positions = torch.arange(size, dtype=torch.float32)
        angles = torch.outer(positions, inverse_frequencies(d_model))  # (size, D/2)
        table = torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1)  # sine and cosine alternate
        self.emb = nn.Embedding.from_pretrained(table, freeze=True)

    def forward(self, ids: Tensor) -> Tensor:
        return self.emb(ids)


class TimeEmbedding(nn.Module):
    """Sum of the embeddings of minute, hour, weekday, day and month: ``(B, T, 5)`` → ``(B, T, D)``."""

    def __init__(self, d_model: int, learned: bool):
        super().__init__()
        embedding = nn.Embedding if learned else FixedEmbedding
        self.minute_embed = embedding(60, d_model)
        self.hour_embed = embedding(24, d_model)
        self.weekday_embed = embedding(7, d_model)
        self.day_embed = embedding(32, d_model)
        self.month_embed = embedding(13, d_model)

    def forward(self, stamp: Tensor) -> Tensor:
        minute, hour, weekday, day, month = stamp.long().unbind(dim=-1)
        return (
            self.hour_embed(hour)
            + self.weekday_embed(weekday)
            + self.day_embed(day)
            + self.month_embed(month)
            + self.minute_embed(minute)
        )


class DependencyAwareLayer(nn.Module):
    """Layer that conditions the context on the coarse token of the same step, for the fine head.

    Cross-attention takes the coarse token's embedding as query and the context as memory; its result is added to the
    context, and the sum is normalised.
    """

    N_HEADS = 4

    def __init__(self, d_model: int, attn_dropout_p: float, resid_dropout_p: float):
        super().__init__()
        self.cross_attn = Attention(d_model, self.N_HEADS, attn_dropout_p, resid_dropout_p)
        self.norm = RMSNorm(d_model)

    def forward(self, context: Tensor, s1_embedding: Tensor) -> Tensor:
        """Condition all positions at once, causally: context and s1_embedding ``(B, T, D)`` → ``(B, T, D)``."""
        rotary = rotary_table(context.size(1), self.cross_attn.head_dim, context.device)
        return self.norm(context + self.cross_attn(s1_embedding, context, rotary, causal=True))

    def last(self, context: Tensor, s1_embedding: Tensor, positions: bool) -> Tensor:
        """Condition the last position only: context ``(B, T, D)``, s1_embedding ``(B, 1, D)`` → ``(B, 1, D)``.

        `positions` = False decodes like the code that was published with the weights (without rotary angles); True
        applies the relative positions with which the layer was trained.
        """
        table = rotary_table(context.size(1), self.cross_attn.head_dim, context.device) if positions else None
        return self.norm(context[:, -1:] + self.cross_attn(s1_embedding, context, table, causal=False))


class DualHead(nn.Module):
    """Linear heads for the coarse and fine vocabularies."""

    def __init__(self, s1_bits: int, s2_bits: int, d_model: int):
        super().__init__()
        self.proj_s1 = nn.Linear(d_model, 2**s1_bits)
        self.proj_s2 = nn.Linear(d_model, 2**s2_bits)
