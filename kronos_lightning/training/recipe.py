"""Everything that decides how a network is fine-tuned, but the network and the data."""

from dataclasses import dataclass, replace
from typing import Self

from kronos_lightning.config.sections import PredictorStage, RegularizationSection, TokenizerStage

from .regularisers import Regulariser


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Settings of a training.

    stage: optimiser, schedule and what belongs to the stage alone.
    regularization: means against overfitting.
    lookback, horizon: rows of a window before its targets, and of these.
    market_volatility: deviation of a candle's log return of late, where ``regularization.volatility`` is "market".
    regularisers: further ones, from outside of this package.
    """

    stage: TokenizerStage | PredictorStage
    regularization: RegularizationSection
    lookback: int
    horizon: int
    market_volatility: float | None = None
    regularisers: tuple[Regulariser, ...] = ()

    def with_rate(self, learning_rate: float) -> Self:
        """The same with another peak of the learning rate."""
        return replace(self, stage=self.stage.model_copy(update={"learning_rate": learning_rate}))
