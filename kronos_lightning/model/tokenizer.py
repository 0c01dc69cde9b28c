"""Kronos tokenizer: candles to pairs of discrete tokens (coarse s1, fine s2) and back.

Shape letters: B batch, T candles, C features (open high low close volume amount), D d_model, N bits.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kronos_lightning.model.layers import TransformerBlock, run_blocks
from kronos_lightning.model.pretrained import PretrainedModule
from kronos_lightning.model.quantizer import BinarySphericalQuantizer, bits_to_index, index_to_bits
from kronos_lightning.model.sizes import TokenizerSection


@dataclass
class TokenizerOutput:
    """Output of a forward pass through the tokenizer."""

    coarse: Tensor  # (B, T, C) decoded from the s1 bits alone
    full: Tensor  # (B, T, C) decoded from all bits
    code: Tensor  # (B, T, N) quantised embedding
    quantizer_loss: Tensor  # scalar; negative values are normal (entropy term)

    def loss(self, x: Tensor) -> Tensor:
        """Return the training loss, ``(MSE(coarse, x) + MSE(full, x) + quantiser loss) / 2``."""
        return (F.mse_loss(self.coarse, x) + F.mse_loss(self.full, x) + self.quantizer_loss) / 2


class KronosTokenizer(nn.Module, PretrainedModule):
    """Encoder, binary spherical quantiser and decoder (arXiv 2508.02739, section 3).

    Args:
        d_in: number of features per candle, C.
        d_model, n_heads, ff_dim: width, attention heads, feed-forward width.
        n_enc_layers, n_dec_layers: encoder and decoder depth, including the input and output layer.
        ffn_dropout_p, attn_dropout_p, resid_dropout_p: dropout probabilities.
        s1_bits, s2_bits: lengths of the coarse and fine code.
        beta, gamma0, gamma, zeta, group_size: see `BinarySphericalQuantizer`.
    """

    sizes = TokenizerSection

    def __init__(
        self,
        d_in: int,
        d_model: int,
        n_heads: int,
        ff_dim: int,
        n_enc_layers: int,
        n_dec_layers: int,
        ffn_dropout_p: float,
        attn_dropout_p: float,
        resid_dropout_p: float,
        s1_bits: int,
        s2_bits: int,
        beta: float,
        gamma0: float,
        gamma: float,
        zeta: float,
        group_size: int,
    ):
        super().__init__()
        self.s1_bits, self.s2_bits = s1_bits, s2_bits
        n_bits = s1_bits + s2_bits

        def blocks(n_layers: int) -> nn.ModuleList:
            args = d_model, n_heads, ff_dim, ffn_dropout_p, attn_dropout_p, resid_dropout_p
            return nn.ModuleList(TransformerBlock(*args) for _ in range(n_layers - 1))

        self.embed = nn.Linear(d_in, d_model)
        self.head = nn.Linear(d_model, d_in)
        self.encoder = blocks(n_enc_layers)
        self.decoder = blocks(n_dec_layers)
        self.quant_embed = nn.Linear(d_model, n_bits)
        self.post_quant_embed_pre = nn.Linear(s1_bits, d_model)
        self.post_quant_embed = nn.Linear(n_bits, d_model)
        quantizer = BinarySphericalQuantizer(n_bits, beta, gamma0, gamma, zeta, group_size)
        self.tokenizer = nn.ModuleDict({"bsq": quantizer})  # published checkpoints name it tokenizer.bsq

    def forward(self, x: Tensor) -> TokenizerOutput:
        """Reconstruct normalised candles x ``(B, T, C)``."""
        code, quantizer_loss = self.tokenizer["bsq"](self._embed(x))
        both = torch.cat([self.post_quant_embed_pre(code[..., : self.s1_bits]), self.post_quant_embed(code)])
        coarse, full = self._decode(both).chunk(2)  # as one batch
        return TokenizerOutput(coarse, full, code, quantizer_loss)

    def encode(self, x: Tensor, half: bool = False) -> tuple[Tensor, Tensor] | Tensor:
        """Return the token ids of normalised candles x ``(B, T, C)``.

        Returns:
            ``(s1_ids, s2_ids)``, each int64 ``(B, T)``, if `half` is set; otherwise one composite id ``(B, T)``.
        """
        bits = self.tokenizer["bsq"].bits(self._embed(x))
        if half:
            return bits_to_index(bits[..., : self.s1_bits]), bits_to_index(bits[..., self.s1_bits :])
        return bits_to_index(bits)

    def decode(self, ids: tuple[Tensor, Tensor] | Tensor, half: bool = False) -> Tensor:
        """Decode token ids, as returned by `encode` with the same `half`, into normalised candles ``(B, T, C)``."""
        if half:
            s1_ids, s2_ids = ids
            bits = torch.cat([index_to_bits(s1_ids, self.s1_bits), index_to_bits(s2_ids, self.s2_bits)], dim=-1)
        else:
            bits = index_to_bits(ids, self.s1_bits + self.s2_bits)
        weight = self.post_quant_embed.weight
        code = (bits.to(weight.dtype) * 2 - 1) * self.tokenizer["bsq"].scale
        return self._decode(self.post_quant_embed(code))

    def _embed(self, x: Tensor) -> Tensor:
        return self.quant_embed(run_blocks(self.encoder, self.embed(x)))

    def _decode(self, z: Tensor) -> Tensor:
        return self.head(run_blocks(self.decoder, z))
