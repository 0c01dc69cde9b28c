"""Renamed configuration keys: an old name stops the command with an error that gives the new name."""

from typing import Any

DATA = {
    "data.sessions": "data.calendar=sessions (or 24x7)",
    "data.sample": "data.synthetic",
    "data.binance.parallel": "data.binance.parallel_requests",
    "data.binance.longest_wait": "data.binance.longest_wait_seconds",
    "forecast.trained_positions": "forecast.rotary_fine_token",
}
DOWNLOAD = {"parallel": "parallel_requests", "longest_wait": "longest_wait_seconds"}
RENAMED = {  # by command
    "train": DATA
    | {
        "stage.tokenizer": "stage.frozen_tokenizer",
        "regularization.loss_on": "regularization.loss_rows",
        "regularization=none": "regularization=default",
        "sweep=none": "sweep=grid",
        "trainer=ddp_sim": "trainer=ddp_cpu",
    },
    "evaluate": DATA
    | {
        "trainer=ddp_sim": "trainer=ddp_cpu",
        "backtest.signal": "strategy.signal",
        "backtest.buy_threshold": "strategy.buy_threshold",
        "backtest.sell_threshold": "strategy.sell_threshold",
        "backtest.sweep_thresholds": "strategy.search_thresholds",
        "backtest.thresholds": "backtest.parameters",
        "backtest.sweep_costs": "backtest.search_costs",
        "backtest.rebalance": "backtest.act_every_n_cutoffs",
        "backtest.finer_csv": "backtest.intrabar_csv",
    },
    "forecast": {
        "forecast.trained_positions": "forecast.rotary_fine_token",
        "sessions": "calendar=sessions (or 24x7)",
    },
    "download": DOWNLOAD,
    "doctor": {"sessions": "calendar=sessions (or 24x7)"},
    "export": {},
    "serve": {},
    "live": {old: new for old, new in DATA.items() if old.startswith("data.")},
}
SETTINGS = {"tokenizer": "frozen_tokenizer", "loss_on": "loss_rows"}  # in run_info.json of earlier versions


def new_name(command: str, override: str) -> str | None:
    """Return the current name of a renamed key or value; None if the override was not renamed.

    Args:
        command: name of the command's configuration, such as train.
        override: such as ``data.sample.candles=600`` or ``regularization=none``.
    """
    key = override.lstrip("+~").partition("=")[0]
    renamed = RENAMED[command]
    for old in (override, key):
        if old in renamed:
            return renamed[old]
    section = next((old for old in renamed if key.startswith(f"{old}.")), None)
    return None if section is None else renamed[section] + key.removeprefix(section)


def migrate_settings(settings: dict[str, Any]) -> dict[str, Any]:
    """Translate the settings of a run, as stored in `run_info.json`, to the current key names."""
    return {SETTINGS.get(key, key): value for key, value in settings.items()}
