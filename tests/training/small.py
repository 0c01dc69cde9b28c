"""Tiny networks and windows that many tests of training share."""

import lightning as L
import torch
from torch.utils.data import DataLoader

from kronos_lightning.data import CandleWindows
from kronos_lightning.forecast import Forecaster
from kronos_lightning.training import PredictorModule, TokenizerModule
from kronos_lightning.training.optimization import Optimization
from kronos_lightning.training.regularization import Regularization, override_dropout
from tests.conftest import frame_with_gap

LOOKBACK, HORIZON = 12, 3
RATES = {"learning_rate": 1e-2, "betas": (0.9, 0.95), "weight_decay": 0.1, "pct_start": 0.03, "div_factor": 10.0}
OFF = {"ffn": 0.0, "attn": 0.0, "resid": 0.0, "token": 0.0}


def windows(volume=True):
    return CandleWindows(frame_with_gap(120, 120), LOOKBACK, HORIZON + 1, 5.0, volume=volume)


def predictor_module(tokenizer, predictor, layer_decay=1.0, **regularization):
    """Without dropout: a training step then needs no random number."""
    override_dropout(predictor, **OFF)
    forecaster, rates = Forecaster(tokenizer, predictor, 64), Optimization(**RATES, layer_decay=layer_decay)
    options = Regularization(**regularization)
    return PredictorModule(forecaster, rates, LOOKBACK, HORIZON, "teacher", num_paths=3, seed=0, regularization=options)


def tokenizer_module(tokenizer, layer_decay=1.0, **regularization):
    rates = Optimization(**RATES, layer_decay=layer_decay)
    return TokenizerModule(tokenizer, rates, LOOKBACK, HORIZON, Regularization(**regularization))


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
