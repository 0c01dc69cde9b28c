"""Download candles: python -m kronos_lightning.data.binance symbol=BTCUSDT interval=1d start=2018-01-01"""

import logging
import re
import sys
from pathlib import Path

import hydra
from omegaconf import DictConfig
from rich.console import Console
from rich.table import Table

from kronos_lightning.command import one_line_errors
from kronos_lightning.config import check_download
from kronos_lightning.data.binance import Downloaded, DownloadError, Endpoints, download, series_path

log = logging.getLogger("binance")


@hydra.main(version_base="1.3", config_path=str(Path(__file__).parents[3] / "conf"), config_name="download")
@one_line_errors
def main(cfg: DictConfig) -> None:
    """Download each symbol and interval; one that fails does not keep the others from being fetched."""
    settings = check_download(cfg)
    done, failed = [], []
    for symbol, interval in settings.series:
        path = series_path(settings.csv_dir, symbol, interval)
        try:
            endpoints = Endpoints(**settings.endpoints)
            done.append(download(symbol, interval, path, endpoints, settings.start, settings.end))
        except DownloadError as error:
            failed.append(str(error))
    if done:
        tell(done)
    if failed:
        raise DownloadError("; ".join(failed))


def tell(done: list[Downloaded]) -> None:
    """What there is now, as a table, and where the gaps are."""
    table = Table()
    table.add_column("file", overflow="fold")
    for name in ("candles", "from", "to", "gaps", "fetched"):
        table.add_column(name, justify="right")
    for series in done:
        about = series.manifest
        fetched = f"{series.pieces} pieces" if series.pieces else "up to date"
        row = f"{about['candles']:,}", about["first"][:16], about["last"][:16], str(len(about["gaps"])), fetched
        table.add_row(str(series.path), *row)
    Console().print(table)


def as_lists(arguments: list[str]) -> list[str]:
    """The command line in Hydra's grammar, where `symbol=A,B` would be a sweep."""
    return [re.sub(r"^(symbol|interval)=([^\[].*,.*)$", r"\1=[\2]", argument) for argument in arguments]


if __name__ == "__main__":
    sys.argv[1:] = as_lists(sys.argv[1:])
    main()
