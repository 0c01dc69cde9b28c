"""Baselines by the configuration, and their sample paths on the cutoffs of a forecast set.

Shape letters: N cutoffs, S sample paths, h horizon.
"""

import logging
from collections.abc import Sequence

import numpy as np
import pandas as pd
from hydra.utils import instantiate

from kronos_lightning.config.schema import Evaluation
from kronos_lightning.config.validation import ConfigError
from kronos_lightning.data import Candles
from kronos_lightning.evaluation.baselines import Baseline, close_paths
from kronos_lightning.forecast import ForecastSet

log = logging.getLogger("evaluate")


def build_baselines(settings: Evaluation, interval: pd.Timedelta) -> dict[str, Baseline]:
    """Build the configured baselines that exist for candles of this length, by name.

    Raises:
        ConfigError: none of them exists for such candles.
    """
    named = {name: instantiate(settings.baselines[name], _convert_="all") for name in settings.evaluation.baselines}
    found = {name: baseline for name, baseline in named.items() if baseline.applies_to(interval)}
    if not found:
        raise ConfigError(f"evaluation.baselines: none of them supports candles of {settings.data.interval}")
    return found


def baseline_paths(
    settings: Evaluation, candles: Candles, forecasts: ForecastSet, names: Sequence[str] | None = None
) -> dict[str, np.ndarray]:
    """Sample the paths of the baselines on the same cutoffs; return their closes ``(N, S, h)`` by name.

    Args:
        settings: the whole configuration.
        candles: all candles.
        forecasts: forecasts with these cutoffs.
        names: of the baselines; None = all.
    """
    rows, found = candles.rows_at(forecasts.cutoffs), build_baselines(settings, candles.interval)
    for name in settings.evaluation.baselines:
        if name not in found:
            log.info("Baseline %s: skipped, it does not support candles of %s", name, settings.data.interval)
    return {
        name: close_paths(one.sample_paths(candles, rows, forecasts.horizon, settings.forecast.num_paths))
        for name, one in found.items()
        if names is None or name in names
    }
