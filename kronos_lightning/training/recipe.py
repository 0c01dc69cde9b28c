"""Settings that decide how a network is fine-tuned, apart from the network and the data."""

from dataclasses import dataclass, replace
from typing import Self

from kronos_lightning.config.sections import PredictorStage, RegularizationSection, TokenizerStage
from kronos_lightning.data.representation import AnyRepresentation

from .regularisers import Regulariser


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Settings of a training.

    stage: optimiser, schedule and the stage's own settings.
    regularization: regularisation settings.
    lookback, horizon: rows of a window before its targets, and number of target rows.
    clip, representation: of the normalised candles.
    market_volatility: recent standard deviation of a candle's log return, if ``regularization.volatility`` is "market".
    regularisers: additional regularisers from outside this package.
    """

    stage: TokenizerStage | PredictorStage
    regularization: RegularizationSection
    lookback: int
    horizon: int
    clip: float
    representation: AnyRepresentation
    market_volatility: float | None = None
    regularisers: tuple[Regulariser, ...] = ()

    def with_rate(self, learning_rate: float) -> Self:
        """Return a copy with another peak learning rate."""
        return replace(self, stage=self.stage.model_copy(update={"learning_rate": learning_rate}))
