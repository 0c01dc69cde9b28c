"""Fine-tuning of the tokenizer or the predictor.

python train.py stage=tokenizer data=btc model=kronos-small trainer=auto
"""

import logging
import time
from pathlib import Path

import lightning as L
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from kronos_lightning.cli.entry import command
from kronos_lightning.config.schema import Training
from kronos_lightning.config.validation import check_training
from kronos_lightning.runs import directory, provenance
from kronos_lightning.runs.builders import build_datamodule, build_module, scale
from kronos_lightning.runs.log import RunLog
from kronos_lightning.runs.resume import check_resumable, check_same, find_resume, kept_tokenizer
from kronos_lightning.training.cost import Cost
from kronos_lightning.training.profiling import PartsProfiler

log = logging.getLogger("train")


@command("train")
def main(cfg: DictConfig) -> float | None:
    """Train from a configuration; return the best value of the monitored metric, for sweepers."""
    settings = check_training(cfg)
    L.seed_everything(settings.seed, workers=True, verbose=False)
    with directory.reserve(Path(settings.run_dir), "run_dir"), RunLog() as run_log:
        return train(cfg, settings, run_log)


def train(cfg: DictConfig, settings: Training, run_log: RunLog) -> float:
    """Train from a checked configuration; return the best value of the monitored metric."""
    started, run_dir, monitor = time.monotonic(), Path(settings.run_dir), settings.callbacks["best"]["monitor"]
    loggers = list(instantiate(cfg.logger, _convert_="all").values())  # first, because a tracker may lack its key
    datamodule = build_datamodule(settings.data)
    datamodule.prepare_data()
    if settings.resume == "auto" and directory.is_finished(run_dir):
        check_same(run_dir, settings, datamodule)
        log.info("%s is finished, nothing to resume", run_dir)
        return directory.best_metrics(run_dir)[monitor]
    resume = find_resume(settings.resume, run_dir)
    check_resumable(resume, settings)
    module, sources = build_module(settings, datamodule, kept_tokenizer(resume))
    cost = Cost()
    callbacks = [*instantiate(cfg.callbacks, _convert_="all").values(), cost]
    profiler = PartsProfiler(run_dir / "profile") if settings.profile else None
    trainer = instantiate(cfg.trainer, callbacks=callbacks, logger=loggers, profiler=profiler, _convert_="all")

    scaled = scale(settings, module, datamodule, trainer.num_devices * trainer.num_nodes)
    kind = {"stage": settings.stage.name, "model": settings.model.name, "settings": provenance.optimisation(settings)}
    info = provenance.describe(datamodule, settings.seed, **kind, scale=scaled, **sources)
    module.record, module.compiled = provenance.record(info), settings.compile
    module.save_hyperparameters(kind["settings"])  # shown by the trackers
    begun = directory.begin(run_dir, OmegaConf.to_container(cfg, resolve=True), info, module.frozen, resume)
    run_log.write_to(run_dir / "logs" / "train.log")
    with begun:
        trainer.fit(module, datamodule, ckpt_path=resume, weights_only=True)

    metrics = directory.best_metrics(run_dir)
    log.info("Best %s %.5f after epoch %d", monitor, metrics[monitor], metrics["best_epoch"])
    log.info("Model: %s", run_dir / "checkpoints" / "best_model")
    seconds = round(time.monotonic() - started, 1)
    directory.end(run_dir, info | cost.summary() | {"seconds": seconds, "metrics": metrics})
    return metrics[monitor]


if __name__ == "__main__":
    main()
