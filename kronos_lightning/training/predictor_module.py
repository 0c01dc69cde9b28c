"""Fine-tuning of the predictor. Shape letters: B windows, W rows of a window, h horizon, S sample paths."""

from dataclasses import replace
from pathlib import Path
from typing import Self

import torch
from torch import Tensor

from kronos_lightning.data import CandleDataModule, WindowBatch
from kronos_lightning.forecast import Forecaster
from kronos_lightning.model import Kronos, KronosTokenizer, token_losses
from kronos_lightning.training.recipe import Recipe
from kronos_lightning.training.stage_module import StageModule
from kronos_lightning.training.throughput import forward_flops, training_flops
from kronos_lightning.training.token_cache import cached_tokens


class PredictorModule(StageModule):
    """Lightning module that trains the predictor on the next candle's tokens, with a frozen tokenizer.

    Loss: mean of the coarse and the fine cross-entropy (nats). Validation is teacher-forced, causal and deterministic
    for every value of `s1_condition`.

    Args:
        forecaster: tokenizer, predictor and sampling settings of the validation paths.
        recipe: training settings. Its stage sets the coarse token that the fine head sees in training (`s1_condition`:
            the target token, or a token sampled from the coarse head). It also sets whether all windows are encoded
            once, before the first step (`cache_tokens`: "auto" = if they are not augmented and the run draws at least
            as many windows as there are).
        num_paths: sample paths per window in validation.
        seed: of the validation paths.
    """

    def __init__(self, forecaster: Forecaster, recipe: Recipe, *, num_paths: int, seed: int):
        predictor = forecaster.predictor
        super().__init__(predictor, recipe, ("loss", "ce_s1", "ce_s2"))
        self.predictor, self.tokenizer = predictor, forecaster.tokenizer.requires_grad_(False)
        self.forecaster, self.num_paths, self.seed, self.cached = forecaster, num_paths, seed, False

    @property
    def trained(self) -> Kronos:
        return self.predictor

    @property
    def frozen(self) -> KronosTokenizer:
        return self.tokenizer

    def train(self, mode: bool = True) -> Self:
        super().train(mode)
        self.tokenizer.eval()
        return self

    def setup(self, stage: str) -> None:
        super().setup(stage)
        data = self.trainer.datamodule
        self.cached = stage == "fit" and self._caches(data)
        if not self.cached:
            return
        first = self.trainer.local_rank == 0  # encodes; the other processes of its machine wait, then read
        for turn in (first, not first):
            if turn:
                self._use_cached_tokens(data)
            self.trainer.strategy.barrier()

    def _caches(self, data: CandleDataModule) -> bool:
        if self.recipe.stage.cache_tokens != "auto":
            return self.recipe.stage.cache_tokens
        windows, epochs = data.windows["train"], self.trainer.max_epochs
        drawn = min(data.config.samples_per_epoch or len(windows), len(windows))
        return windows.augmentation is None and (epochs in (None, -1) or drawn * epochs >= len(windows))

    def _use_cached_tokens(self, data: CandleDataModule) -> None:
        directory, device = Path(data.config.processed_dir), self.trainer.strategy.root_device
        tokenizer = self.tokenizer.to(device).eval()
        for split in ("train", "val"):
            tokens = cached_tokens(tokenizer, data.windows[split], directory, f"{data.label}_{split}", device)
            alone = split == "train" and self.recipe.regularization.volatility != "batch"
            data.windows[split].use_tokens(tokens, alone)

    def flops(self, rows: int) -> float:
        encoder = self.tokenizer.encoder, self.tokenizer.embed, self.tokenizer.quant_embed
        encoding = 0 if self.cached else sum(forward_flops(part, rows) for part in encoder)
        return training_flops(self.predictor, rows - 1) + encoding

    def _tokens(self, batch: WindowBatch) -> tuple[Tensor, Tensor]:
        """Return token ids ``(B, W)``, coarse and fine."""
        if batch.tokens is not None:
            return batch.tokens.unbind(dim=-1)
        with torch.no_grad(), torch.autocast(self.device.type, enabled=False):
            return self.tokenizer.encode(batch.x, half=True)

    def on_after_batch_transfer(self, batch: WindowBatch, dataloader_idx: int) -> WindowBatch:
        if batch.tokens is None:  # encode here and not in the step, so that a profiler measures it separately
            batch = batch._replace(tokens=torch.stack(self._tokens(batch), dim=-1))
        return batch

    def _losses(
        self, network: Kronos, batch: WindowBatch, teacher: bool, label_smoothing: float = 0.0
    ) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
        """Compute token ids ``(B, W)`` and cross-entropies ``(B, W − 1)``, each coarse and fine."""
        s1_ids, s2_ids = self._tokens(batch)
        s1_next = s1_ids[:, 1:] if teacher else None
        logits = network(s1_ids[:, :-1], s2_ids[:, :-1], batch.stamp[:, :-1], s1_next)
        return (s1_ids, s2_ids), token_losses(*logits, s1_ids[:, 1:], s2_ids[:, 1:], label_smoothing)

    def training_step(self, batch: WindowBatch, batch_idx: int) -> Tensor:
        regularization, teacher = self.recipe.regularization, self.recipe.stage.s1_condition == "teacher"
        smoothing = regularization.label_smoothing
        _, losses = self._losses(self.predictor, batch, teacher, smoothing)
        # Position i predicts row i + 1, so the first target row is predicted at lookback − 1.
        first = self.lookback - 1 if regularization.loss_rows == "horizon" else 0
        ce_s1, ce_s2 = (loss[:, first:].mean() for loss in losses)
        loss = self.regularised((ce_s1 + ce_s2) / 2)
        self.log_training(loss, ce_s1=ce_s1, ce_s2=ce_s2)
        return loss

    def validation_step(self, batch: WindowBatch, batch_idx: int) -> None:
        ids, losses = self._losses(self.eval_network, batch, teacher=True)
        ce_s1, ce_s2 = (loss[:, self.lookback - 1 :].mean(dim=1) for loss in losses)
        self.update_validation(ids, loss=(ce_s1 + ce_s2) / 2, ce_s1=ce_s1, ce_s2=ce_s2)

    def validation_paths(self, batch: WindowBatch, network: Kronos) -> Tensor:
        generator = torch.Generator().manual_seed(self.seed)
        past, future = slice(None, self.lookback), slice(self.lookback, self.lookback + self.horizon)
        forecaster = replace(self.forecaster, predictor=network)  # its folded weights are stale after the next step
        return forecaster.sample_normalised(
            batch.x[:, past], batch.stamp[:, past], batch.stamp[:, future], self.num_paths, generator
        )
