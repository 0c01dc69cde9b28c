"""Notices: leaks, contamination, synthetic candles and everything else that limits the meaning of an evaluation."""

from collections.abc import Sequence

import pandas as pd

from kronos_lightning.data import Candles
from kronos_lightning.forecast import ForecastSet
from kronos_lightning.runs.checkpoint_lookup import Sources
from kronos_lightning.runs.provenance import trained_until
from kronos_lightning.settings import end_of

from .forecasting import RangeForecasts

PRETRAINING_END = "2024-06-30"  # end of the published weights' training data (arXiv 2508.02739), which contain Binance
ENOUGH_PATHS = 39  # the lowest and the highest of 39 paths are the ends of a 95 % interval


def notices(candles: Candles, part: RangeForecasts) -> list[str]:
    """List the sentences that a reader has to know before the metrics of a test range."""
    found = _notices(candles, part.sampled, part.sources)
    if part.validation is not None:
        first = pd.Timestamp(part.validation.stamps[0, 0], tz="UTC")
        for name, info in (("predictor", part.sources.info), ("tokenizer", part.sources.tokenizer_info)):
            trained = trained_until(info, ("train",))
            if trained is not None and first < trained:
                found.append(
                    f"LEAK: calibrated from {first} on, but the {name} was trained on candles up to {trained}."
                )
        if not candles.synthetic and not part.sources.started_at_random and first < end_of(PRETRAINING_END):
            found.append(
                f"CALIBRATION: the validation range begins before {PRETRAINING_END}; if the pretraining has seen it, "
                f"the intervals are too narrow and the thresholds too good."
            )
        if (paths := part.sampled.paths.shape[1]) < ENOUGH_PATHS:
            found.append(f"FEW PATHS: {paths} cannot resolve the ends of a 95 % interval; use {ENOUGH_PATHS}.")
    for name, sources in part.compared_sources.items():
        others = _notices(candles, part.sampled, sources)
        found += [f"{name}: {text}" for text in others if text not in found]
    return found


def all_notices(candles: Candles, parts: Sequence[RangeForecasts]) -> list[str]:
    """List the notices of all folds without duplicates."""
    return list(dict.fromkeys(text for part in parts for text in notices(candles, part)))


def _notices(candles: Candles, forecasts: ForecastSet, sources: Sources) -> list[str]:
    found, first = [], pd.Timestamp(forecasts.stamps[0, 0], tz="UTC")
    if candles.synthetic:
        found.append(
            f"SYNTHETIC CANDLES: {candles.source}, made by a generator. No result here says anything about a market."
        )
    elif not sources.started_at_random and first < end_of(PRETRAINING_END):
        found.append(
            f"CONTAMINATED: the test range begins before {PRETRAINING_END}, and the published weights' pretraining may "
            f"have seen it. If these weights descend from them, the forecasts look better than they are."
        )
    for name, info in (("predictor", sources.info), ("tokenizer", sources.tokenizer_info)):
        seen = trained_until(info)
        if seen is not None and first < seen:
            found.append(f"LEAK: the {name} was fine-tuned on candles up to {seen}, the test begins at {first}.")
    if sources.info is not None:
        if candles.fingerprint not in sources.info["data"]["fingerprints"].values():
            found.append("OTHER DATA: the predictor was fine-tuned on other candles than those of the evaluation.")
    elif sources.random:
        found.append("RANDOM WEIGHTS: the predictor was never trained.")
    elif sources.substitute:
        found.append(f"NOT FINE-TUNED: {sources.predictor}.")
    if sources.random_tokenizer:
        found.append("RANDOM WEIGHTS: the tokenizer was never trained.")
    return found
