"""Optimiser and schedule, the same for both stages."""

from collections.abc import Iterable
from dataclasses import dataclass

from torch import nn
from torch.optim import AdamW, Optimizer
from torch.optim.lr_scheduler import OneCycleLR


@dataclass(frozen=True)
class Optimization:
    """AdamW and a one-cycle schedule.

    learning_rate: peak of the schedule.
    betas: of AdamW; the schedule leaves them alone.
    weight_decay: on matrices only.
    pct_start: share of the steps that warms up.
    div_factor: the schedule starts at learning_rate / div_factor.
    """

    learning_rate: float
    betas: tuple[float, float]
    weight_decay: float
    pct_start: float
    div_factor: float

    def optimizer(self, parameters: Iterable[nn.Parameter]) -> AdamW:
        """AdamW with decay on tensors of two and more axes, none on norms and biases."""
        trained = [p for p in parameters if p.requires_grad]
        groups = [
            {"params": [p for p in trained if p.dim() >= 2], "weight_decay": self.weight_decay},
            {"params": [p for p in trained if p.dim() < 2], "weight_decay": 0.0},
        ]
        return AdamW(groups, lr=self.learning_rate, betas=tuple(self.betas))

    def schedule(self, optimizer: Optimizer, total_steps: int) -> OneCycleLR:
        """One cycle over all optimiser steps; the warm-up lasts two steps at least (a shorter one divides by zero)."""
        return OneCycleLR(
            optimizer,
            max_lr=self.learning_rate,
            total_steps=total_steps,
            pct_start=min(max(self.pct_start, 2 / total_steps), 0.99),
            div_factor=self.div_factor,
            cycle_momentum=False,
        )
