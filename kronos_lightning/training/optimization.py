"""Optimiser and schedule, the same for both stages."""

from torch.optim import AdamW, Optimizer
from torch.optim.lr_scheduler import OneCycleLR

from kronos_lightning.config.sections import StageSection
from kronos_lightning.model import Kronos, KronosTokenizer

from .regularization import depths


def build_optimizer(
    network: KronosTokenizer | Kronos, stage: StageSection, layer_decay: float = 1.0, fused: bool = True
) -> AdamW:
    """AdamW with decay on tensors of two and more axes, none on norms and biases; two groups a rate.

    Args:
        network: what is trained.
        stage: rates and decay.
        layer_decay: each layer has this times the rate of the layer above it; the heads have the whole.
        fused: a step in one pass over memory.
    """
    layers = [list(network.parameters())] if layer_decay == 1 else depths(network)
    groups = []
    for below, layer in enumerate(reversed(layers)):
        rate, trained = stage.learning_rate * layer_decay**below, [p for p in layer if p.requires_grad]
        groups += [
            {"params": [p for p in trained if p.dim() >= 2], "weight_decay": stage.weight_decay, "lr": rate},
            {"params": [p for p in trained if p.dim() < 2], "weight_decay": 0.0, "lr": rate},
        ]
    return AdamW(groups, lr=stage.learning_rate, betas=tuple(stage.betas), fused=fused)


def build_schedule(optimizer: Optimizer, stage: StageSection, total_steps: int) -> OneCycleLR:
    """One cycle over all optimiser steps; the warm-up lasts two steps at least (a shorter one divides by zero).

    Each group's peak is the rate that it was made with; the schedule leaves AdamW's betas alone.
    """
    return OneCycleLR(
        optimizer,
        max_lr=[group["lr"] for group in optimizer.param_groups],
        total_steps=total_steps,
        pct_start=min(max(stage.pct_start, 2 / total_steps), 0.99),
        div_factor=stage.div_factor,
        cycle_momentum=False,
    )
