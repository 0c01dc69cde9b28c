"""Optimiser and schedule, the same for both stages."""

from dataclasses import dataclass

from torch.optim import AdamW, Optimizer
from torch.optim.lr_scheduler import OneCycleLR

from kronos_lightning.model import Kronos, KronosTokenizer

from .regularization import depths


@dataclass(frozen=True)
class Optimization:
    """AdamW and a one-cycle schedule.

    learning_rate: peak of the schedule.
    betas: of AdamW; the schedule leaves them alone.
    weight_decay: on matrices only.
    pct_start: share of the steps that warms up.
    div_factor: the schedule starts at learning_rate / div_factor.
    layer_decay: each layer has this times the rate of the layer above it; the heads have the whole.
    """

    learning_rate: float
    betas: tuple[float, float]
    weight_decay: float
    pct_start: float
    div_factor: float
    layer_decay: float = 1.0

    def optimizer(self, network: KronosTokenizer | Kronos, fused: bool = True) -> AdamW:
        """AdamW with decay on tensors of two and more axes, none on norms and biases; two groups a rate.

        `fused`: a step in one pass over memory.
        """
        layers = [list(network.parameters())] if self.layer_decay == 1 else depths(network)
        groups = []
        for below, layer in enumerate(reversed(layers)):
            rate, trained = self.learning_rate * self.layer_decay**below, [p for p in layer if p.requires_grad]
            groups += [
                {"params": [p for p in trained if p.dim() >= 2], "weight_decay": self.weight_decay, "lr": rate},
                {"params": [p for p in trained if p.dim() < 2], "weight_decay": 0.0, "lr": rate},
            ]
        return AdamW(groups, lr=self.learning_rate, betas=tuple(self.betas), fused=fused)

    def schedule(self, optimizer: Optimizer, total_steps: int) -> OneCycleLR:
        """One cycle over all optimiser steps; the warm-up lasts two steps at least (a shorter one divides by zero).

        Each group's peak is the rate that it was made with.
        """
        return OneCycleLR(
            optimizer,
            max_lr=[group["lr"] for group in optimizer.param_groups],
            total_steps=total_steps,
            pct_start=min(max(self.pct_start, 2 / total_steps), 0.99),
            div_factor=self.div_factor,
            cycle_momentum=False,
        )
