"""Normalisation of price levels, the published representation."""

import torch

from kronos_lightning.data.representation import LEVELS


def normalise(window, lookback, clip):
    """Normalised windows ``(B, W, C)``, and the mean and deviation of their known rows ``(B, 1, C)``."""
    x, scale = LEVELS.normalise(window, lookback, clip, torch.zeros(*window.shape[:2], 5, dtype=torch.int8))
    return x, scale.mean, scale.std
