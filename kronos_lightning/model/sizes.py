"""Sizes of the networks: sections `model.tokenizer` and `model.predictor` of a configuration, and `config.json`.

The bounds are far above every published network. A file from elsewhere can therefore not ask for hours of work or for
all memory.
"""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from kronos_lightning.settings import Probability, Section

Width = Annotated[int, Field(gt=0, le=16_384)]
Wide = Annotated[int, Field(gt=0, le=65_536)]
Heads = Annotated[int, Field(gt=0, le=1_024)]
Depth = Annotated[int, Field(gt=0, le=128)]
Bits = Annotated[int, Field(gt=0, le=16)]
Weight = Annotated[float, Field(allow_inf_nan=False)]


class TokenizerSection(Section):
    """Arguments of `KronosTokenizer`."""

    d_in: Literal[6]
    d_model: Width
    n_heads: Heads
    ff_dim: Wide
    n_enc_layers: Annotated[int, Field(ge=2, le=128)]
    n_dec_layers: Annotated[int, Field(ge=2, le=128)]
    ffn_dropout_p: Probability
    attn_dropout_p: Probability
    resid_dropout_p: Probability
    s1_bits: Bits
    s2_bits: Bits
    beta: Weight
    gamma0: Weight
    gamma: Weight
    zeta: Weight
    group_size: Annotated[int, Field(gt=0, le=32)]

    @model_validator(mode="after")
    def _consistent(self) -> "TokenizerSection":
        _check_heads(self.d_model, self.n_heads)
        if (self.s1_bits + self.s2_bits) % self.group_size:
            raise ValueError("group_size must divide s1_bits + s2_bits")
        return self


class PredictorSection(Section):
    """Arguments of `Kronos`."""

    s1_bits: Bits
    s2_bits: Bits
    n_layers: Depth
    d_model: Annotated[int, Field(gt=0, le=16_384, multiple_of=8)]  # the dependency layer has four heads of even size
    n_heads: Heads
    ff_dim: Wide
    ffn_dropout_p: Probability
    attn_dropout_p: Probability
    resid_dropout_p: Probability
    token_dropout_p: Probability
    learn_te: bool

    @model_validator(mode="after")
    def _consistent(self) -> "PredictorSection":
        _check_heads(self.d_model, self.n_heads)
        return self


def _check_heads(d_model: int, n_heads: int) -> None:
    if d_model % n_heads or (d_model // n_heads) % 2:
        raise ValueError(f"d_model {d_model} must be a multiple of 2 x n_heads ({n_heads})")
