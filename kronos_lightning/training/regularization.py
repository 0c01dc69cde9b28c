"""Means against overfitting: what they are, and what is done to a network before its training.

Shape letters: B windows, W rows of a window.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Optimizer

from kronos_lightning.data import WindowBatch
from kronos_lightning.data.formats import FEATURES
from kronos_lightning.data.windows import denormalise
from kronos_lightning.model import Kronos, KronosTokenizer
from kronos_lightning.model.layers import Attention, FeedForward

from .sharding import share

CLOSE = FEATURES.index("close")


class RegularizationError(ValueError):
    """The network has no such part; the message names those that it has."""


@dataclass(frozen=True)
class Regularization:
    """What happens in each step of a training; the defaults do nothing.

    l1: matrices are soft-thresholded by learning rate × l1 after a step, which leaves exact zeros.
    l2_pretrained: each weight is pulled by learning rate × l2_pretrained × its way from the run's start (L2-SP,
        arXiv 1802.01483). Both are apart from Adam's statistics, as its weight decay is.
    label_smoothing: of the predictor's training cross-entropy; validation has none.
    ema: decay of the average over the steps' weights, which is validated and exported.
    volatility: the learning rate is divided by 1 + volatility / volatility_base, the volatility being that of the
        step's windows ("batch") or a given one.
    volatility_base: deviation of a candle's log return.
    loss_on: rows whose training loss counts: the whole window's, or those of the target alone.
    """

    l1: float = 0.0
    l2_pretrained: float = 0.0
    label_smoothing: float = 0.0
    ema: float | None = None
    volatility: Literal["batch"] | float | None = None
    volatility_base: float = 0.02
    loss_on: Literal["window", "horizon"] = "window"

    @torch.no_grad()
    def shrink(self, optimizer: Optimizer, start: dict[nn.Parameter, Tensor]) -> None:
        """Pull the weights towards those of the start, then towards zero, at the rates of the step just made."""
        for group in optimizer.param_groups:
            if self.l2_pretrained and group["params"]:
                towards = [start[p] for p in group["params"]]
                torch._foreach_lerp_(group["params"], towards, min(group["lr"] * self.l2_pretrained, 1.0))
            if self.l1:
                for p in (share(p) for p in group["params"] if p.dim() >= 2):
                    p.copy_(F.softshrink(p, group["lr"] * self.l1))

    def rate_factor(self, volatility: float) -> float:
        """By how much a volatility lowers the learning rate, in (0, 1]."""
        return 1 / (1 + volatility / self.volatility_base)


NO_REGULARIZATION = Regularization()


class WeightAverage(nn.Module):
    """Exponential average of a network's trained weights: a network of its own, never in training mode.

    The decay of the n-th step is ``min(decay, (1 + n) / (10 + n))``, so that a short run does not average its start.
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
