"""Keys of the configuration that were renamed: an old name stops with an error that names the new one."""

RENAMED = {
    "backtest.signal": "strategy.signal",
    "backtest.buy_threshold": "strategy.buy_threshold",
    "backtest.sell_threshold": "strategy.sell_threshold",
    "backtest.sweep_thresholds": "strategy.search_thresholds",
    "backtest.thresholds": "backtest.parameters",
    "backtest.sweep_costs": "backtest.search_costs",
}


def new_name(key: str) -> str | None:
    """Present name of a key that was renamed; None for any other."""
    return RENAMED.get(key)
