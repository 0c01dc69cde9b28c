"""Answers from decisions. Shape letters: S sample paths, h horizon, C features."""

from dataclasses import asdict
from datetime import datetime
from typing import Any

import numpy as np
import pandas as pd

from kronos_lightning.data.formats import CLOSE
from kronos_lightning.forecast import expected_volatility, probability_touch, quantiles, validity
from kronos_lightning.live.track import TrackRecord
from kronos_lightning.pipeline.loaded_model import LoadedModel, ModelRecord
from kronos_lightning.pipeline.signals import Decision
from kronos_lightning.settings import interval_name

from .incoming import Origin
from .messages import CalibrationAnswer, LiveAnswer, ModelAnswer, ModelName, Prediction, Thresholds, Touched

LEVELS = (0.025, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.975)
USUAL_TOUCH = 0.02


def prediction(
    decision: Decision,
    origin: Origin,
    model: ModelRecord,
    now: datetime,
    track: TrackRecord | None,
    record_id: int | None,
) -> Prediction:
    """Build the answer to a request.

    Args:
        decision: the decision.
        origin: where its candles come from.
        model: the model that decided.
        now: the current time.
        track: track record of this model on this market; None = not followed.
        record_id: number in the live record; None = not recorded.
    """
    settings = model.decision
    reason, drifted = origin.reason, track is not None and track.state == "drifted"
    if decision.up is not None and len(decision.stamps) > decision.calibrated_steps:
        reason = f"confidence is null: it was fitted on {decision.calibrated_steps} steps"
    if drifted:
        reason = "confidence is null: the drift alarm is on, recent forecasts were not as certain as they said"
    paths, last = decision.paths[None], np.array([decision.last_close])
    volatility = float(expected_volatility(paths, last)[0])
    about = model.calibration.metadata if model.calibration is not None else {}
    notices = [*_model_notices(model), *origin.notices]
    notices += ["DRIFT: recent forecasts of this model were not as certain as they said."] * drifted
    age = pd.Timestamp(now) - decision.cutoff - origin.interval
    return Prediction(
        predicted_price=decision.predicted_price,
        confidence=None if drifted else decision.confidence,
        trend=decision.trend,
        timestamp=now,
        signal=decision.signal,
        expected_return=decision.expected_return,
        at_threshold=decision.at_threshold,
        thresholds=Thresholds(statistic=decision.statistic, compared=decision.compared, values=decision.thresholds),
        symbol=origin.symbol,
        interval=interval_name(origin.interval),
        cutoff=decision.cutoff,
        cutoff_close=decision.cutoff + origin.interval,
        target=decision.stamps[-1] + origin.interval,
        last_close=decision.last_close,
        horizon=len(decision.stamps),
        num_paths=len(decision.paths),
        seed=settings.seed,
        probability_up=decision.share_up,
        probability_up_calibrated=decision.up,
        quantiles=close_quantiles(decision.paths),
        touch=_touch(decision, model),
        volatility=volatility if np.isfinite(volatility) else None,
        validity=asdict(validity(paths)),
        calibrated=decision.up is not None,
        calibration=CalibrationAnswer(
            fitted_from=about.get("fitted_from"),
            fitted_to=about.get("fitted_to"),
            cutoffs=about.get("cutoffs"),
            reason_if_not=reason,
        ),
        live=None if track is None else _live(track),
        model=model_name(model),
        amount="made" if origin.amount_made else "given",
        candles_sha256=origin.sha256,
        comparable=not origin.overrides and (not origin.amount_made or not settings.volume),
        overrides=origin.overrides,
        record_id=record_id,
        age_s=age.total_seconds(),
        notices=notices,
    )


def decided(decision: Decision) -> dict[str, Any]:
    """Return the fields of a decision that every shown forecast of the past has."""
    return {
        "cutoff": decision.cutoff,
        "last_close": decision.last_close,
        "stamps": [one.to_pydatetime() for one in decision.stamps],
        "signal": decision.signal,
        "trend": decision.trend,
        "predicted_price": decision.predicted_price,
        "expected_return": decision.expected_return,
        "probability_up": decision.probability,
        "confidence": decision.confidence,
        "quantiles": close_quantiles(decision.paths),
    }


def close_quantiles(paths: np.ndarray) -> dict[str, list[float]]:
    """Return the quantiles of the close of paths ``(S, h, C)``, by level: h prices each."""
    found = quantiles(paths[None], LEVELS)[0, :, CLOSE]
    return {f"{level:g}": found[:, q].tolist() for q, level in enumerate(LEVELS)}


def model_name(model: ModelRecord) -> ModelName:
    """Return the identity of a model."""
    evaluation = model.decision.evaluation
    return ModelName(
        id=model.id,
        name=model.decision.model,
        random_weights=evaluation.random_weights,
        synthetic=evaluation.synthetic,
        verdict=evaluation.verdict[0] if evaluation.verdict else "",
    )


def model_answer(model: LoadedModel, candles: bool, past_forecasts: bool, live: str | None) -> ModelAnswer:
    """Describe the served model and what the service shows."""
    until, calibration = model.trained_until, model.calibration
    about: dict[str, Any] | None = None
    if calibration is not None:
        about = calibration.as_dict() | {"steps": len(calibration.widening)}
    return ModelAnswer(
        id=model.id,
        loaded_at=model.loaded_at,
        trained_until=None if until is None else until.to_pydatetime(warn=False),
        decision=model.decision.model_dump(mode="json"),
        calibration=about,
        strategy=model.strategy.describe(),
        candles=candles,
        past_forecasts=past_forecasts,
        live=live,
    )


def _live(track: TrackRecord) -> LiveAnswer:
    skill = track.skill.get("last_price_60", np.nan)
    return LiveAnswer(
        n=track.n,
        hit_rate=track.hit_rate,
        hit_rate_interval=track.hit_rate_interval,
        coverage_90=track.coverage.get("0.9"),
        skill=float(skill) if np.isfinite(skill) else None,
        state=track.state,
    )


def _touch(decision: Decision, model: ModelRecord) -> Touched:
    rules, last = model.decision.execution, decision.last_close
    down, up = rules.stop_loss or USUAL_TOUCH, rules.take_profit or USUAL_TOUCH
    found = probability_touch(decision.paths[None], np.array([last]), down, up)
    return Touched(
        down_level=last * (1 - down),
        up_level=last * (1 + up),
        down=float(found.down[0]),
        up=float(found.up[0]),
        neither=float(found.neither[0]),
    )


def _model_notices(model: ModelRecord) -> list[str]:
    found, evaluation = [], model.decision.evaluation
    if evaluation.random_weights:
        found.append("RANDOM WEIGHTS: the model is untrained, so this forecast is meaningless.")
    if evaluation.synthetic:
        found.append("SYNTHETIC: the model was trained or evaluated on made-up candles.")
    return found
