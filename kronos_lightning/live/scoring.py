"""Scores of recorded forecasts against the candles that came, beside two baselines.

Shape letters: N pairs of a forecast and a step, S sample paths.
"""

import numpy as np
import pandas as pd

from kronos_lightning.data import Candles
from kronos_lightning.data.formats import CLOSE
from kronos_lightning.evaluation.baselines import Ewma, LastPrice, generator_at
from kronos_lightning.forecast.distribution import crps

from .closes import RecordedClose
from .record import SCORES, Account, LiveRecord

SEED = 100  # of the baselines' paths and of the PIT
BASELINES = {"crps_last_price_60": LastPrice(seed=SEED, count=60), "crps_ewma": Ewma(seed=SEED)}


def due_scores(record: LiveRecord, account: Account, known: pd.DataFrame, horizon: int) -> pd.DataFrame:
    """Score the steps whose candles have come since; what was scored before is left out.

    Args:
        record: record with the forecasts.
        account: whose forecasts.
        known: the newest candles, oldest first; forecasts from before them are not scored.
        horizon: longest horizon of a forecast.

    Returns:
        One row per forecast and step, with the columns `SCORES`.
    """
    newest = known["timestamps"].iloc[-1]
    since = max(newest - horizon * account.step, known["timestamps"].iloc[0])
    forecasts = record.forecasts(account, since, newest - account.step)
    scored = record.scores(account, since)
    done = set(zip(scored["forecast"], scored["step"], strict=True))
    closes = known.set_index("timestamps")["close"]
    pairs: list[tuple[RecordedClose, int]] = []
    for one in forecasts:
        assert one.decision is not None
        came = one.decision.stamps.isin(closes.index)
        pairs += [(one, int(step)) for step in np.flatnonzero(came) + 1 if (one.id, int(step)) not in done]
    if not pairs:
        return pd.DataFrame(columns=list(SCORES))
    return _scored(pairs, closes, _candles(known, account))


def _scored(pairs: list[tuple[RecordedClose, int]], closes: pd.Series, candles: Candles) -> pd.DataFrame:
    columns: dict[str, list[float]] = {name: [] for name in SCORES}
    drawn = {name: _baseline_paths(name, [one for one, _ in pairs], candles) for name in BASELINES}
    for one, step in pairs:
        decision = one.decision
        assert decision is not None
        last, close = decision.last_close, float(closes[decision.stamps[step - 1]])
        returns = decision.paths[:, step - 1, CLOSE].astype(np.float64) / last - 1
        actual = close / last - 1
        spread = generator_at(SEED, "pit", one.cutoff.value).random(step)[-1]
        is_last = step == len(decision.stamps)
        row: dict[str, float] = {
            "forecast": one.id,
            "step": step,
            "close": close,
            "crps": _crps(returns, actual),
            **{name: _crps(drawn[name][one.id][:, step - 1] / last - 1, actual) for name in BASELINES},
            "pit": _place(returns, actual, spread),
            "up": decision.probability if is_last else float((returns > 0).mean()),
            "rose": int(actual > 0),
        }
        for name, value in row.items():
            columns[name].append(value)
    return pd.DataFrame(columns)


def _baseline_paths(name: str, forecasts: list[RecordedClose], candles: Candles) -> dict[int, np.ndarray]:
    """Return as many paths ``(S, h)`` of a baseline as each forecast has, by the number of the forecast."""
    found: dict[int, np.ndarray] = {}
    groups: dict[tuple[int, int], dict[int, np.datetime64]] = {}
    for one in forecasts:
        assert one.decision is not None
        shape = one.decision.paths.shape
        groups.setdefault((shape[1], shape[0]), {})[one.id] = one.cutoff.tz_localize(None).to_datetime64()
    for (horizon, count), cutoffs in groups.items():
        rows = candles.rows_at(np.array(list(cutoffs.values())))
        found |= dict(zip(cutoffs, BASELINES[name].sample_paths(candles, rows, horizon, count), strict=True))
    return found


def _crps(returns: np.ndarray, actual: float) -> float:
    return float(crps(returns[None], np.array([actual]))[0])


def _place(returns: np.ndarray, actual: float, spread: float) -> float:
    """Return the place of a value among the paths in (0, 1), random within ties and gaps (PIT).

    It is uniform for paths of the true distribution, whatever their number.
    """
    below, ties = (returns < actual).sum(), (returns == actual).sum()
    return float((below + spread * (ties + 1)) / (len(returns) + 1))


def _candles(known: pd.DataFrame, account: Account) -> Candles:
    segment = (known["timestamps"].diff() > account.step).cumsum().to_numpy()
    return Candles(
        frame=known.reset_index(drop=True).assign(segment=segment),
        symbol=account.symbol,
        interval=account.step,
        source=f"record of {account.symbol}",
    )
