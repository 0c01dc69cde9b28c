"""Whether a difference to the baseline is more than chance."""

from dataclasses import dataclass

import numpy as np

from .metrics import Scores

FEWEST_BLOCKS = 8  # below this an interval from blocks means nothing


@dataclass(frozen=True)
class Verdict:
    """Skill against the last price (1 − MAE / MAE of the last price), its 95 % interval, and the words for it."""

    skill: float
    lower: float
    upper: float
    words: str


def judge(scores: Scores, overlap: int, samples: int, seed: int) -> Verdict:
    """Say better, worse or no difference by a circular block bootstrap over the cutoffs.

    Forecasts that overlap in time are correlated; whole blocks of neighbours are resampled so that this shows in the
    interval (Politis and Romano, 1992).

    Args:
        scores: of the forecast set, cutoffs in time order.
        overlap: how many neighbouring cutoffs share target candles.
        samples: resamplings.
        seed: of the resampling.
    """
    model, baseline = scores.model_error.mean(axis=1), scores.last_price_error.mean(axis=1)
    n = len(model)
    block = max(overlap, round(n ** (1 / 3)))
    if n < FEWEST_BLOCKS * block:
        words = f"too few independent cutoffs to judge ({n} cutoffs, of which {block} each hang together)"
        return Verdict(scores.skill, np.nan, np.nan, words)
    rng = np.random.default_rng(seed)
    first = rng.integers(0, n, (samples, -(-n // block)))
    rows = ((first[..., None] + np.arange(block)) % n).reshape(samples, -1)[:, :n]
    skills = 1 - model[rows].mean(axis=1) / baseline[rows].mean(axis=1)
    lower, upper = np.quantile(skills, [0.025, 0.975])
    if lower > 0:
        words = "better than the last price"
    elif upper < 0:
        words = "worse than the last price"
    else:
        words = "no difference to the last price: no edge"
    return Verdict(scores.skill, float(lower), float(upper), words)
