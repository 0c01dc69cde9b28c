"""Command that downloads candles.

python -m kronos_lightning.data.binance symbol=BTCUSDT interval=1d start=2018-01-01
"""

import logging
import re

from omegaconf import DictConfig
from rich.table import Table

from kronos_lightning.cli.entry import command
from kronos_lightning.config.validation import check_download
from kronos_lightning.data.sources.binance import Downloaded, DownloadError, download, series_path
from kronos_lightning.plotting.terminal import Terminal

log = logging.getLogger("binance")


def as_lists(arguments: list[str]) -> list[str]:
    """Convert `symbol=A,B` and `interval=A,B` to Hydra lists; Hydra would read the commas as a sweep."""
    return [re.sub(r"^(symbol|interval)=([^\[].*,.*)$", r"\1=[\2]", argument) for argument in arguments]


@command("download", rewrite=as_lists)
def main(cfg: DictConfig) -> None:
    """Download each symbol and interval; a failure does not stop the remaining downloads."""
    settings = check_download(cfg)
    done, failed = [], []
    for symbol, interval in settings.series:
        path = series_path(settings.csv_dir, symbol, interval)
        try:
            done.append(download(symbol, interval, path, settings, settings.start, settings.end))
        except DownloadError as error:
            failed.append(str(error))
    if done:
        print_summary(done)
    if failed:
        raise DownloadError("; ".join(failed))


def print_summary(done: list[Downloaded]) -> None:
    """Print a table of the downloaded files, their spans and gaps."""
    table = Table()
    table.add_column("file", overflow="fold")
    for name in ("candles", "from", "to", "gaps", "fetched"):
        table.add_column(name, justify="right")
    for series in done:
        info = series.manifest
        fetched = f"{series.pieces} pieces" if series.pieces else "up to date"
        row = f"{info['candles']:,}", info["first"][:16], info["last"][:16], str(len(info["gaps"])), fetched
        table.add_row(str(series.path), *row)
    Terminal().print(table)


if __name__ == "__main__":
    main()
