"""CPU kernels for parts of a training step that are slow in torch: fewer passes over memory, faster random bits.

Other devices and torch.compile have fused kernels of their own and use torch's functions instead.

Shape letters: B batch, T tokens, D d_model, H heads, K head size.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

BITS = 16  # random bits per dropout decision: a probability is exact to within 2^-17
MAX_ATTENTION_KEYS = 1024  # maximum number of keys for which attention weights are kept in memory


def use_cpu_kernels(x: Tensor) -> bool:
    """Return True if the custom CPU kernels are faster here."""
    return x.device.type == "cpu" and not torch.compiler.is_compiling()


def dropout(x: Tensor, p: float) -> Tensor:
    """Apply training dropout to a tensor of any shape; one random number of 64 bits decides for four elements."""
    if p == 0:
        return x
    if p == 1 or not use_cpu_kernels(x):
        return F.dropout(x, p)
    return x * _kept(x, p)


def _kept(x: Tensor, p: float) -> Tensor:
    """Draw the factors by which dropout multiplies `x`: 0 or 1 / (1 − p)."""
    dropped = round(p * 2**BITS)
    bits = torch.empty(x.numel() // 4 + 1, dtype=torch.int64).random_(-(2**63), None)
    bits = bits.view(torch.int16)[: x.numel()].view(x.shape)
    keep = torch.ge(bits, dropped - 2 ** (BITS - 1), out=torch.empty(x.shape, dtype=x.dtype))
    return keep.mul_(2**BITS / (2**BITS - dropped))


def attention_in_training(q: Tensor, k: Tensor, v: Tensor, p: float, causal: bool) -> Tensor:
    """Compute scaled dot-product attention of ``(B, H, T, K)`` tensors, with dropout of the weights."""
    if q.device.type == "cpu" and k.size(2) <= MAX_ATTENTION_KEYS and (p == 0 or (p < 1 and use_cpu_kernels(q))):
        return Attend.apply(*(part.flatten(0, 1) for part in (q, k, v)), p, causal).view(q.shape)
    return F.scaled_dot_product_attention(q, k, v, dropout_p=p, is_causal=causal)


class Attend(torch.autograd.Function):
    """Attention of ``(B·H, T, K)`` that keeps its weights for the gradient, where torch recomputes them."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, p: float, causal: bool) -> Tensor:
        hidden = torch.zeros(q.size(1), k.size(1), dtype=q.dtype)
        if causal:
            hidden.fill_(-torch.inf).triu_(1)
        with torch.autocast("cpu", enabled=False):  # autocast would run the softmax in float32, in twice the memory
            weights = torch.baddbmm(hidden, q, k.mT, alpha=q.size(-1) ** -0.5).softmax(dim=-1)
            kept = _kept(weights, p) if p else None
            ctx.save_for_backward(q, k, v, weights, kept)
            return torch.bmm(weights if kept is None else weights * kept, v)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None]:
        q, k, v, weights, kept = ctx.saved_tensors
        to_weights = torch.bmm(gradient, v.mT)
        dropped = weights if kept is None else weights * kept
        to_weights = to_weights if kept is None else to_weights.mul_(kept)
        to_scores = torch.ops.aten._softmax_backward_data(to_weights, weights, -1, weights.dtype)
        to_scores.mul_(q.size(-1) ** -0.5)
        return torch.bmm(to_scores, k), torch.bmm(to_scores.mT, q), torch.bmm(dropped.mT, gradient), None, None


class Rotation(torch.autograd.Function):
    """Rotation of the first half of the last axis against the second half; the gradient is rotated back."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        ctx.save_for_backward(cos, sin)
        return _rotated(x, cos, sin, 1)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        return _rotated(gradient, *ctx.saved_tensors, -1), None, None


def _rotated(x: Tensor, cos: Tensor, sin: Tensor, sense: int) -> Tensor:
    result = torch.empty_like(x, memory_format=torch.contiguous_format)
    (a, b), (to_a, to_b) = x.chunk(2, dim=-1), result.chunk(2, dim=-1)
    torch.mul(a, cos, out=to_a).addcmul_(b, sin, value=-sense)
    torch.mul(b, cos, out=to_b).addcmul_(a, sin, value=sense)
    return result


class RootMeanSquareNorm(torch.autograd.Function):
    """Root-mean-square norm ``x / sqrt(mean(x²) + eps) · gain`` over the last axis."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, gain: Tensor, eps: float) -> Tensor:
        length = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
        inverse = (length.square_() / x.size(-1) + eps).rsqrt_()
        ctx.save_for_backward(x, gain, inverse)
        return (x * inverse).mul_(gain)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None]:
        x, gain, inverse = ctx.saved_tensors
        normed = x * inverse
        product = gradient * normed
        along = (product @ gain).unsqueeze(-1) / x.size(-1)  # the part of the gradient that only changes the length
        to_x = (gradient * gain).addcmul_(normed, along, value=-1).mul_(inverse)
        return to_x, product.flatten(0, -2).sum(dim=0), None
