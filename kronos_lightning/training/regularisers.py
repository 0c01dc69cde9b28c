"""Regularisers that act in each step of a training: on its loss, its gradient, or its weights."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Optimizer

from .sharding import share


class Regulariser:
    """A means against overfitting. A subclass overrides the places where it acts; the others do nothing.

    ``regularization.extra`` in the configuration names the class and its arguments.
    """

    def on_loss(self, loss: Tensor, network: nn.Module) -> Tensor:
        """Return the training loss to minimise, a scalar; `loss` is that without this regulariser."""
        return loss

    def on_gradient(self, network: nn.Module, optimizer: Optimizer) -> None:
        """Change gradients or rates in place, after the backward pass and before the gradient is clipped."""

    def on_weights(self, network: nn.Module, optimizer: Optimizer) -> None:
        """Change weights in place, after the step; ``group["lr"]`` is the rate that it was made with."""


class SoftThreshold(Regulariser):
    """L1: matrices are soft-thresholded by learning rate × strength after a step, which leaves exact zeros."""

    def __init__(self, strength: float):
        self.strength = strength

    @torch.no_grad()
    def on_weights(self, network: nn.Module, optimizer: Optimizer) -> None:
        for group in optimizer.param_groups:
            for p in (share(p) for p in group["params"] if p.dim() >= 2):
                p.copy_(F.softshrink(p, group["lr"] * self.strength))


class PullToStart(Regulariser):
    """L2-SP (arXiv 1802.01483): each weight is pulled by learning rate × strength × its way from the start.

    Apart from Adam's statistics, as its weight decay is.

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
