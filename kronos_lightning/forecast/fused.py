"""Transformer blocks folded for forecasting: fewer, larger products, and a KV cache.

The blocks are for inference only and equal those of `kronos_lightning.model` up to rounding. Norm gains and the
attention scale are folded into the projections; queries, keys and values come from one product, both halves of SwiGLU
from another; and weights are stored in the parts that BLAS multiplies fastest. Features of queries and keys are
reordered so that the two halves of a rotation are adjacent: a rotation is then one complex product, and attention does
not depend on the order. Residual streams are changed in place.

Shape letters: N series, S paths per series, T known candles, t new candles per path, D width, H heads, K head size.
"""

import copy
import math
from collections.abc import Iterable
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kronos_lightning.forecast.products import Placement, Product, fold
from kronos_lightning.model.layers import Attention, RMSNorm, TransformerBlock, rotary_table

SCORES = 2**20  # attention scores that stay in a CPU's cache until they are multiplied with the values


def activation_dtype(dtype: torch.dtype) -> torch.dtype:
    """Return the precision of activations and KV cache: that of the predictor, but float32 with weights of 8 bits."""
    return torch.float32 if dtype == torch.int8 else dtype


def over_norm(x: Tensor, epsilon: Tensor) -> Tensor:
    """Divide rows by their Euclidean norm, in which `epsilon` is an additional component."""
    if x.dtype == torch.float32:
        exact: Tensor = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
        return x / exact.hypot_(epsilon)
    length: Tensor = torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=torch.float32)
    return (x / length.hypot_(epsilon)).to(x.dtype)


def gated(gate: Tensor, value: Tensor) -> Tensor:
    """Compute SwiGLU's product; `gate` is overwritten."""
    return F.silu(gate, inplace=True).mul_(value)


class FusedNorm:
    """Root-mean-square normalisation; `gain` is meant for `fold`, and only `gained` applies it here."""

    def __init__(self, norm: RMSNorm, place: Placement, compiled: bool = False):
        self.over_norm = torch.compile(over_norm, dynamic=True) if compiled else over_norm
        width = norm.weight.numel()
        self.gain = norm.weight.detach().float() * width**0.5
        self.placed_gain = self.gain.to(*place)
        self.epsilon = torch.tensor((norm.eps * width) ** 0.5, device=place[0])

    def __call__(self, x: Tensor) -> Tensor:
        """Divide rows of x by their norm; the root mean square is √D smaller, and the gain contains this factor."""
        return self.over_norm(x, self.epsilon)

    def gained(self, x: Tensor) -> Tensor:
        """Normalise x and apply the gain."""
        return self(x).mul_(self.placed_gain)


def pairs(x: Tensor) -> Tensor:
    """View adjacent features ``(…, W)`` as complex numbers ``(…, W/2)``; half precision is returned unchanged."""
    return torch.view_as_complex(x.view(*x.shape[:-1], x.size(-1) // 2, 2)) if x.dtype == torch.float32 else x


def rotate_(x: Tensor, factors: Tensor) -> None:
    """Rotate the result of `pairs` in place by complex factors ``(…, W/2)``."""
    if x.is_complex():
        x.mul_(factors)
    else:
        x.copy_(torch.view_as_real(pairs(x.float()).mul_(factors)).flatten(-2))


class KVCache:
    """KV cache of one layer: known candles once per series, and own candles of each path.

    Several paths read the known candles in one product. A single path has its own candles right behind the known
    candles.

    Args:
        attention: layer that reads the cache.
        n, known: number of series and of their known candles, N and T.
        paths: number of paths per series, S.
        capacity: maximum number of own candles per path.
        place: device and precision.
    """

    def __init__(self, attention: "FusedAttention", n: int, known: int, paths: int, capacity: int, place: Placement):
        def empty(series: int, candles: int) -> Tensor:
            return torch.empty(2, series * heads, candles, attention.head_dim, device=place[0], dtype=place[1])

        self.n, self.heads, self.known, self.paths = n, attention.heads, known, paths
        heads, self.length, self.single = attention.heads, 0, paths == 1
        self.all = empty(n, known + capacity if self.single else known)
        self.own = self.all[:, :, known:] if self.single else empty(n * paths, capacity)
        self.known_key, self.known_value = self.all[0, :, :known].mT, self.all[1, :, :known]
        self.all_key, self.all_value = self.all[0].mT, self.all[1]
        self.own_key, self.own_value = self.own[0].mT, self.own[1]

    def fill(self, key_value: Tensor) -> None:
        """Store keys and values ``(2, N, G, H/G, T, K)`` of the known candles."""
        self.all[:, :, : self.known].view(key_value.shape).copy_(key_value)

    def append(self, key_value: Tensor, new: int) -> None:
        """Store keys and values ``(2, N·H, S·t, K)`` of the next t = `new` candles of every path."""
        if not self.single:
            key_value = key_value.view(2, -1, new, key_value.size(3))  # (2, N·H·S, t, K)
        self.own.narrow(2, self.length, new).copy_(key_value)
        self.length += new

    def attend(self, query: Tensor, new: int, padding: Tensor | None) -> Tensor:
        """Attend with queries ``(N·H, S·t, K)`` of the last t = `new` candles; return rows ``(N·S·t, D)``.

        `padding` ``(N, 1, 1, T)`` is −∞ at known positions that a shorter series does not have.
        """
        count, queries, head_dim = query.shape
        together = count if self.single else max(1, SCORES // (queries * (self.known + self.length)))
        mask = None if padding is None else padding.expand(-1, self.heads, -1, -1).flatten(0, 1)
        if together >= count or query.device.type != "cpu":
            mixed = self._mix(query, new, mask)
        else:
            parts = [slice(i, min(i + together, count)) for i in range(0, count, together)]
            mixed = torch.cat([self._part(i)._mix(query[i], new, None if mask is None else mask[i]) for i in parts])
        if self.n * queries == 1:
            return mixed.view(1, -1)
        return mixed.view(self.n, self.heads, queries, head_dim).transpose(1, 2).reshape(self.n * queries, -1)

    def _part(self, some: slice) -> "KVCache":
        part, own = copy.copy(self), slice(some.start * self.paths, some.stop * self.paths)
        part.known_key, part.known_value = self.known_key[some], self.known_value[some]
        part.own_key, part.own_value = self.own_key[own], self.own_value[own]
        return part

    def _mix(self, query: Tensor, new: int, padding: Tensor | None) -> Tensor:
        """Return the mixed values ``(B, S·t, K)`` for queries of B heads; `padding` is ``(B, 1, T)``."""
        end = self.known + self.length
        if self.single:
            scores = torch.bmm(query, self.all_key.narrow(2, 0, end))
        else:
            apart = query.view(-1, new, query.size(2))
            scores = torch.bmm(query, self.known_key).view(len(apart), new, self.known)
            if self.length:
                scores = torch.cat([scores, torch.bmm(apart, self.own_key.narrow(2, 0, self.length))], dim=-1)
        if padding is not None:
            scores.view(*query.shape[:2], end)[..., : self.known].add_(padding)
        if new > 1:  # own candles are causal among themselves
            later = torch.full((new, self.length), -torch.inf, dtype=scores.dtype, device=scores.device)
            scores[..., self.known :].add_(later.triu_(self.length - new + 1))
        weights = scores.softmax(dim=-1)
        if self.single:
            return torch.bmm(weights, self.all_value.narrow(1, 0, end))
        mixed = torch.bmm(weights.view(*query.shape[:2], end)[..., : self.known], self.known_value)
        if self.length:
            own = weights[..., self.known :], self.own_value.narrow(1, 0, self.length)
            mixed = torch.baddbmm(mixed.view_as(apart), *own).view_as(query)
        return mixed


class FusedAttention:
    """Attention with projections from one product, in G groups of heads.

    Args:
        attention: layer to fold.
        place: device and precision.
        gain: gain of the preceding norm.
    """

    def __init__(self, attention: Attention, place: Placement, gain: Tensor | float = 1.0):
        self.heads, self.head_dim = attention.n_heads, attention.head_dim
        self.groups = math.gcd(2, self.heads)
        self.layer, self.place, self.gain = attention, place, gain
        self.out = Product.of(attention.out_proj, place)

    def folded(self, name: str) -> tuple[Tensor, Tensor]:
        """Return weight ``(D, D)`` and bias of the projection to queries (q), keys (k) or values (v)."""
        linear = getattr(self.layer, f"{name}_proj")
        scale = self.head_dim**-0.5 if name == "q" else 1.0
        weight, bias = linear.weight.detach().float() * scale, linear.bias.detach().float() * scale
        if name != "v":  # interleave the two halves of every head
            order = torch.arange(len(bias), device=bias.device).view(self.heads, 2, -1).mT.flatten()
            weight, bias = weight[order], bias[order]
        return fold(weight, self.place, self.gain), bias.to(*self.place)

    def rotations(self, length: int) -> Tensor:
        """Return the rotary factors of positions 0 … length−1 for the heads of a group: complex ``(length, W/2)``."""
        table = rotary_table(length, self.head_dim, self.place[0]).squeeze(2)
        return torch.complex(*table).repeat(1, self.heads // self.groups)


class Projection:
    """Projection of candles to queries, keys and values or some of these; queries and keys are rotated by position."""

    def __init__(self, attention: FusedAttention, names: str):
        weights, biases = zip(*(attention.folded(name) for name in names), strict=True)
        self.product = Product(torch.cat(weights, dim=1), torch.cat(biases), len(names) * attention.groups)
        self.turned = len(names.replace("v", "")) * attention.groups  # parts that are rotated
        self.layout = len(names), attention.groups, attention.heads // attention.groups, attention.head_dim
        self.place = attention.place

    def new_buffer(self, shape: torch.Size) -> "ProjectionBuffer":
        """Create a buffer for the projections of candles ``(N, …, D)``."""
        return ProjectionBuffer(self, shape[:-1], self.place)

    def __call__(self, rows: Tensor, factors: Tensor | None, buffer: "ProjectionBuffer") -> None:
        """Fill the buffer with the projections of rows ``(R, D)``; `factors` ``(…, W/2)``, None without positions."""
        self.product.split(rows, buffer.flat)
        if factors is not None:
            rotate_(buffer.turned, factors)


class ProjectionBuffer:
    """Buffer for the projections of one layer at a time.

    flat: ``(parts·G, R, W)`` with W features of a group's heads.
    turned: the parts of `flat` that are rotated, ``(…, N, …, W)``.
    heads: ``(parts, G, N, …, H/G, K)``.
    known: ``(parts, N, G, H/G, T, K)``, only for known candles.
    """

    def __init__(self, projection: Projection, leading: torch.Size, place: Placement):
        parts, groups, heads, head_dim = projection.layout
        width = heads * head_dim
        self.rows = leading.numel()
        self.flat = torch.empty(parts * groups, self.rows, width, device=place[0], dtype=place[1])
        self.turned = pairs(self.flat[: projection.turned].view(projection.turned, *leading, width))
        self.heads = self.flat.view(parts, groups, *leading, heads, head_dim)
        if len(leading) == 2:  # known candles
            self.known = self.heads.permute(0, 2, 1, 4, 3, 5)  # (parts, N, G, H/G, T, K)
            return
        self.new = leading[2]
        self.shape = parts, leading[0] * groups * heads, leading[1] * leading[2], head_dim
        self.paths = self.heads.permute(0, 2, 1, 5, 3, 4, 6)  # (parts, N, G, H/G, S, t, K)
        self.one = self.flat.view(self.shape) if self.rows == 1 else None

    def path_projections(self) -> Tensor:
        """Return the projections of the paths' candles, contiguous ``(parts, N·H, S·t, K)``."""
        return self.paths.reshape(self.shape) if self.one is None else self.one


class FusedBlock:
    """Fused pre-norm transformer block; with `compiled`, torch.compile compiles its norms and gates."""

    def __init__(self, block: TransformerBlock, place: Placement, compiled: bool):
        self.norm1, self.norm2 = FusedNorm(block.norm1, place, compiled), FusedNorm(block.norm2, place, compiled)
        self.gated = torch.compile(gated, dynamic=True) if compiled else gated
        self.attention = FusedAttention(block.self_attn, place, self.norm1.gain)
        self.project = Projection(self.attention, "qkv")
        both = torch.cat([block.ffn.w1.weight, block.ffn.w3.weight])
        self.up = Product(fold(both, place, self.norm2.gain), parts=2)
        down = fold(block.ffn.w2.weight, place)
        self.down = Product(down, parts=math.gcd(2, down.size(1)))

    def products(self) -> list[Product]:
        """Return all linear maps of the block."""
        return [self.project.product, self.attention.out, self.up, self.down]

    def _feed_forward(self, rows: Tensor, buffer: Tensor) -> None:
        gate, value = self.up.split(self.norm2(rows), buffer).unbind()
        self.down.add_to(rows, self.gated(gate, value))

    def prefill(
        self, rows: Tensor, cache: KVCache | None, factors: Tensor | None, buffer: ProjectionBuffer, up_buffer: Tensor
    ) -> None:
        """Pass the known candles, rows ``(N·T, D)``, causally; store keys and values if `cache` is given."""
        self.project(self.norm1(rows), factors, buffer)
        if cache is not None:
            cache.fill(buffer.known[1:])
        query, key, value = buffer.heads.flatten(1, 2).transpose(2, 3).unbind()  # each (G·N, H/G, T, K)
        mixed = F.scaled_dot_product_attention(query, key, value, is_causal=True, scale=1.0)
        mixed = mixed.view(self.attention.groups, -1, *mixed.shape[1:]).permute(1, 3, 0, 2, 4)  # (N, T, G, H/G, K)
        self.attention.out.add_to(rows, mixed.reshape(rows.shape))
        self._feed_forward(rows, up_buffer)

    def extend(
        self,
        rows: Tensor,
        cache: KVCache,
        factors: Tensor | None,
        padding: Tensor | None,
        buffer: ProjectionBuffer,
        up_buffer: Tensor,
    ) -> None:
        """Pass the next t candles of every path, rows ``(N·S·t, D)``, and store their keys and values."""
        self.project(self.norm1(rows), factors, buffer)
        qkv, new = buffer.path_projections(), buffer.new
        cache.append(qkv[1:], new)
        self.attention.out.add_to(rows, cache.attend(qkv[0], new, padding))
        self._feed_forward(rows, up_buffer)


def transformer_blocks(stack: nn.ModuleList) -> list[TransformerBlock]:
    """Return the blocks of a network with their type, which a `ModuleList` does not tell."""
    return list(cast(Iterable[TransformerBlock], stack))


class FusedStack:
    """Sequence of fused transformer blocks."""

    def __init__(self, blocks: Iterable[TransformerBlock], place: Placement, compiled: bool = False):
        self.blocks = [FusedBlock(block, place, compiled) for block in blocks]
        self.place = place
        self._rotations: Tensor | None = None

    def rotations(self, length: int) -> Tensor | None:
        """Return the rotary factors of positions 0 … length−1 for all blocks, computed once."""
        if not self.blocks:
            return None
        rotations = self._rotations  # read once: another thread may put a shorter table in its place
        if rotations is None or len(rotations) < length:
            self._rotations = rotations = self.blocks[0].attention.rotations(length)
        return rotations[:length]

    def new_caches(self, n: int, known: int, paths: int, capacity: int) -> list[KVCache]:
        """Create empty KV caches for all blocks; see `KVCache`."""
        return [KVCache(block.attention, n, known, paths, capacity, self.place) for block in self.blocks]

    def prefill(self, x: Tensor, caches: list[KVCache] | None = None) -> None:
        """Pass the known candles ``(N, T, D)``; see `FusedBlock.prefill`."""
        if x.numel() == 0 or (buffers := self.new_buffers(x.shape)) is None:
            return
        rows, factors = x.view(-1, x.size(-1)), self.rotations(x.size(1))
        for i, block in enumerate(self.blocks):
            block.prefill(rows, None if caches is None else caches[i], factors, *buffers)

    def extend(
        self,
        x: Tensor,
        factors: Tensor | None,
        caches: list[KVCache],
        padding: Tensor | None,
        buffers: tuple[ProjectionBuffer, Tensor] | None = None,
    ) -> None:
        """Pass the next candles ``(N, S, t, D)`` of every path; see `FusedBlock.extend`.

        Pass `buffers` from `new_buffers` to reuse them in many calls of the same shape.
        """
        buffers = buffers or self.new_buffers(x.shape)
        if buffers is None:
            return
        rows = x.view(-1, x.size(-1))
        for block, cache in zip(self.blocks, caches, strict=True):
            block.extend(rows, cache, factors, padding, *buffers)

    def new_buffers(self, shape: torch.Size) -> tuple[ProjectionBuffer, Tensor] | None:
        """Create buffers for the intermediate results of candles of this shape; None without blocks."""
        if not self.blocks:
            return None
        first = self.blocks[0]
        buffer = first.project.new_buffer(shape)
        return buffer, buffer.flat.new_empty(2, buffer.rows, first.up.weight.size(2))
