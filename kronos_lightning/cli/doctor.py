"""Command that examines candles.

python -m kronos_lightning.data.doctor FILE [interval=1h calendar=sessions output_dir=…]
"""

import json
import logging
import sys
from pathlib import Path

import pandas as pd
from omegaconf import DictConfig
from rich.table import Table

from kronos_lightning.cli.entry import command
from kronos_lightning.config.validation import check_doctor
from kronos_lightning.data.doctor.diagnosis import Diagnosis, diagnose
from kronos_lightning.data.formats import read_raw
from kronos_lightning.plotting.terminal import Terminal
from kronos_lightning.reporting.doctor_page import page, span
from kronos_lightning.storage import atomic_directory

STYLES = {"error": "bold red", "warning": "yellow", "info": "dim"}

log = logging.getLogger("doctor")


@command("doctor", file_key="candles")
def main(cfg: DictConfig) -> None:
    """Examine candles and write the report; exit with code 2 if the candles are unfit for training."""
    settings = check_doctor(cfg)
    path = Path(settings.candles)
    raw = read_raw(path, settings)
    written = pd.Timestamp(path.stat().st_mtime, unit="s", tz="UTC")
    diagnosis = diagnose(raw, settings.interval, settings.calendar == "sessions", written)
    output = Path(settings.output_dir) / path.stem
    with atomic_directory(output, origin=str(path.resolve())) as folder:
        (folder / "doctor.json").write_text(json.dumps(diagnosis.to_json(), indent=1, allow_nan=False))
        (folder / "doctor.html").write_text(page(diagnosis, raw))
    print_summary(diagnosis, raw)
    log.info("Written to %s: doctor.html, doctor.json", output)
    if diagnosis.errors:
        sys.exit(2)


def print_summary(diagnosis: Diagnosis, raw: pd.DataFrame) -> None:
    """Print the findings as a table."""
    console = Terminal()
    table = Table(title=f"{diagnosis.source}: {diagnosis.candles:,} candles of {diagnosis.interval}, {span(raw)}")
    for name, justify in (("", "left"), ("found", "left"), ("places", "right"), ("what it is", "left")):
        table.add_column(name, justify=justify)
    for f in diagnosis.findings:
        table.add_row(
            f.severity, f.check, f"{len(f.lines):,}" if len(f.lines) else "", f.message, style=STYLES[f.severity]
        )
    console.print(table)
    console.print(f"Verdict: {diagnosis.verdict}.", style=STYLES["error"] if diagnosis.errors else "bold green")


if __name__ == "__main__":
    main()
