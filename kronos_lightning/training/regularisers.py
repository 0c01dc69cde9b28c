"""Regularisers that act in each training step: on the loss, the gradient or the weights."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Optimizer

from .sharding import local_shard


class Regulariser:
    """Base class of regularisers. A subclass overrides the hooks that it needs; the other hooks do nothing.

    ``regularization.extra`` in the configuration names the class and its arguments.
    """

    def on_loss(self, loss: Tensor, network: nn.Module) -> Tensor:
        """Return the training loss to minimise, a scalar; `loss` is the scalar loss without this regulariser."""
        return loss

    def on_gradient(self, network: nn.Module, optimizer: Optimizer) -> None:
        """Change gradients or learning rates in place, after the backward pass and before gradient clipping."""

    def on_weights(self, network: nn.Module, optimizer: Optimizer) -> None:
        """Change weights in place, after the optimiser step; ``group["lr"]`` is the learning rate of that step."""


class SoftThreshold(Regulariser):
    """L1 regulariser: soft-thresholds matrices by learning rate × strength after a step, which yields exact zeros."""

    def __init__(self, strength: float):
        self.strength = strength

    @torch.no_grad()
    def on_weights(self, network: nn.Module, optimizer: Optimizer) -> None:
        for group in optimizer.param_groups:
            for p in (local_shard(p) for p in group["params"] if p.dim() >= 2):
                p.copy_(F.softshrink(p, group["lr"] * self.strength))


class L2SP(Regulariser):
    """L2-SP regulariser (arXiv 1802.01483): pulls each weight towards its value at the start of the run.

    The pull is learning rate × strength × distance. It is decoupled from Adam's statistics, like AdamW's weight decay.

    Args:
        strength: of the pull.
        start: weights at the beginning of the run, in the order of the network's trained parameters.
    """

    def __init__(self, strength: float, start: Sequence[nn.Parameter]):
        self.strength, self.start = strength, start

    @torch.no_grad()
    def on_weights(self, network: nn.Module, optimizer: Optimizer) -> None:
        trained = (p for p in network.parameters() if p.requires_grad)
        start = dict(zip(trained, self.start, strict=True))
        for group in optimizer.param_groups:
            if group["params"]:
                towards = [start[p] for p in group["params"]]
                torch._foreach_lerp_(group["params"], towards, min(group["lr"] * self.strength, 1.0))
