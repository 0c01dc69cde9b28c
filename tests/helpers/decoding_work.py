"""Forecasts that the benchmarks time, with networks of published size and random weights."""

from dataclasses import dataclass

import torch
from hydra.utils import instantiate

from kronos_lightning import Forecaster, Kronos, KronosTokenizer
from kronos_lightning.config.compose import compose
from kronos_lightning.config.validation import check_evaluation
from kronos_lightning.evaluation.rolling import Cutoffs
from kronos_lightning.forecast import Sampling
from kronos_lightning.runs.builders import build_datamodule
from tests.helpers.paths import published_config


@dataclass(frozen=True)
class Work:
    model: str
    known: int
    horizon: int
    paths: int
    series: int
    least: float = 0.0  # ratio that is wanted
    repeats: int = 1  # of each decoder; the best counts

    def __str__(self):
        return f"{self.model}, context {self.known}, horizon {self.horizon}, {self.paths} path(s), {self.series} series"


TEN_PATHS = Work("mini", 90, 10, 10, 1, 8, 1)
WORKS = [
    Work("small", 360, 24, 30, 1, 100, 1),
    Work("small", 90, 10, 5, 32, 25, 1),
    Work("small", 400, 112, 1, 1, 12, 1),
    Work("mini", 90, 10, 1, 1, 4, 40),
]


def forecaster(work):
    torch.manual_seed(0)
    tokenizer = KronosTokenizer(
        **published_config("Kronos-Tokenizer-2k" if work.model == "mini" else "Kronos-Tokenizer-base")
    )
    predictor = Kronos(**published_config(f"Kronos-{work.model}"))
    return Forecaster(
        tokenizer.eval(), predictor.eval(), max_context=2048 if work.model == "mini" else 512, sampling=Sampling()
    )


def given(work):
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(work.series, work.known, 6, generator=generator).cumsum(dim=1)
    x = ((x - x.mean(dim=1, keepdim=True)) / x.std(dim=1, keepdim=True)).clamp(-5, 5)
    rows = work.series, work.known + work.horizon
    stamps = torch.stack([torch.randint(0, n, rows, generator=generator) for n in (60, 24, 7, 28, 12)], dim=-1)
    return x, stamps[:, : work.known], stamps[:, work.known :]


def rolling_inputs(folder, known, horizon, count, batch_size):
    """The first `count` cutoffs of the sample data's test range, and the trainer of a rolling evaluation on a CPU."""
    cfg = compose(
        "evaluate", "data=sample", f"data.lookback={known}", f"data.horizon={horizon}", "trainer=cpu",
        "+trainer.enable_progress_bar=false", f"data.processed_dir={folder / 'processed'}",
    )  # fmt: skip
    datamodule = build_datamodule(check_evaluation(cfg).data)
    datamodule.prepare_data()
    (candles,) = datamodule.read()
    mask = datamodule.target_masks(candles.frame["timestamps"])["test"]
    cutoffs = Cutoffs(candles, mask, known, horizon, None, batch_size)
    cutoffs.rows = cutoffs.rows[:count]
    return cutoffs, instantiate(cfg.trainer, _convert_="all")
