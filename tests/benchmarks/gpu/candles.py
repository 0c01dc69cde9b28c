"""Candles of the kit: overrides for synthetic ones or for a file, with ranges that fit them."""

import pandas as pd

from kronos_lightning.data.formats import read_raw, usual_distance
from kronos_lightning.settings.dates import interval_name

LOOKBACK, HORIZON = 90, 10  # of the guide
SPLITS = (0.0, 0.86, 0.93, 1.0)  # shares of the time at which train, val and test begin and end


def data_overrides(machine, candles):
    """Return the overrides of `data` for a file, or for so many synthetic candles if there is none."""
    window = (
        ["data.lookback=24", "data.horizon=4"]
        if machine.smoke
        else [f"data.lookback={LOOKBACK}", f"data.horizon={HORIZON}"]
    )
    common = ["data=synthetic", f"data.processed_dir={machine.folder / 'processed'}", *window]
    if machine.candles is None:
        first, step, count = pd.Timestamp("2020-01-01", tz="UTC"), pd.Timedelta("1h"), candles
        own = [f"data.synthetic.candles={count}", f"data.synthetic.start={first:%Y-%m-%d}", f"data.name=gpu_{count}"]
    else:
        path = machine.candles.resolve()
        raw = read_raw(path)
        first, step = raw["timestamps"].min(), usual_distance(raw, path)
        count = (raw["timestamps"].max() - first) // step + 1
        own = [
            f"data.csv_path='{path}'",
            f"data.interval={interval_name(step)}",
            "data.symbol=FILE",
            "data.name=gpu_file",
        ]
    edges = [first + share * (count - 1) * step for share in SPLITS]
    for split, begin, end in zip(("train", "val", "test"), edges, edges[1:], strict=False):
        inclusive = end if split == "test" else end - step
        own.append(f"data.{split}_time_range=['{begin:%Y-%m-%d %H:%M:%S}','{inclusive:%Y-%m-%d %H:%M:%S}']")
    return common + own
