"""Regularisation that changes the network before training, or tracks its weights.

Shape letters: B windows, W rows of a window.
"""

import copy
from collections.abc import Sequence
from fnmatch import fnmatchcase

import torch
from torch import Tensor, nn

from kronos_lightning.data import WindowBatch
from kronos_lightning.data.representation import AnyRepresentation
from kronos_lightning.errors import KronosError
from kronos_lightning.model import Kronos, KronosTokenizer
from kronos_lightning.model.layers import Attention, FeedForward


class RegularizationError(KronosError, ValueError):
    """Error if the network has no such part; the message names the existing parts."""


class WeightAverage(nn.Module):
    """Exponential moving average (EMA) of a network's trained weights: a separate network, always in eval mode.

    The decay of step n is ``min(decay, (1 + n) / (10 + n))``, so that the average of a short run does not contain its
    initial weights. Lightning's `EMAWeightAveraging` has no such warm-up and copies the frozen tokenizer too. It also
    swaps the weights of a single network before and after each validation, so the weights folded for forecasting would
    have to be folded again each time.
    """

    def __init__(self, network: KronosTokenizer | Kronos, decay: float):
        super().__init__()
        self.network, self.decay = copy.deepcopy(network).requires_grad_(False).eval(), decay
        self.register_buffer("steps", torch.zeros((), dtype=torch.long))

    @torch.no_grad()
    def update(self, network: KronosTokenizer | Kronos) -> None:
        """Update the average with the weights after one more step."""
        pairs = zip(self.network.parameters(), network.parameters(), strict=True)
        averages, latest = zip(*((a, p) for a, p in pairs if p.requires_grad), strict=True)
        n = int(self.steps)
        torch._foreach_lerp_(averages, latest, 1 - min(self.decay, (1 + n) / (10 + n)))
        self.steps += 1

    def train(self, mode: bool = True) -> "WeightAverage":
        return super().train(False)


def override_dropout(
    network: KronosTokenizer | Kronos,
    ffn: float | None = None,
    attn: float | None = None,
    resid: float | None = None,
    token: float | None = None,
) -> None:
    """Override the dropout probabilities of the checkpoint; None keeps a probability. Updates the network's config too.

    The tokenizer has no token dropout; `token` is ignored for it.
    """
    if isinstance(network, KronosTokenizer):
        token = None
    for module in network.modules():
        if isinstance(module, FeedForward) and ffn is not None:
            module.dropout.p = ffn
        if isinstance(module, Attention):
            module.attn_dropout_p = module.attn_dropout_p if attn is None else attn
            module.resid_dropout.p = module.resid_dropout.p if resid is None else resid
    if token is not None:
        network.token_drop.p = token
    asked = {"ffn": ffn, "attn": attn, "resid": resid, "token": token}
    network.config_changed(**{f"{name}_dropout_p": p for name, p in asked.items() if p is not None})


def freeze(network: nn.Module, patterns: Sequence[str]) -> None:
    """Freeze the parameters whose names match one of the patterns (``*``, ``?``, ``[0-3]``).

    Raises:
        RegularizationError: a pattern matches nothing, or no parameter is left to train.
    """
    for pattern in patterns:
        matched = [p for name, p in network.named_parameters() if fnmatchcase(name, pattern)]
        if not matched:
            raise RegularizationError(
                f"regularization.freeze: {pattern!r} matches no parameter of this network; its parts are "
                f"{', '.join(name for name, _ in network.named_children())} (full names look like "
                f"{next(iter(dict(network.named_parameters())))})"
            )
        for p in matched:
            p.requires_grad_(False)
    if not any(p.requires_grad for p in network.parameters()):
        raise RegularizationError("regularization.freeze: every parameter is frozen, nothing is left to train")


def depths(network: KronosTokenizer | Kronos) -> list[list[nn.Parameter]]:
    """Group the parameters by layer, from the input layer to the output layer."""
    if isinstance(network, Kronos):
        parts = [[network.embedding, network.time_emb], *([block] for block in network.transformer)]
        parts.append([network.norm, network.dep_layer, network.head])
    else:
        parts = [[network.embed], *([block] for block in network.encoder), [network.quant_embed]]
        parts += [[network.post_quant_embed_pre, network.post_quant_embed]]
        parts += [*([block] for block in network.decoder), [network.head]]
    return [[p for module in layer for p in module.parameters()] for layer in parts]


def window_volatility(batch: WindowBatch, representation: AnyRepresentation, clip: float) -> Tensor:
    """Compute the standard deviation per candle of the closes' log returns, averaged over the windows: scalar."""
    x, scale = batch.candles
    returns = representation.log_returns(x.float(), scale, clip)
    return returns.std(dim=1, correction=0).mean()
