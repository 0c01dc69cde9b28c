"""Command that proves that nothing looks ahead; takes the overrides of evaluate.py.

python -m kronos_lightning.evaluation.leakcheck [overrides]

It changes every candle after a cutoff of your own test range. Features, tokens, logits, forecasts, baselines, signals,
fills and equity up to that cutoff must stay bit-identical. It exits with code 2 if one of them changed.
"""

import json
import logging
import sys
from pathlib import Path

from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from rich.table import Table

from kronos_lightning.cli.entry import command
from kronos_lightning.config.validation import check_evaluation, fold_configs
from kronos_lightning.evaluation.leakcheck.proof import FUTURES
from kronos_lightning.pipeline.leakcheck import Certificate, certify
from kronos_lightning.plotting.terminal import Terminal
from kronos_lightning.runs.builders import build_datamodule
from kronos_lightning.runs.directory import write_json

SUFFIX = "_leak_certificate.json"  # next to the report's folder, because each evaluation replaces that folder
STYLES = {"proved": "green", "leak": "bold red", "unproved": "yellow"}

log = logging.getLogger("leakcheck")


@command("evaluate")
def main(cfg: DictConfig) -> None:
    """Prove each test range, print and write the certificate; exit with code 2 if something looks ahead."""
    whole, parts = check_evaluation(cfg), []
    for fold in fold_configs(cfg):
        settings = check_evaluation(fold)
        datamodule = build_datamodule(settings.data)
        datamodule.prepare_data()
        options = OmegaConf.to_container(fold.trainer, resolve=True)
        options |= {"devices": 1, "strategy": "auto", "enable_progress_bar": False}
        parts.append(certify(settings, datamodule, instantiate(options)))
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
        f"Proved on {len(cutoffs)} cutoffs from {cutoffs[0]} to {cutoffs[-1]} (fills on every other, calibration on "
        f"the first), {len(FUTURES)} other futures after each: no later candle reaches {mutated or 'nothing here'}."
    )
    for one in certificate.named("proved"):
        if not one.cutoffs:
            console.print(f"Proved from files: {one.name}: {one.detail}.")
    console.print("Not covered: the temperature search and the checkpoints of compare.")
    for verdict, word in (("unproved", "Not proved"), ("leak", "LEAK")):
        for one in certificate.named(verdict):
            console.print(f"{word}: {one.name}: {one.detail}.", style=STYLES[verdict])


if __name__ == "__main__":
    main()
