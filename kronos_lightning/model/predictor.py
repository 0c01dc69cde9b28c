"""Kronos predictor: an autoregressive transformer over pairs of candle tokens.

Shape letters: B batch, T tokens, D d_model, V1 = 2^s1_bits, V2 = 2^s2_bits.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kronos_lightning.model.layers import (
    DependencyAwareLayer,
    Dropout,
    DualHead,
    FixedEmbedding,
    HierarchicalEmbedding,
    RMSNorm,
    TimeEmbedding,
    TransformerBlock,
    run_blocks,
)
from kronos_lightning.model.pretrained import PretrainedModule
from kronos_lightning.model.sizes import PredictorSection


class Kronos(nn.Module, PretrainedModule):
    """Decoder-only transformer with a coarse head and a fine head conditioned on the coarse token.

    Args:
        s1_bits, s2_bits: code lengths; they must equal the tokenizer's.
        n_layers, d_model, n_heads, ff_dim: depth, width, attention heads, feed-forward width.
        ffn_dropout_p, attn_dropout_p, resid_dropout_p, token_dropout_p: dropout probabilities.
        learn_te: True trains the time embeddings; False keeps fixed sinusoidal embeddings.
    """

    sizes = PredictorSection

    def __init__(
        self,
        s1_bits: int,
        s2_bits: int,
        n_layers: int,
        d_model: int,
        n_heads: int,
        ff_dim: int,
        ffn_dropout_p: float,
        attn_dropout_p: float,
        resid_dropout_p: float,
        token_dropout_p: float,
        learn_te: bool,
    ):
        super().__init__()
        self.s1_bits, self.s2_bits = s1_bits, s2_bits
        self.embedding = HierarchicalEmbedding(s1_bits, s2_bits, d_model)
        self.time_emb = TimeEmbedding(d_model, learn_te)
        self.token_drop = Dropout(token_dropout_p)
        self.transformer = nn.ModuleList(
            TransformerBlock(d_model, n_heads, ff_dim, ffn_dropout_p, attn_dropout_p, resid_dropout_p)
            for _ in range(n_layers)
        )
        self.norm = RMSNorm(d_model)
        self.dep_layer = DependencyAwareLayer(d_model, attn_dropout_p, resid_dropout_p)
        self.head = DualHead(s1_bits, s2_bits, d_model)
        self._initialise(d_model)

    def _initialise(self, d_model: int) -> None:
        fixed = {id(module.emb) for module in self.modules() if isinstance(module, FixedEmbedding)}
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_normal_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
            elif isinstance(module, nn.Embedding) and id(module) not in fixed:
                nn.init.normal_(module.weight, std=d_model**-0.5)

    def forward(
        self,
        s1_ids: Tensor,
        s2_ids: Tensor,
        stamp: Tensor | None = None,
        s1_next: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Return the logits of the next token at every position, causal in train and eval mode.

        Args:
            s1_ids, s2_ids: int64 ``(B, T)``, the known tokens.
            stamp: int ``(B, T, 5)``, minute hour weekday day month of these tokens; None adds no time embedding.
            s1_next: int64 ``(B, T)``, the coarse tokens that condition the fine head. Pass the targets for teacher
                forcing; None draws the tokens from the model's own coarse distribution.

        Returns:
            s1 logits ``(B, T, V1)`` and s2 logits ``(B, T, V2)``.
        """
        s1_logits, context = self.decode_s1(s1_ids, s2_ids, stamp)
        if s1_next is None:
            probabilities = s1_logits.detach().float().softmax(dim=-1)
            s1_next = torch.multinomial(probabilities.flatten(0, 1), 1).view(s1_ids.shape)
        conditioned = self.dep_layer(context, self.embedding.emb_s1(s1_next))
        return s1_logits, self.head.proj_s2(conditioned)

    def decode_s1(self, s1_ids: Tensor, s2_ids: Tensor, stamp: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return the coarse logits ``(B, T, V1)`` and the context ``(B, T, D)`` of every position."""
        context = self.encode_context(s1_ids, s2_ids, stamp)
        return self.head.proj_s1(context), context

    def encode_context(self, s1_ids: Tensor, s2_ids: Tensor, stamp: Tensor | None = None) -> Tensor:
        """Return the normalised hidden state ``(B, T, D)`` that both heads read."""
        x = self.embedding(s1_ids, s2_ids)
        if stamp is not None:
            x = x + self.time_emb(stamp)
        return self.norm(run_blocks(self.transformer, self.token_drop(x)))

    def decode_s2(self, context: Tensor, s1_next: Tensor, positions: bool = False) -> Tensor:
        """Return the fine logits ``(B, 1, V2)`` of the last position, given its coarse token.

        Args:
            context: ``(B, T, D)`` from `decode_s1`.
            s1_next: int64 ``(B, 1)``, the coarse token chosen for the next candle.
            positions: True uses rotary positions in the dependency layer; see `DependencyAwareLayer.last`.
        """
        conditioned = self.dep_layer.last(context, self.embedding.emb_s1(s1_next), positions)
        return self.head.proj_s2(conditioned)


def token_losses(
    s1_logits: Tensor, s2_logits: Tensor, s1_ids: Tensor, s2_ids: Tensor, label_smoothing: float = 0.0
) -> tuple[Tensor, Tensor]:
    """Return the coarse and fine cross-entropy of every position in nats, each ``(B, T)``.

    The training loss is half of the mean of their sum. `label_smoothing` is the share of the target that is spread
    evenly over all tokens.
    """
    s1_loss, s2_loss = (
        F.cross_entropy(
            logits.flatten(0, -2).float(), ids.flatten(), reduction="none", label_smoothing=label_smoothing
        ).view(ids.shape)
        for logits, ids in ((s1_logits, s1_ids), (s2_logits, s2_ids))
    )
    return s1_loss, s2_loss
