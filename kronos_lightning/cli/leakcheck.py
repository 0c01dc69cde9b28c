"""Command that proves that nothing looks ahead; takes the overrides of evaluate.py.

python -m kronos_lightning.evaluation.leakcheck [overrides]

It writes the candles of your test range to files, changed after a cutoff, and evaluates each in a process of its own.
Every forecast, score, signal, fill and equity that was known at the cutoff must stay bit-identical. It exits with code
2 if one of them changed.
"""

import json
import logging
import sys
from pathlib import Path

from omegaconf import DictConfig
from rich.table import Table

from kronos_lightning.cli.entry import command
from kronos_lightning.config.validation import check_evaluation, fold_configs
from kronos_lightning.evaluation.leakcheck.proof import FUTURES
from kronos_lightning.pipeline.leakcheck import Certificate, certify
from kronos_lightning.plotting.terminal import Terminal
from kronos_lightning.runs.directory import write_json

from .figures import in_fresh_process

SUFFIX = "_leak_certificate.json"  # next to the report's folder, because each evaluation replaces that folder
STYLES = {"proved": "green", "leak": "bold red", "unproved": "yellow"}

NOT_COVERED = (
    "what your source does before the candles are read (its file is read once, and defects are treated once); how "
    "training chose the weights, except for the ranges that checkpoints record; figures of the whole test range, such "
    "as mean scores and the choice of the best baseline, which use all of it by definition"
)

log = logging.getLogger("leakcheck")


@command("evaluate")
def main(cfg: DictConfig) -> None:
    """Prove each test range, print and write the certificate; exit with code 2 if something looks ahead."""
    whole, parts = check_evaluation(cfg), []
    for fold in fold_configs(cfg):
        parts.append(certify(fold, in_fresh_process))
        print_summary(parts[-1])
    output, leaks = Path(whole.evaluation.output_dir), any(part.named("leak") for part in parts)
    path = output.with_name(output.name + SUFFIX)
    content = {
        "leaks": leaks,
        "futures": [future._asdict() for future in FUTURES],
        "parts": [part.as_dict() for part in parts],
    }
    write_json(path, json.loads(json.dumps(content, default=str)))
    log.info("Certificate: %s", path)
    if leaks:
        sys.exit(2)


def print_summary(certificate: Certificate) -> None:
    """Print the findings as a table and sentences."""
    console, cutoffs = Terminal(), certificate.cutoffs
    table = Table(title=f"{certificate.label}: every candle after a cutoff changed, all earlier results compared")
    for name in ("", "compared", "cutoffs", "values", "verdict"):
        table.add_column(name, justify="right" if name in ("cutoffs", "values") else "left")
    for one in certificate.findings:
        counts = str(one.cutoffs or ""), f"{one.values:,}"
        table.add_row(one.name, one.what, *counts, one.verdict, style=STYLES[one.verdict])
    console.print(table)

    mutated = ", ".join(one.name for one in certificate.named("proved") if one.cutoffs)
    console.print(
        f"Proved with {len(cutoffs)} candle files, changed after {cutoffs[0]} to {cutoffs[-1]} and evaluated from the "
        f"file to the equity in processes of their own: no later candle reaches {mutated or 'nothing here'}.",
        markup=False,
    )
    for one in certificate.named("proved"):
        if not one.cutoffs:
            console.print(f"Proved from files: {one.name}: {one.detail}.")
    console.print(f"Not covered: {NOT_COVERED}.")
    for verdict, word in (("unproved", "Not proved"), ("leak", "LEAK")):
        for one in certificate.named(verdict):
            console.print(f"{word}: {one.name}: {one.detail}.", style=STYLES[verdict])


if __name__ == "__main__":
    main()
