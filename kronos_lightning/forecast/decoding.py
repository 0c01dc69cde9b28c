"""Autoregressive generation of candles with a KV cache.

The known candles of a series are encoded once and shared by its sample paths. Series of different lengths are padded at
the end: attention is causal, so candles before the padding never see it, and the paths mask it out.

Shape letters: N series, S sample paths, T known candles (of the longest series), h horizon, V1 = 2^s1_bits,
V2 = 2^s2_bits, C = 6 features, D width.
"""

import copy
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor

from kronos_lightning.forecast.fused import (
    FusedAttention,
    FusedNorm,
    FusedStack,
    KVCache,
    Projection,
    ProjectionBuffer,
    activation_dtype,
    pairs,
    rotate_,
    transformer_blocks,
)
from kronos_lightning.forecast.int8 import check_int8
from kronos_lightning.forecast.products import Placement, Product, fold
from kronos_lightning.forecast.sampling import Sampling, draw
from kronos_lightning.model import Kronos, KronosTokenizer
from kronos_lightning.model.quantizer import BinarySphericalQuantizer, bits_to_index, index_to_bits

FLOAT32 = torch.float32


@dataclass
class Known:
    """Lengths and padding of the known candles, shared by all paths of a series.

    lengths: number of known candles of each series, ``(N,)``.
    longest: T.
    padding: −∞ where a series has no candle, ``(N, 1, 1, T)``; None if all series have T candles.
    """

    lengths: Tensor
    longest: int
    padding: Tensor | None

    @classmethod
    def of(cls, lengths: Tensor, place: Placement) -> "Known":
        """Build the padding from the lengths ``(N,)``."""
        longest = int(lengths.max())
        missing = torch.arange(longest, device=place[0]) >= lengths[:, None]
        padding = None
        if bool(missing.any()):
            padding = torch.zeros(missing.shape, device=place[0], dtype=place[1]).masked_fill_(missing, -torch.inf)
            padding = padding[:, None, None]
        return cls(lengths, longest, padding)

    def own_factors(self, factors: Tensor | None, first: int, last: int) -> Tensor | None:
        """Select the rotary factors of own candles first … last−1 from ``(length, W)``: ``(N or 1, 1, t, W)``."""
        if factors is None:
            return None
        if self.padding is None:
            chosen = factors[self.longest + first : self.longest + last][None]
        else:
            chosen = factors[self.lengths[:, None] + torch.arange(first, last, device=factors.device)]
        return chosen[:, None]


class FusedTokenizer:
    """Fused tokenizer for forecasting, always in float32, because half precision would flip bits of the code."""

    def __init__(self, tokenizer: KronosTokenizer, device: torch.device):
        place = device, FLOAT32
        self.device, self.s1_bits, self.s2_bits = device, tokenizer.s1_bits, tokenizer.s2_bits
        self.scale = cast(BinarySphericalQuantizer, tokenizer.tokenizer["bsq"]).scale
        self.encoder = FusedStack(transformer_blocks(tokenizer.encoder), place)
        # In the decoder's last block, known candles need only keys and values, because their output is not used.
        decoder = transformer_blocks(tokenizer.decoder)
        self.decoder, self.last = FusedStack(decoder[:-1], place), FusedStack(decoder[-1:], place)
        self.last_keys = [Projection(block.attention, "kv") for block in self.last.blocks]
        self.embed, self.quantise, self.head = (
            Product.of(linear, place) for linear in (tokenizer.embed, tokenizer.quant_embed, tokenizer.head)
        )
        # Contribution of each token to the embedded code; the bias is included in the coarse token's.
        halves = torch.split(fold(tokenizer.post_quant_embed.weight, place), [self.s1_bits, self.s2_bits])
        codes = [self._corners(bits) @ half for bits, half in zip((self.s1_bits, self.s2_bits), halves, strict=True)]
        self.s1_code, self.s2_code = codes[0] + tokenizer.post_quant_embed.bias.detach().to(*place), codes[1]

    def _corners(self, bits: int) -> Tensor:
        """Return the part of the quantised embedding for each of 2^bits tokens, ``(2^bits, bits)``."""
        return (index_to_bits(torch.arange(2**bits, device=self.device), bits).float() * 2 - 1) * self.scale

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the coarse and fine token ids ``(N, T)`` of normalised candles ``(N, T, C)``."""
        hidden = self.embed(x)
        self.encoder.prefill(hidden)
        bits = self.quantise(hidden) > 0
        return bits_to_index(bits[..., : self.s1_bits]), bits_to_index(bits[..., self.s1_bits :])

    def decode_paths(self, known_ids: tuple[Tensor, Tensor], lengths: Tensor, own_ids: tuple[Tensor, Tensor]) -> Tensor:
        """Decode own tokens ``(N, S, t)`` after known tokens ``(N, T)`` into normalised candles ``(N, S, t, C)``."""
        n, paths, new = own_ids[0].shape
        known = Known.of(lengths, (self.device, FLOAT32))
        if paths == 1:  # known and own tokens in one pass
            places = lengths[:, None] + torch.arange(new, device=self.device)
            coarse, fine = (
                torch.cat([first, torch.zeros_like(then[:, 0])], dim=1).scatter_(1, places, then[:, 0])
                for first, then in zip(known_ids, own_ids, strict=True)
            )
            hidden = self._codes((coarse, fine))
            self.decoder.prefill(hidden)
            own = hidden[torch.arange(n, device=self.device)[:, None], places][:, None]
            hidden = hidden[:, : known.longest].contiguous()
        else:
            hidden, own = self._codes(known_ids), self._codes(own_ids)
            caches = self.decoder.new_caches(n, known.longest, paths, new)
            self.decoder.prefill(hidden, caches)
            factors = self.decoder.rotations(known.longest + new)
            self.decoder.extend(own, known.own_factors(factors, 0, new), caches, known.padding)
        caches, factors = self.last.new_caches(n, known.longest, paths, new), self.last.rotations(known.longest + new)
        for block, keys, cache in zip(self.last.blocks, self.last_keys, caches, strict=True):
            buffer = keys.new_buffer(hidden.shape)
            keys(block.norm1(hidden).flatten(0, 1), self.last.rotations(known.longest), buffer)
            cache.fill(buffer.known)
        self.last.extend(own, known.own_factors(factors, 0, new), caches, known.padding)
        return self.head(own)

    def _codes(self, ids: tuple[Tensor, Tensor]) -> Tensor:
        """Embed tokens ``(…)`` as input of the decoder: ``(…, D)``."""
        return torch.embedding(self.s1_code, ids[0]).add_(torch.embedding(self.s2_code, ids[1]))


class FusedPredictor:
    """Fused predictor for forecasting, in any precision; int8 is float32 but for the steps of a single path."""

    def __init__(
        self, predictor: Kronos, device: torch.device, dtype: torch.dtype, rotary_fine_token: bool, compiled: bool
    ):
        self.place = place = device, activation_dtype(dtype)
        self.rotary_fine_token = rotary_fine_token
        embedding = predictor.embedding
        halves = (embedding.fusion_proj.weight.detach().float() * embedding.scale).chunk(2, dim=1)
        tables = embedding.emb_s1.weight.detach().float(), embedding.emb_s2.weight.detach().float()
        # Contribution of each token to the fused embedding; the bias is included in the coarse token's.
        shares = [table @ half.t() for table, half in zip(tables, halves, strict=True)]
        self.s1_share = (shares[0] + embedding.fusion_proj.bias.detach().float()).to(*place)
        self.s2_share = shares[1].to(*place)
        self.time = copy.deepcopy(predictor.time_emb).to(*place)
        self.blocks = FusedStack(transformer_blocks(predictor.transformer), place, compiled)
        self.norm = FusedNorm(predictor.norm, place)
        layer = predictor.dep_layer
        self.dependency, self.dependency_norm = FusedAttention(layer.cross_attn, place), FusedNorm(layer.norm, place)
        self.key_value = Projection(self.dependency, "kv")
        weight, bias = self.dependency.folded("q")
        self.query_table = torch.addmm(bias, tables[0].to(*place), weight)  # queries of all coarse tokens
        self.s1_head, self.s2_head = (
            Product.of(part, place) for part in (predictor.head.proj_s1, predictor.head.proj_s2)
        )
        if dtype == torch.int8:
            check_int8(device)
            # Not the coarse head: its first row is common to all paths, and several paths are float32 throughout.
            products = [self.key_value.product, self.dependency.out, self.s2_head]
            for product in sum((block.products() for block in self.blocks.blocks), start=products):
                product.quantise()

    def embed(self, s1_ids: Tensor, s2_ids: Tensor, time: Tensor) -> Tensor:
        """Return the sum of token and time embeddings ``(…, D)``."""
        return torch.embedding(self.s1_share, s1_ids).add_(torch.embedding(self.s2_share, s2_ids)).add_(time)

    def draw_next(self, context: "Context", sampling: Sampling, uniforms: Tensor) -> tuple[Tensor, Tensor]:
        """Draw the coarse and fine tokens ``(N, S)`` of the next candle; `uniforms` is ``(N, S, 2)``."""
        n, paths, _ = uniforms.shape
        last = context.last  # (N, 1, D) right after the known candles, then (N, S, D)
        s1 = draw(self.s1_head(last), sampling, uniforms[..., 0].view(n, last.size(1), -1)).view(n, paths)
        query = torch.embedding(self.query_table, s1)  # (N, S, D), heads in order
        factors = context.last_factors
        if factors is not None:
            rotate_(pairs(query.view(n, paths, self.dependency.groups, -1)), factors)
        query = query.view(n, paths, self.dependency.heads, -1).transpose(1, 2).flatten(0, 1)  # (N·H, S, K)
        conditioned = last.expand(n, paths, -1).clone().view(n * paths, -1)
        mixed = context.dependency.attend(query.contiguous(), 1, context.known.padding)
        self.dependency.out.add_to(conditioned, mixed)
        logits = self.s2_head(self.dependency_norm.gained(conditioned))
        return s1, draw(logits, sampling, uniforms[..., 1].reshape(-1, 1)).view(n, paths)


class Context:
    """State of the predictor after the known candles of every series and the own candles of every path.

    known: lengths and padding of the known candles.
    caches, dependency: KV caches of the blocks and of the dependency layer.
    last: normalised hidden state of the last candle, ``(N, 1, D)`` before the first own candle, then ``(N, S, D)``.
    """

    def __init__(self, predictor: FusedPredictor, x: Tensor, lengths: Tensor, paths: int, capacity: int):
        """Pass the embedded known candles ``(N, T, D)`` through the predictor; T may be 0."""
        self.predictor, self.own = predictor, 0
        self.known = Known.of(lengths, predictor.place)
        longest, total = self.known.longest, self.known.longest + capacity
        self.factors = predictor.blocks.rotations(total)
        self.dependency_factors = predictor.dependency.rotations(total) if predictor.rotary_fine_token else None
        self.caches = predictor.blocks.new_caches(len(x), longest, paths, capacity)
        self.dependency = KVCache(predictor.dependency, len(x), longest, paths, capacity, predictor.place)
        self._buffers: tuple[torch.Size, tuple[ProjectionBuffer, Tensor] | None, ProjectionBuffer] | None = None
        self.last = x[:, :0]
        if longest:
            predictor.blocks.prefill(x, self.caches)
            states = predictor.norm.gained(x)
            buffer = predictor.key_value.new_buffer(x.shape)
            predictor.key_value(states.view(-1, x.size(-1)), self._dependency_factors(0, longest), buffer)
            self.dependency.fill(buffer.known)
            self.last = states[torch.arange(len(x), device=x.device), lengths - 1, None]

    @property
    def last_factors(self) -> Tensor | None:
        """Rotary factors of the last candle in the dependency layer, ``(N or 1, 1, 1, W)``; None without positions."""
        return self._own_dependency_factors(self.own - 1, self.own)

    def extend(self, x: Tensor) -> None:
        """Pass the embedded next candles ``(N, S, t, D)`` of every path through the predictor."""
        predictor, first, self.own = self.predictor, self.own, self.own + x.size(2)
        if self._buffers is None or self._buffers[0] != x.shape:
            self._buffers = x.shape, predictor.blocks.new_buffers(x.shape), predictor.key_value.new_buffer(x.shape)
        _, buffers, buffer = self._buffers
        factors = self.known.own_factors(self.factors, first, self.own)
        predictor.blocks.extend(x, factors, self.caches, self.known.padding, buffers)
        states = predictor.norm.gained(x)
        predictor.key_value(states.view(-1, x.size(-1)), self._own_dependency_factors(first, self.own), buffer)
        self.dependency.append(buffer.path_projections(), x.size(2))
        self.last = states[:, :, -1]

    def _dependency_factors(self, first: int, last: int) -> Tensor | None:
        return None if self.dependency_factors is None else self.dependency_factors[first:last]

    def _own_dependency_factors(self, first: int, last: int) -> Tensor | None:
        return self.known.own_factors(self.dependency_factors, first, last)


def generate_tokens(
    predictor: FusedPredictor,
    known_ids: tuple[Tensor, Tensor],
    lengths: Tensor,
    stamp: Tensor,
    future_stamp: Tensor,
    sampling: Sampling,
    uniforms: Tensor,
    max_context: int,
) -> tuple[Tensor, Tensor]:
    """Continue token sequences with sampled tokens of future candles.

    Beyond `max_context` the window slides. Every hidden state then changes, so the whole window is computed again, with
    the known candles still computed once per series.

    Args:
        predictor: folded for forecasting.
        known_ids: coarse and fine ids, int64 ``(N, T)``, shorter series padded at the end.
        lengths: number of known candles of each series, ``(N,)``, at most `max_context`.
        stamp, future_stamp: ``(N, T, 5)`` and ``(N, h, 5)``, time features of known and future candles.
        sampling: how tokens are drawn.
        uniforms: random numbers in [0, 1), ``(N, S, h, 2)``, for the coarse and fine token of each step.
        max_context: maximum number of tokens that the predictor sees.

    Returns:
        Coarse and fine ids of the future candles, ``(N, S, h)``.
    """
    n, paths, horizon, _ = uniforms.shape
    longest = int(lengths.max())
    known = predictor.embed(*known_ids, predictor.time(stamp))
    future_time = predictor.time(future_stamp)[:, None].unbind(dim=2)  # of each step, (N, 1, D)
    capacity = max_context - longest  # own candles that fit behind the known candles
    own = known.new_empty(n, paths, horizon, known.size(-1)) if horizon - 1 > capacity else None
    context = Context(predictor, known if own is None else known.clone(), lengths, paths, min(horizon - 1, capacity))
    drawn = []  # tokens of each step
    for step, numbers in enumerate(uniforms.unbind(dim=2)):
        if own is not None and step > capacity:
            first = max(0, step - max_context)
            kept = lengths.clamp(max=max_context - (step - first))
            context = Context(predictor, tail(known, lengths, kept), kept, paths, step - first)
            context.extend(own[:, :, first:step].clone())
        drawn.append(predictor.draw_next(context, sampling, numbers))
        if step == horizon - 1:
            break  # the last embedding is not needed
        x = predictor.embed(*drawn[-1], future_time[step])  # (N, S, D)
        if own is not None:
            own[:, :, step] = x
        if step < capacity:
            context.extend(x[:, :, None])
    s1_ids, s2_ids = (torch.stack(part, dim=2) for part in zip(*drawn, strict=True))
    return s1_ids, s2_ids


def decode_tokens(
    tokenizer: FusedTokenizer,
    known_ids: tuple[Tensor, Tensor],
    lengths: Tensor,
    own_ids: tuple[Tensor, Tensor],
    max_context: int,
) -> Tensor:
    """Decode the future tokens into normalised candles ``(N, S, h, C)``, within the last `max_context` tokens.

    A horizon longer than `max_context` is decoded in pieces, each with its preceding tokens as context.
    """
    horizon = own_ids[0].size(2)
    piece = horizon if horizon <= max_context else max(1, max_context // 2)
    decoded = []
    for begin in range(0, horizon, piece):
        end = min(begin + piece, horizon)
        first = max(0, end - max_context)
        kept = lengths.clamp(max=max_context - (end - first))
        window = own_ids[0][:, :, first:end], own_ids[1][:, :, first:end]
        known = tail(known_ids[0], lengths, kept), tail(known_ids[1], lengths, kept)
        decoded.append(tokenizer.decode_paths(known, kept, window)[:, :, begin - first :])
    return torch.cat(decoded, dim=2)


def decode_last(tokenizer: FusedTokenizer, ids: tuple[Tensor, Tensor], lengths: Tensor, max_context: int) -> Tensor:
    """Decode the last known candle of each series from its own token, in its context: normalised ``(N, C)``."""
    rows = torch.arange(len(lengths), device=lengths.device)
    coarse, fine = (part[rows, lengths - 1][:, None, None] for part in ids)
    return decode_tokens(tokenizer, ids, lengths - 1, (coarse, fine), max_context)[:, 0, 0]


def tail(x: Tensor, lengths: Tensor, kept: Tensor) -> Tensor:
    """Return the last `kept` entries of each series: ``(N, T, …)`` with lengths ``(N,)`` → ``(N, max kept, …)``."""
    positions = (lengths - kept)[:, None] + torch.arange(int(kept.max()), device=x.device)
    return x[torch.arange(len(x), device=x.device)[:, None], positions.clamp_(max=x.size(1) - 1)]
