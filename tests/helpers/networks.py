"""Sizes of tiny networks."""

TINY_BITS = {"s1_bits": 4, "s2_bits": 3}
TINY_TOKENIZER = TINY_BITS | {
    "d_in": 6, "d_model": 16, "n_heads": 2, "ff_dim": 24, "n_enc_layers": 2, "n_dec_layers": 2, "ffn_dropout_p": 0.0,
    "attn_dropout_p": 0.0, "resid_dropout_p": 0.0, "beta": 0.05, "gamma0": 1.0, "gamma": 1.1, "zeta": 0.05,
    "group_size": 7,
}  # fmt: skip
TINY_PREDICTOR = TINY_BITS | {
    "n_layers": 2, "d_model": 16, "n_heads": 2, "ff_dim": 24, "ffn_dropout_p": 0.3, "attn_dropout_p": 0.1,
    "resid_dropout_p": 0.3, "token_dropout_p": 0.1, "learn_te": True,
}  # fmt: skip
