"""Files of a sweep, and its table on the terminal."""

import pandas as pd
from rich.table import Table

from kronos_lightning.plotting.formats import number
from kronos_lightning.plotting.terminal import Terminal
from kronos_lightning.storage import atomic_path

from .plot import sweep_figure
from .results import APART, Record, best, command_of, last_parts, table_of

LONG = 60  # characters after which a status wraps


def write(record: Record) -> None:
    """Write `sweep.csv`, `sweep.png` and `best.sh`, and print the table."""
    frame = table_of(record)
    with atomic_path(record.folder / "sweep.csv") as temporary:
        frame.to_csv(temporary, index=False)
    winners = best(record)
    if winners:
        with atomic_path(record.folder / "sweep.png") as temporary:
            sweep_figure(record).savefig(temporary, dpi=130)
        with atomic_path(record.folder / "best.sh") as temporary:
            lines = (f"# {group}: {t.monitor} {t.value:.5g}\n{command_of(t)}\n" for group, t in winners.items())
            temporary.write_text("".join(lines))
    _print(frame, record)


def _print(frame: pd.DataFrame, record: Record) -> None:
    shown = frame.drop(columns="folder")
    apart = [key for key in APART if key in frame and len(frame[key].unique()) > 1]
    if "stage" not in apart:
        shown = shown.drop(columns="stage")
    monitors = {trial.monitor for trial in record.trials}
    extra = {name for trial in record.trials for name in trial.metrics} - monitors - {"val/loss", "best_epoch"}
    shown = shown.drop(columns=[name for name in extra if name in shown])
    kinds = " and ".join(f"{key.rpartition('.')[2]}s" for key in apart)
    notes = f" (metrics of different {kinds} are not comparable)" if apart else ""
    order = f", best {' and '.join(sorted(monitors))} first" if record.compared else ""
    table = Table(title=f"Trials{order}{notes}")
    for name, label in zip(shown.columns, last_parts(list(shown.columns)), strict=True):
        if name == "status":
            table.add_column(label, overflow="fold", max_width=LONG)
        else:  # a number that wraps reads as another number
            table.add_column(label, no_wrap=True, justify="left" if name == "stage" else "right")
    for row in shown.itertuples(index=False):
        table.add_row(*(_cell(value) for value in row))
    console = Terminal()
    console.width = max(console.width, console.measure(table, options=console.options.update(width=10_000)).maximum)
    console.print(table)


def _cell(value: object) -> str:
    return number(value) if value is None or isinstance(value, float) else str(value)
