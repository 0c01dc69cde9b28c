"""Forecasts of the last evaluation, read from the folder of its report, and the candles of a file."""

from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

import numpy as np
import pandas as pd

from kronos_lightning.data import Candles, read_candles
from kronos_lightning.data.candles import validate
from kronos_lightning.data.formats import FEATURES, PRICES
from kronos_lightning.errors import KronosError
from kronos_lightning.forecast import ForecastSet
from kronos_lightning.pipeline.decision_settings import DecisionSettings
from kronos_lightning.pipeline.loaded_model import LoadedModel
from kronos_lightning.pipeline.signals import decisions

from .access import ServeError
from .answers import decided
from .messages import CutoffSummary, EvaluationAnswer, KnownCandle, PastForecast

SHOWN_BEFORE = 120  # maximum number of known candles before a cutoff
KEPT = 20_000  # maximum number of candles of a file that are kept


@dataclass(frozen=True, kw_only=True, eq=False)
class StoredForecasts:
    """Forecast set of an evaluation with its decisions, and the candles that it knows."""

    settings: DecisionSettings
    forecasts: ForecastSet
    known: pd.DataFrame  # open, high, low and close, by the open time; from the realised candles of all cutoffs

    @classmethod
    def load(cls, directory: Path) -> "StoredForecasts":
        """Read the folder of a report.

        Raises:
            ServeError: the folder has no forecasts or no `decision.json`.
        """
        try:
            forecasts = ForecastSet.load(directory)
        except (OSError, KeyError, ValueError) as error:
            raise ServeError(f"report={directory}: no forecasts of an evaluation there ({error})") from error
        came = forecasts.actual[..., : len(PRICES)].reshape(-1, len(PRICES))
        known = pd.DataFrame(came, columns=list(PRICES), index=pd.DatetimeIndex(forecasts.stamps.ravel()))
        settings = DecisionSettings.of(directory)
        return cls(settings=settings, forecasts=forecasts, known=known[~known.index.duplicated()].sort_index())

    def __len__(self) -> int:
        return len(self.forecasts)

    def candles(self) -> Candles:
        """Return the newest of the realised candles, up to the last gap."""
        part = self.forecasts
        came = pd.DataFrame(part.actual.reshape(-1, len(FEATURES)), columns=list(FEATURES))
        came.insert(0, "timestamps", pd.DatetimeIndex(part.stamps.ravel(), tz="UTC"))
        frame = came.drop_duplicates("timestamps").sort_values("timestamps").reset_index(drop=True)
        candles = validate(frame, "report", self.settings.interval, self.settings.symbol, sessions=False)
        return replace(_newest(candles), synthetic=self.settings.evaluation.synthetic)

    def summary(self, model: LoadedModel) -> EvaluationAnswer:
        """List all forecasts; the strategy is that of the evaluation."""
        forecasts = self.forecasts
        came = forecasts.actual_close[:, -1] / forecasts.last_close - 1
        found = decisions(forecasts, self.settings.build_strategy())
        return EvaluationAnswer(
            symbol=self.settings.symbol,
            interval=self.settings.interval,
            matches_model=self.settings.weights == model.decision.weights,
            forecasts=[
                CutoffSummary(
                    id=i,
                    cutoff=one.cutoff,
                    signal=one.signal,
                    expected_return=one.expected_return,
                    actual_return=float(came[i]),
                )
                for i, one in enumerate(found)
            ],
        )

    def one(self, number: int) -> PastForecast:
        """Return a forecast with what came."""
        chosen = slice(number, number + 1)
        part = self.forecasts
        single = ForecastSet(
            cutoffs=part.cutoffs[chosen],
            stamps=part.stamps[chosen],
            last_close=part.last_close[chosen],
            paths=part.paths[chosen],
            actual=part.actual[chosen],
            up=None if part.up is None else part.up[chosen],
            calibration=part.calibration,
        )
        (decision,) = decisions(single, self.settings.build_strategy())
        before = self.known[self.known.index <= part.cutoffs[number]].tail(SHOWN_BEFORE)
        came = pd.DataFrame(
            part.actual[number][:, : len(PRICES)], columns=list(PRICES), index=pd.DatetimeIndex(part.stamps[number])
        )
        return PastForecast(
            id=number,
            **decided(decision),
            known=shown(before),
            actual=shown(came),
        )


def shown(frame: pd.DataFrame) -> list[KnownCandle]:
    """Return the rows of a frame, whose index is the open time in UTC, as candles."""
    stamps: list[datetime] = list(pd.DatetimeIndex(frame.index).tz_localize("UTC").to_pydatetime())
    prices: list[np.ndarray] = [frame[name].to_numpy() for name in PRICES]
    return [
        KnownCandle(timestamp=stamp, open=open_, high=high, low=low, close=close)
        for stamp, open_, high, low, close in zip(stamps, *(part.tolist() for part in prices), strict=True)
    ]


def read_file(path: Path, decision: DecisionSettings) -> Candles:
    """Read the candles that the service shows and forecasts when a request has none.

    Raises:
        ServeError: the file is unusable for this model.
    """
    try:
        candles = read_candles(path, decision.interval, decision.symbol)
    except (KronosError, OSError) as error:
        raise ServeError(f"candles={path}: {error}") from error
    return _newest(replace(candles, symbol=decision.symbol))


def _newest(candles: Candles) -> Candles:
    """Return the candles after the last gap, at most `KEPT`."""
    frame = candles.frame[candles.frame["segment"] == candles.frame["segment"].iloc[-1]]
    return replace(candles, frame=frame.tail(KEPT).reset_index(drop=True))
