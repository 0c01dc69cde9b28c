"""AutoARIMA, AutoETS and AutoTheta of statsforecast as baselines, refitted at every cutoff."""

import logging
from typing import Any, Literal

import numpy as np
from scipy.stats import norm

from kronos_lightning.settings import Count

from .rival import Rival, RivalError, quantile_paths

LEVEL = 90  # per cent of the interval from which the normal distribution of a step is taken
PROBABILITIES = np.array([(100 - LEVEL) / 200, (100 + LEVEL) / 200])

log = logging.getLogger(__name__)


class StatsForecast(Rival):
    """Baseline of an automatically chosen classical model of the log close.

    Each step is normal, with the mean of the model's 90 % interval and the deviation that follows from its width. These
    models have a constant volatility. If a fit fails, the cutoff gets a random walk.

    model: AutoARIMA, AutoETS or AutoTheta.
    season_length: candles of a season; 1 = none.
    """

    model: Literal["AutoARIMA", "AutoETS", "AutoTheta"]
    season_length: Count = 1

    @property
    def name(self) -> str:
        """Name of the model in lower case, such as autoarima."""
        return self.model.lower()

    def log_returns(
        self, series: list[np.ndarray], generators: list[np.random.Generator], shape: tuple[int, int]
    ) -> np.ndarray:
        """Forecast log returns ``(N, S, h)`` from the model's normal intervals."""
        model = build_model(self.model, self.season_length)
        drawn = [
            quantile_paths(self._interval(model, one, shape[1]), PROBABILITIES, rng.normal(size=shape))
            for one, rng in zip(series, generators, strict=True)
        ]
        return np.stack(drawn)

    def _interval(self, model: Any, series: np.ndarray, horizon: int) -> np.ndarray:
        """Return both ends of the interval of each step ``(2, h)``."""
        try:
            found = model.forecast(y=series, h=horizon, level=[LEVEL])
            ends = np.stack([found[f"lo-{LEVEL}"], found[f"hi-{LEVEL}"]]).astype(np.float64)
        except Exception as error:  # of the library's optimisers, which raise all sorts
            log.debug("%s: no fit (%s)", self.name, error)
            ends = np.full((2, horizon), np.nan)
        if np.isfinite(ends).all():
            return ends
        log.warning("%s: a fit failed; the cutoff gets a random walk", self.name)
        spread = np.diff(series).std() * np.sqrt(np.arange(1, horizon + 1))
        walk: np.ndarray = norm.ppf(PROBABILITIES)[:, None] * spread
        return walk


def build_model(name: str, season_length: int) -> Any:
    """Build a model of statsforecast.

    Raises:
        RivalError: statsforecast is not installed.
    """
    try:
        from statsforecast import models
    except ImportError as error:
        raise RivalError(f"{name} needs statsforecast: pip install 'kronos-lightning[statsforecast]'") from error
    return getattr(models, name)(season_length=season_length)
