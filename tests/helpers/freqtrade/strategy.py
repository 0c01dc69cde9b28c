"""The strategy file without freqtrade: what it takes from it is small, and stands here instead."""

import importlib.util
import sys
from types import ModuleType, SimpleNamespace
from unittest import mock

from kronos_lightning.settings import parse_interval

from .bot import BRIDGE


def load():
    """Load the strategy file with stand-ins for freqtrade's names."""
    names = ("freqtrade", "freqtrade.exceptions", "freqtrade.exchange", "freqtrade.strategy")
    stands = {name: ModuleType(name) for name in names}
    stands["freqtrade.exceptions"].OperationalException = type("OperationalException", (Exception,), {})
    stands["freqtrade.exchange"].timeframe_to_seconds = lambda name: int(parse_interval(name).total_seconds())
    stands["freqtrade.strategy"].IStrategy = type("IStrategy", (), {})
    spec = importlib.util.spec_from_file_location("KronosStrategy", BRIDGE / "KronosStrategy.py")
    module = importlib.util.module_from_spec(spec)
    with mock.patch.dict(sys.modules, stands):
        spec.loader.exec_module(module)
    return module


def configured(module, config, mode):
    """A strategy that freqtrade has set up from a configuration."""
    found = module.KronosStrategy()
    found.config = config | {"runmode": SimpleNamespace(value=mode)}
    found.timeframe, found.stoploss = config["timeframe"], config["stoploss"]
    found.minimal_roi = {int(key): value for key, value in config["minimal_roi"].items()}
    found.trailing_stop = found.position_adjustment_enable = False
    return found
