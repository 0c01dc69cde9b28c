"""A small data set of synthetic candles."""

import pandas as pd

from kronos_lightning.data.settings import DataSection
from kronos_lightning.runs.builders import build_datamodule

SETTINGS = {
    "name": "test",
    "symbol": "X",
    "symbol_weights": None,
    "interval": "1h",
    "source": "synthetic",
    "csv_dir": "csv",
    "csv_path": None,
    "binance": None,
    "exchange": None,
    "on_defect": "error",
    "synthetic": {
        "candles": 600,
        "start": "2023-01-01",
        "seed": 3,
        "start_price": 100.0,
        "volatility": 0.8,
        "planted": "none",
    },
    "calendar": "24x7",
    "fold": None,
    "folds": 5,
    "fold_scheme": "expanding",
    "embargo": 0,
    "volume": True,
    "representation": "levels",
    "dataset_begin_time": None,
    "dataset_end_time": None,
    "train_time_range": ["2023-01-01", "2023-01-12"],
    "val_time_range": ["2023-01-10", "2023-01-16"],  # overlaps, as the guide's ranges do
    "test_time_range": ["2023-01-15", "2023-01-25"],
    "lookback": 20,
    "horizon": 5,
    "clip": 5.0,
    "batch_size": 16,
    "samples_per_epoch": None,
    "num_workers": 0,
    "seed": 0,
}


def data_section(**changes):
    """Settings of the data set; its sources follow the other keys as `conf/data` has them."""
    values = SETTINGS | {"processed_dir": "processed"} | changes
    targets = {name: f"kronos_lightning.data.sources.{name}" for name in ("Binance", "CsvFile", "Synthetic")}
    endpoints = None if values["binance"] is None else dict(values["binance"])
    sources = {
        "file": {"_target_": targets["CsvFile"], "csv_path": values["csv_path"]},
        "binance": {"_target_": targets["Binance"], "csv_dir": values["csv_dir"], "endpoints": endpoints},
        "synthetic": {"_target_": targets["Synthetic"], "settings": values["synthetic"]},
    }
    return DataSection(**{"sources": sources} | values)


def data_module(**changes):
    """Data module of the data set."""
    return build_datamodule(data_section(**changes))


def target_stamps(module, split):
    """Stamps of all target rows of all windows of a split."""
    frame = pd.read_parquet(module.path(split))
    starts = module.windows[split].starts.numpy()
    lookback, rows = module.config.lookback, module.target_rows
    return {frame["timestamps"].iloc[s + lookback + k] for s in starts for k in range(rows)}
