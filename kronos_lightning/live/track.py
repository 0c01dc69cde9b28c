"""Track record: how good the recorded forecasts were, from their scores."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
from scipy.stats import norm

from kronos_lightning.evaluation.significance import Bootstrap, compare

from .drift import ALARM, LEVELS, WATCH, apart, e_process
from .record import Account, LiveRecord

State = Literal["warming", "ok", "watch", "drifted"]
WARM = 30  # scored forecasts before a state other than warming
WINDOW = pd.Timedelta(days=90)
BINS = 10
CRPS = {"model": "crps", "last_price_60": "crps_last_price_60", "ewma": "crps_ewma"}
RESAMPLES = 500


@dataclass(frozen=True, kw_only=True)
class TrackRecord:
    """Quality of the forecasts whose whole horizon has come; late ones are only counted.

    n, late: number of forecasts in time, and of late ones.
    crps: mean CRPS of the return, all steps, of the model and of each baseline.
    skill, skill_interval: 1 − CRPS / that of a baseline, with a 95 % block-bootstrap interval, None = too few.
    hit_rate, hit_rate_interval: share of forecasts whose likelier direction was right, with Wilson's 95 % interval for
        as many forecasts as do not overlap.
    coverage: share of closes inside each central interval, all steps, by level.
    pit: share of closes in each tenth of the distribution, all steps.
    reliability: forecast P(up) and share that rose, by bin: (forecast, observed, count).
    evidence: e-process of the coverage; 100 is the alarm.
    """

    n: int
    late: int
    crps: dict[str, float]
    skill: dict[str, float]
    skill_interval: dict[str, tuple[float, float] | None]
    hit_rate: float | None
    hit_rate_interval: tuple[float, float] | None
    coverage: dict[str, float]
    pit: list[float]
    reliability: list[tuple[float, float, int]]
    evidence: float
    state: State


def track_record(
    record: LiveRecord, account: Account, model: str, horizon: int, window: pd.Timedelta = WINDOW
) -> TrackRecord:
    """Summarise the scores of a model's forecasts in a window before the newest close.

    Args:
        record, account: whose forecasts.
        model: id of the model.
        horizon: of its forecasts.
        window: length of the window; the evidence of drift counts from the model's first forecast.
    """
    newest = record.newest(account)
    since = None if newest is None else newest.cutoff - window
    scores = record.scores(account, since)
    scores = scores[scores["model"] == model]
    whole = scores.groupby("forecast")["step"].transform("size") == horizon
    scores = scores[whole]
    timely = scores[~scores["late"]]
    n = len(timely) // horizon
    found = evidence(record, account, model, horizon)
    means = timely.groupby("cutoff")[list(CRPS.values())].mean()
    skill, intervals = {}, {}
    for name in ("last_price_60", "ewma") if n else ():
        bootstrap = Bootstrap(overlap=horizon, samples=RESAMPLES, seed=0)
        compared = compare(means["crps"].to_numpy(), means[CRPS[name]].to_numpy(), name, bootstrap)
        skill[name] = compared.skill
        intervals[name] = (compared.lower, compared.upper) if compared.is_tested else None
    last = timely[timely["step"] == horizon]
    hit_rate, hit_interval = _hits(last, horizon)
    centre = np.abs(2 * timely["pit"].to_numpy() - 1)
    tenths = np.histogram(timely["pit"], bins=BINS, range=(0, 1))[0]
    worse = any(one is not None and one[1] < 0 for one in intervals.values())
    return TrackRecord(
        n=n,
        late=(len(scores) - len(timely)) // horizon,
        crps={name: float(means[column].mean()) for name, column in CRPS.items()} if n else {},
        skill=skill,
        skill_interval=intervals,
        hit_rate=hit_rate,
        hit_rate_interval=hit_interval,
        coverage={f"{level:g}": float((centre <= level).mean()) for level in LEVELS} if n else {},
        pit=(tenths / max(1, tenths.sum())).tolist(),
        reliability=_reliability(last) if n else [],
        evidence=found,
        state=_state(n, found, worse),
    )  # fmt: skip


def evidence(record: LiveRecord, account: Account, model: str, horizon: int) -> float:
    """Return the highest value so far of the e-process over a model's forecasts in time that do not overlap."""
    places = record.places(account, model, horizon)
    if places.empty:
        return 1.0
    chosen = places.iloc[apart(places["cutoff"], horizon * account.step)]
    return float(e_process(chosen["pit"].to_numpy()).max())


def _state(n: int, found: float, worse: bool) -> State:
    if found >= ALARM:
        return "drifted"
    if n < WARM:
        return "warming"
    return "watch" if found >= WATCH or worse else "ok"


def _hits(last: pd.DataFrame, horizon: int) -> tuple[float | None, tuple[float, float] | None]:
    """Return the share of right trends and its interval, from the scores of the last step."""
    clear = last[last["up"] != 0.5]
    if clear.empty:
        return None, None
    right = (clear["up"] > 0.5) == clear["rose"]
    return float(right.mean()), wilson(float(right.mean()), max(1.0, len(right) / horizon))


def wilson(share: float, n: float) -> tuple[float, float]:
    """Return Wilson's 95 % interval of a share of n independent trials; n need not be whole."""
    z = norm.ppf(0.975)
    middle, half = share + z**2 / (2 * n), z * np.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    return float((middle - half) / (1 + z**2 / n)), float((middle + half) / (1 + z**2 / n))


def _reliability(last: pd.DataFrame) -> list[tuple[float, float, int]]:
    up, rose = last["up"].to_numpy(), last["rose"].to_numpy()
    place = np.minimum((up * BINS).astype(int), BINS - 1)
    parts = [np.flatnonzero(place == i) for i in np.unique(place)]
    return [(float(up[part].mean()), float(rose[part].mean()), len(part)) for part in parts]
