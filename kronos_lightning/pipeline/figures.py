"""Everything that an evaluation computed, as figures with the time at which they are known.

A figure of the evaluation's own is found by its shape, not by its name: arrays with a row per cutoff are known at their
cutoffs, and everything else must have been settled before the first of them.

Shape letter: N cutoffs.
"""

from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np
import pandas as pd
from hydra.utils import get_class

from kronos_lightning.backtest import Backtest, ThresholdStrategy
from kronos_lightning.evaluation.leakcheck.figures import Figure, Figures
from kronos_lightning.forecast import ForecastSet
from kronos_lightning.runs.checkpoint_lookup import Sources

from .backtesting import Trading, trade
from .scoreboard import EvaluationResult

ANY_MOVE = {"buy_threshold": 0.0, "sell_threshold": 0.0, "search_thresholds": [0.0]}  # every move signals
EVERY = "every forecast traded: "
LONGEST = 64  # characters of a settled value


def figures(result: EvaluationResult) -> Figures:
    """Collect the figures of an evaluation, and those of a second backtest that trades every forecast."""
    whole, cutoffs, ends = result.whole, result.forecasts.cutoffs, result.forecasts.stamps[:, -1]
    competitors = result.competitors
    found = dict(_walk("baseline", competitors.baselines, cutoffs))
    found |= _walk("combination", competitors.combination, cutoffs)
    if competitors.weights:
        found["weights of the combination"] = _settled(competitors.weights, cutoffs)
    for part in fields(whole):
        found |= _walk(part.name, getattr(whole, part.name), cutoffs)
    for name, scores in result.board.scores.items():
        values = {part: getattr(scores, part) for part in vars(scores) if part != "truth"}
        found |= {f"scores/{name}: {part}": Figure(known=ends, values=array) for part, array in values.items()}
    if result.trading.search is not None:
        chosen = result.trading.strategy.parameters, result.board.verdict.other
        found["choices on validation"] = _settled([result.trading.search, *chosen], cutoffs)
    for label, trading in (("", result.trading), (EVERY, _trade_all(result))):
        found |= _trading(label, trading, result.forecasts)
    return found


def _walk(name: str, value: Any, cutoffs: np.ndarray) -> Iterator[tuple[str, Figure]]:
    """Yield the figures inside a value; arrays of forecasts are known at their cutoffs."""
    if value is None or isinstance(value, Sources):  # records of the networks are checked on their own
        return
    if isinstance(value, ForecastSet):
        same = np.array_equal(value.cutoffs, cutoffs)
        known = value.cutoffs if same else np.repeat(cutoffs[:1], len(value))  # such as validation: before the test
        for part in ("paths", "last_close", "probability_up", "deviations"):
            if (values := getattr(value, part)) is not None:
                yield f"{name}/{part}", Figure(known=known, values=values)
        if value.calibration is not None:
            yield f"{name}: calibration", _settled(value.calibration, cutoffs)
    elif isinstance(value, np.ndarray) and value.shape[:1] == cutoffs.shape:
        yield name, Figure(known=cutoffs, values=value)
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from _walk(f"{name} {_plain(str(key))}", item, cutoffs)
    else:
        yield name, _settled(value, cutoffs)


def _plain(name: str) -> str:
    """Return the name of a forecaster, which may be a path, without the mark between a subject and its parts."""
    return name.replace("/", ":")


def _settled(value: Any, cutoffs: np.ndarray) -> Figure:
    """Return a value of any structure as one row that was known before the first cutoff."""
    leaves = [str(leaf)[:LONGEST] for leaf in _leaves(value)]
    return Figure(known=cutoffs[:1], values=np.array([leaves], dtype=f"U{LONGEST}"))


def _leaves(value: Any) -> Iterator[Any]:
    if isinstance(value, pd.DataFrame):
        value = value.to_dict("list")
    if isinstance(value, np.ndarray):
        value = value.tolist()
    if is_dataclass(value):
        value = vars(value)
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield key
            yield from _leaves(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _leaves(item)
    else:
        yield repr(value)


def _trading(label: str, trading: Trading, forecasts: ForecastSet) -> Iterator[tuple[str, Figure]]:
    """Yield signals at their cutoffs, the curves and closed trades of a backtest, and its entries at their opens."""
    run, strategy = trading.run, trading.strategy
    yield f"signals/{label}signal", Figure(known=forecasts.cutoffs, values=strategy.signals(forecasts))
    if isinstance(strategy, ThresholdStrategy):  # its expected return shows more than its signals
        expected = strategy.expected_return(forecasts)
        yield f"signals/{label}expected return", Figure(known=forecasts.cutoffs, values=expected)
    stamps = run.stamps.tz_localize(None).to_numpy().astype("datetime64[ns]")
    for curve in ("equity", "position", "halted"):
        yield f"backtest/{label}{curve}", Figure(known=stamps, values=getattr(run, curve))
    yield from _trades(label, run, stamps)


def _trades(label: str, run: Backtest, stamps: np.ndarray) -> Iterator[tuple[str, Figure]]:
    trades = run.trades
    for column in trades.dtype.names or ():
        yield f"backtest/{label}{column}", Figure(known=stamps[trades["exit"]], values=trades[column])
    for column in ("direction", "entry_price", "quantity"):
        values, name = trades[column], column.replace("_", " ")
        yield f"fills/{label}{name}", Figure(known=stamps[trades["entry"]], values=values, at_open=True)


def _trade_all(result: EvaluationResult) -> Trading:
    """Backtest the same forecasts with a strategy whose every signal is an order, so that there are fills to check."""
    settings = result.settings
    node = settings.strategy
    if not issubclass(get_class(node["_target_"]), ThresholdStrategy):
        node = {"_target_": f"{ThresholdStrategy.__module__}.ThresholdStrategy", "signal": "median"}
    changes = {"parameters": "configured", "side": "long_short", "act_every_n_cutoffs": 1, "random_runs": 1}
    every = {"strategy": node | ANY_MOVE, "backtest": settings.backtest.model_copy(update=changes)}
    return trade(settings.model_copy(update=every), result.candles, result.forecasts)
