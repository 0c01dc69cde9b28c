"""Export of a record in the form of an evaluation: `forecasts.parquet`, `paths.npy`, `decision.json`.

Shape letters: N cutoffs, S sample paths, h horizon, C features.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from kronos_lightning.data.formats import FEATURES
from kronos_lightning.forecast import ForecastSet, probability_up
from kronos_lightning.pipeline.decision_settings import digest
from kronos_lightning.pipeline.loaded_model import ModelRecord

from .closes import RecordedClose
from .database import RecordError
from .models import recorded_model
from .record import Account, LiveRecord


def export_forecasts(record: LiveRecord, account: Account, directory: Path) -> int:
    """Write the forecasts of the newest model whose whole horizon has come; return their number.

    Late ones are left out.

    Args:
        record, account: whose forecasts.
        directory: folder to write into; it is made if it is missing.

    Raises:
        RecordError: there is none.
    """
    newest = record.newest(account)
    model = None if newest is None else recorded_model(record, newest.model)
    if newest is None or model is None:
        raise RecordError(
            f"{record.path}: no decision on {account.symbol} {account.interval} in account {account.name}"
        )
    forecasts = _whole(record, account, model, newest.cutoff)
    if forecasts is None:
        raise RecordError(
            f"{record.path}: no forecast of {account.symbol} whose {model.decision.horizon} candles have come yet"
        )
    directory.mkdir(parents=True, exist_ok=True)
    forecasts.save(directory)
    evaluation = model.decision.evaluation.model_copy(
        update={"first": str(forecasts.cutoffs[0]), "last": str(forecasts.stamps[-1, -1]), "cutoffs": len(forecasts)}
    )
    model.decision.model_copy(update={"symbol": account.symbol, "evaluation": evaluation}).save(directory)
    return len(forecasts)


def _whole(record: LiveRecord, account: Account, model: ModelRecord, newest: pd.Timestamp) -> ForecastSet | None:
    candles = record.candles(account).set_index("timestamps")[list(FEATURES)]
    found: list[RecordedClose] = []
    for row in record.signals(account, until=newest - model.decision.horizon * account.step):
        if row.counts and row.model == model.id:
            close = record.read_close(account, row.id)
            if close is not None and close.decision is not None and close.decision.stamps.isin(candles.index).all():
                found.append(close)
    if not found:
        return None
    decided = [close.decision for close in found if close.decision is not None]
    last = np.array([one.last_close for one in decided])
    paths = np.stack([one.paths for one in decided])
    forecasts = ForecastSet(
        cutoffs=_plain(pd.DatetimeIndex([one.cutoff for one in decided])),
        stamps=np.stack([_plain(one.stamps) for one in decided]),
        last_close=last,
        paths=paths,
        actual=np.stack([candles.loc[one.stamps].to_numpy() for one in decided]),
    )
    calibration = model.calibration
    if calibration is None or decided[0].up is None:
        return forecasts
    assert digest(calibration) == model.decision.calibration
    return replace(forecasts, up=calibration.probability_up(probability_up(paths, last)), calibration=calibration)


def _plain(stamps: pd.DatetimeIndex) -> np.ndarray:
    """Return stamps in UTC without their zone, datetime64[ns]."""
    found: np.ndarray = stamps.tz_convert("UTC").tz_localize(None).as_unit("ns").to_numpy()
    return found
