"""Models of a record: the settings and the calibration of each model that decided in it."""

import json

from kronos_lightning.forecast.calibration import Calibration
from kronos_lightning.pipeline.decision_settings import DecisionSettings
from kronos_lightning.pipeline.loaded_model import ModelRecord

from .record import LiveRecord


def remember_model(record: LiveRecord, model: ModelRecord) -> None:
    """Store a model's settings, unless they are there."""
    key = f"model:{model.id}"
    if record.meta(key) is None:
        calibration = None if model.calibration is None else model.calibration.as_dict()
        with record.transaction():
            record.set_meta(key, {"decision": model.decision.model_dump(mode="json"), "calibration": calibration})


def recorded_model(record: LiveRecord, number: str) -> ModelRecord | None:
    """Return a model of the record by its id; None if it has none of this id."""
    content = record.meta(f"model:{number}")
    if content is None:
        return None
    calibration = content["calibration"]
    return ModelRecord(
        id=number,
        decision=DecisionSettings.model_validate_json(json.dumps(content["decision"])),
        calibration=None if calibration is None else Calibration.from_dict(calibration),
    )
