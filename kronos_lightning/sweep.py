"""The table at the end of a multirun."""

import logging
from pathlib import Path
from typing import Any

import pandas as pd
from hydra.core.utils import JobReturn, JobStatus
from hydra.experimental.callback import Callback
from omegaconf import DictConfig
from rich.console import Console
from rich.table import Table

from .data.files import atomic_path
from .runs import read_info

log = logging.getLogger(__name__)


class SweepTable(Callback):
    """Collects the runs of a multirun; at the end prints them, best first, and writes `sweep.csv`."""

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []

    def on_job_end(self, config: DictConfig, job_return: JobReturn, **kwargs: Any) -> None:
        """Note what a run was given and what it reached."""
        run_dir = Path(str(job_return.cfg.run_dir)) if job_return.status == JobStatus.COMPLETED else None
        info = read_info(run_dir) if run_dir else None
        metrics = (info or {}).get("metrics", {})
        self.rows.append(
            {
                "overrides": list(job_return.overrides),
                "stage": job_return.cfg.stage.name,
                "val/loss": metrics.get("val/loss"),
                "best epoch": metrics.get("best_epoch"),
                "seconds": (info or {}).get("seconds"),
                "folder": str(run_dir) if run_dir else "failed",
            }
        )

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Print and write the table."""
        if not self.rows:
            return
        common = set.intersection(*(set(row["overrides"]) for row in self.rows))
        for row in self.rows:
            row["overrides"] = " ".join(text for text in row["overrides"] if text not in common)
        frame = pd.DataFrame(self.rows).sort_values(["stage", "val/loss"], ascending=[False, True])
        path = Path(config.hydra.sweep.dir) / "sweep.csv"
        with atomic_path(path) as temporary:
            frame.to_csv(temporary, index=False)
        table = Table(title="Runs, best validation loss first (losses of different stages do not compare)")
        for name in frame.columns:
            table.add_column(name, overflow="fold")
        for row in frame.itertuples(index=False):
            table.add_row(*("–" if pd.isna(v) else f"{v:.5g}" if isinstance(v, float) else str(v) for v in row))
        console = Console()
        console.width = max(console.width, 120)
        console.print(table)
        log.info("The table is in %s", path)
