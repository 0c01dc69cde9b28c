"""Command that decides after each close and keeps a record of it.

python -m kronos_lightning.live data=btc_1h checkpoint=outputs/models/finetune_predictor_btc_1h
"""

import logging
import signal
from pathlib import Path
from types import FrameType

from hydra.utils import instantiate
from omegaconf import DictConfig

from kronos_lightning.cli.entry import command
from kronos_lightning.config.schema import Following
from kronos_lightning.config.validation import ConfigError, check_following
from kronos_lightning.data.symbol_candles import SymbolCandles
from kronos_lightning.live.export import export_forecasts
from kronos_lightning.live.feeds import ExchangeFeed, Feed
from kronos_lightning.live.operation import LiveOperation, accounts_of, replay_feed
from kronos_lightning.live.record import LiveRecord
from kronos_lightning.pipeline.decision_settings import DecisionSettings
from kronos_lightning.pipeline.loaded_model import load_model
from kronos_lightning.settings import as_list

log = logging.getLogger("live")


@command("live")
def main(cfg: DictConfig) -> None:
    """Follow until SIGTERM or the end of a replay, or export the record."""
    settings = check_following(cfg)
    if settings.export is not None:
        export(settings, Path(settings.export))
    else:
        follow(settings)


def follow(settings: Following) -> None:
    """Load the checkpoint and follow the markets of the data group."""
    model = load_model(Path(str(settings.checkpoint)), settings.device, settings.trusted_strategy)
    symbols = as_list(settings.data.symbol)
    if model.decision.interval != settings.data.interval:
        raise ConfigError(
            f"data.interval={settings.data.interval}: the checkpoint decides on candles of {model.decision.interval}; "
            "choose the data group of that interval"
        )
    operation = LiveOperation(
        settings.live, symbols, build_feed(settings, model.decision), lambda: model, settings.threads
    )

    def stop(number: int, frame: FrameType | None) -> None:
        operation.stop()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    log.info("Following %s %s, record %s", ", ".join(symbols), model.decision.interval, settings.live.record)
    operation.start()
    operation.wait()
    operation.close()


def build_feed(settings: Following, decision: DecisionSettings) -> Feed:
    """Build the feed of the data group: its exchange, or its candles."""
    if settings.live.clock == "exchange":
        if settings.data.binance is None:
            raise ConfigError("data.binance=null: no exchange to follow; choose servers or live.clock=replay")
        return ExchangeFeed(settings.data.binance)
    source = instantiate(settings.data.source_node, _convert_="all")
    frames = {
        symbol: SymbolCandles(symbol, source, settings.data).read([]).frame for symbol in as_list(settings.data.symbol)
    }
    return replay_feed(frames, decision.interval, decision.lookback, settings.live)


def export(settings: Following, directory: Path) -> None:
    """Write the forecasts of each market's account."""
    record = LiveRecord(Path(settings.live.record))
    accounts = accounts_of(as_list(settings.data.symbol), settings.data.interval, settings.live.account)
    for account in accounts:
        place = directory if len(accounts) == 1 else directory / account.symbol
        count = export_forecasts(record, account, place)
        log.info("%s: %d forecasts in %s", account.symbol, count, place)


if __name__ == "__main__":
    main()
