"""Means against overfitting that change the network before its training, or watch over its weights.

Shape letters: B windows, W rows of a window.
"""

import copy
from collections.abc import Sequence
from fnmatch import fnmatchcase

import torch
from torch import Tensor, nn

from kronos_lightning.data import WindowBatch
from kronos_lightning.data.formats import CLOSE
from kronos_lightning.data.windows import denormalise
from kronos_lightning.errors import KronosError
from kronos_lightning.model import Kronos, KronosTokenizer
from kronos_lightning.model.layers import Attention, FeedForward


class RegularizationError(KronosError, ValueError):
    """The network has no such part; the message names those that it has."""


class WeightAverage(nn.Module):
    """Exponential average of a network's trained weights: a network of its own, never in training mode.

    The decay of the n-th step is ``min(decay, (1 + n) / (10 + n))``, so that a short run does not average its start.
    Lightning's `EMAWeightAveraging` has no such warm-up, copies the frozen tokenizer too, and exchanges the weights of
    the one network before and after each validation, so that what is folded for forecasting would be folded anew.
    """

    def __init__(self, network: KronosTokenizer | Kronos, decay: float):
        super().__init__()
        self.network, self.decay = copy.deepcopy(network).requires_grad_(False).eval(), decay
        self.register_buffer("steps", torch.zeros((), dtype=torch.long))

    @torch.no_grad()
    def update(self, network: KronosTokenizer | Kronos) -> None:
        """Take the weights after one more step into the average."""
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
    """Set dropout probabilities, whatever the checkpoint says; None leaves one. Its config then says the new ones.

    The tokenizer has no token dropout, and `token` does nothing to it.
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
    """Keep parameters whose names match one of the patterns (``*``, ``?``, ``[0-3]``) as they are.

    Raises:
        RegularizationError: a pattern matches nothing, or nothing is left to train.
    """
    for pattern in patterns:
        matched = [p for name, p in network.named_parameters() if fnmatchcase(name, pattern)]
        if not matched:
            raise RegularizationError(
                f"regularization.freeze: {pattern!r} matches no parameter of this network; its parts are "
                f"{', '.join(name for name, _ in network.named_children())} (names go on after a point: "
                f"{next(iter(dict(network.named_parameters())))})"
            )
        for p in matched:
            p.requires_grad_(False)
    if not any(p.requires_grad for p in network.parameters()):
        raise RegularizationError("regularization.freeze: every parameter is frozen, nothing is left to train")


def depths(network: KronosTokenizer | Kronos) -> list[list[nn.Parameter]]:
    """The parameters by layer, from what reads the input to what writes the output."""
    if isinstance(network, Kronos):
        parts = [[network.embedding, network.time_emb], *([block] for block in network.transformer)]
        parts.append([network.norm, network.dep_layer, network.head])
    else:
        parts = [[network.embed], *([block] for block in network.encoder), [network.quant_embed]]
        parts += [[network.post_quant_embed_pre, network.post_quant_embed]]
        parts += [*([block] for block in network.decoder), [network.head]]
    return [[p for module in layer for p in module.parameters()] for layer in parts]


def window_volatility(batch: WindowBatch) -> Tensor:
    """Mean over the windows of the deviation of their closes' log returns, a candle: scalar."""
    close = denormalise(batch.x.float(), batch.mean.float(), batch.std.float())[..., CLOSE]  # (B, W)
    close = close.clamp_min(torch.finfo(close.dtype).tiny)
    return (close[:, 1:] / close[:, :-1]).log().std(dim=1, correction=0).mean()
