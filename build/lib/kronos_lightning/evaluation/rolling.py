"""Rolling-origin forecasts: at each cutoff the model sees the candles up to it and nothing later."""

import numpy as np
import torch
from rich.progress import track

from kronos_lightning.data import Candles
from kronos_lightning.data.candles import time_features
from kronos_lightning.data.formats import FEATURES
from kronos_lightning.data.windows import window_starts
from kronos_lightning.forecast import Forecaster, ForecastSet
from kronos_lightning.forecast.forecast_set import CLOSE


def rolling_forecasts(
    candles: Candles,
    target: np.ndarray,
    forecaster: Forecaster,
    lookback: int,
    horizon: int,
    num_paths: int,
    max_cutoffs: int | None,
    batch_size: int,
    device: torch.device,
    seed: int,
) -> ForecastSet:
    """Forecast from regular cutoffs over the candles that `target` allows.

    Args:
        candles: all candles; those before the target range are context.
        target: bool ``(len(candles),)``, which candles may be forecast.
        forecaster: what is measured; moved to `device`.
        lookback, horizon: candles seen and forecast.
        num_paths: sample paths a cutoff.
        max_cutoffs: at most this many, at equal distance; None = every one there is.
        batch_size: cutoffs forecast at once.
        device: where to compute.
        seed: of the paths.

    Cutoffs with a gap inside their window are left out.
    """
    frame = candles.frame
    starts = window_starts(frame["segment"].to_numpy(), target, lookback, horizon)
    starts = starts[:: max(1, -(-len(starts) // max_cutoffs))] if max_cutoffs else starts
    values = torch.from_numpy(frame[FEATURES].to_numpy(np.float32, copy=True))
    stamps = torch.from_numpy(time_features(frame["timestamps"]))
    rows = torch.from_numpy(starts)[:, None] + torch.arange(lookback + horizon)
    generator = torch.Generator(device).manual_seed(seed)
    forecaster.tokenizer.to(device)
    forecaster.predictor.to(device)

    paths = []
    for batch in track(rows.split(batch_size), description="Forecasting"):
        past, future = batch[:, :lookback], batch[:, lookback:]
        context, past_stamp, future_stamp = (part.to(device) for part in (values[past], stamps[past], stamps[future]))
        paths.append(forecaster.sample_paths(context, past_stamp, future_stamp, num_paths, generator).cpu())

    times = frame["timestamps"].dt.tz_localize(None).to_numpy()
    exact = frame[FEATURES].to_numpy()
    cutoff, future = starts + lookback - 1, rows[:, lookback:].numpy()
    return ForecastSet(times[cutoff], times[future], exact[cutoff, CLOSE], torch.cat(paths).numpy(), exact[future])
