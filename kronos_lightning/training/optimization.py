"""Optimiser and learning-rate schedule, the same for both stages."""

from torch.optim import AdamW, Optimizer
from torch.optim.lr_scheduler import OneCycleLR

from kronos_lightning.config.sections import StageSection
from kronos_lightning.model import Kronos, KronosTokenizer

from .regularization import depths


def build_optimizer(
    network: KronosTokenizer | Kronos, stage: StageSection, layer_decay: float = 1.0, fused: bool = True
) -> AdamW:
    """Build AdamW: weight decay on tensors with two or more axes, none on norms and biases; two groups per rate.

    Args:
        network: the network to train.
        stage: learning rate, betas and weight decay.
        layer_decay: learning rate of a layer relative to the layer above it; the heads have the full rate.
        fused: update all weights in one pass over memory.
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
    """Build a one-cycle schedule over all optimiser steps, with at least two warm-up steps.

    A shorter warm-up would divide by zero. Each group peaks at the learning rate it was created with; the schedule does
    not change AdamW's betas.
    """
    return OneCycleLR(
        optimizer,
        max_lr=[group["lr"] for group in optimizer.param_groups],
        total_steps=total_steps,
        pct_start=min(max(stage.pct_start, 2 / total_steps), 0.99),
        div_factor=stage.div_factor,
        cycle_momentum=False,
    )
