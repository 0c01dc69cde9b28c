"""Tiny networks and windows that many tests of training share."""

import lightning as L
import torch
from torch.utils.data import DataLoader

from kronos_lightning.config.sections import PredictorStage, RegularizationSection, TokenizerStage
from kronos_lightning.data import CandleWindows
from kronos_lightning.data.representation import LEVELS
from kronos_lightning.forecast import Forecaster
from kronos_lightning.training import PredictorModule, Recipe, TokenizerModule
from kronos_lightning.training.regularization import override_dropout
from tests.helpers.candles import frame_with_gap

LOOKBACK, HORIZON = 12, 3
RATES = {"learning_rate": 1e-2, "betas": [0.9, 0.95], "weight_decay": 0.1, "pct_start": 0.03, "div_factor": 10.0}
STOPS = {"gradient_clip": None, "max_epochs": 1, "patience": 1}
OFF = {"ffn": 0.0, "attn": 0.0, "resid": 0.0, "token": 0.0}
NOTHING = {
    "dropout": dict.fromkeys(OFF), "l1": 0.0, "l2_pretrained": 0.0, "label_smoothing": 0.0, "ema": None, "freeze": [],
    "lora": None, "layer_decay": 1.0, "volatility": None, "volatility_base": 0.02, "loss_rows": "window", "extra": {},
}  # fmt: skip


def windows(volume=True):
    return CandleWindows(frame_with_gap(120, 120), LOOKBACK, HORIZON + 1, 5.0, volume=volume)


def recipe(stage="tokenizer", lookback=LOOKBACK, horizon=HORIZON, market_volatility=None, regularisers=(), **changes):
    """How a network is trained; `changes` are keys of the stage or of the regularisation."""
    own = {"s1_condition": "teacher", "frozen_tokenizer": "auto", "cache_tokens": False} if stage == "predictor" else {}
    settings = {"name": stage} | RATES | STOPS | own
    settings |= {key: changes.pop(key) for key in list(changes) if key in settings}
    section = PredictorStage if stage == "predictor" else TokenizerStage
    return Recipe(
        stage=section(**settings),
        regularization=RegularizationSection(**NOTHING | changes),
        lookback=lookback,
        horizon=horizon,
        clip=5.0,
        representation=LEVELS,
        market_volatility=market_volatility,
        regularisers=tuple(regularisers),
    )


def predictor_module(tokenizer, predictor, num_paths=3, keep_dropout=False, **changes):
    """Without dropout, unless it is kept: a training step then needs no random number. `changes` as in `recipe`."""
    if not keep_dropout:
        override_dropout(predictor, **OFF)
    forecaster = Forecaster(tokenizer, predictor, max_context=64)
    return PredictorModule(forecaster, recipe("predictor", **changes), num_paths=num_paths, seed=0)


def tokenizer_module(tokenizer, **changes):
    """`changes` as in `recipe`."""
    return TokenizerModule(tokenizer, recipe(**changes))


def loader(data, batch_size=20):
    return DataLoader(data, batch_size=batch_size, collate_fn=lambda batch: batch)


def quiet(tmp_path, **options):
    """A trainer that leaves nothing behind."""
    silent = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    return L.Trainer(
        accelerator="cpu", enable_model_summary=False, default_root_dir=tmp_path, **silent | {"max_epochs": 1} | options
    )


def fit(module, tmp_path, data=None, batch_size=20, ckpt_path=None, **options):
    trainer = quiet(tmp_path, **options)
    batches = loader(data or windows(), batch_size)
    trainer.fit(module, batches, batches, ckpt_path=ckpt_path, weights_only=True)
    return trainer


def weights(network):
    return {name: p.detach().clone() for name, p in network.named_parameters()}


def same(first, second):
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)
