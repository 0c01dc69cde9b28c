"""Fine-tuning the predictor. Shape letters: B windows, W rows of a window, h horizon, S sample paths."""

from dataclasses import replace
from typing import Literal, Self

import torch
from torch import Tensor

from kronos_lightning.data import WindowBatch
from kronos_lightning.forecast import Forecaster
from kronos_lightning.model import Kronos, KronosTokenizer, token_losses

from .optimization import Optimization
from .stage_module import StageModule


class PredictorModule(StageModule):
    """Predict the next candle's tokens; the tokenizer is frozen.

    Loss: mean of the coarse and the fine cross-entropy (nats). Validation is teacher-forced, causal and deterministic
    whatever `s1_condition` is.

    Args:
        forecaster: tokenizer, predictor and how the validation's paths are sampled.
        s1_condition: in training the fine head sees the target coarse token, or one sampled from the coarse head.
        num_paths: sample paths of the validation picture.
        seed: of those paths.
    """

    def __init__(
        self,
        forecaster: Forecaster,
        optimization: Optimization,
        lookback: int,
        horizon: int,
        s1_condition: Literal["teacher", "sampled"],
        num_paths: int,
        seed: int,
    ):
        predictor = forecaster.predictor
        bits = predictor.s1_bits, predictor.s2_bits
        super().__init__(bits, optimization, lookback, ("loss", "ce_s1", "ce_s2"))
        self.predictor, self.tokenizer = predictor, forecaster.tokenizer.requires_grad_(False)
        self.forecaster, self.horizon = forecaster, horizon
        self.s1_condition, self.num_paths, self.seed = s1_condition, num_paths, seed

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

    def _losses(self, batch: WindowBatch, teacher: bool) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
        """Token ids ``(B, W)`` and cross-entropies ``(B, W − 1)``, each coarse and fine."""
        with torch.no_grad(), torch.autocast(self.device.type, enabled=False):
            s1_ids, s2_ids = self.tokenizer.encode(batch.x, half=True)
        s1_next = s1_ids[:, 1:] if teacher else None
        logits = self.predictor(s1_ids[:, :-1], s2_ids[:, :-1], batch.stamp[:, :-1], s1_next)
        return (s1_ids, s2_ids), token_losses(*logits, s1_ids[:, 1:], s2_ids[:, 1:])

    def training_step(self, batch: WindowBatch, batch_idx: int) -> Tensor:
        _, (ce_s1, ce_s2) = self._losses(batch, teacher=self.s1_condition == "teacher")
        ce_s1, ce_s2 = ce_s1.mean(), ce_s2.mean()
        loss = (ce_s1 + ce_s2) / 2
        self.log_training(loss, ce_s1=ce_s1, ce_s2=ce_s2)
        return loss

    def validation_step(self, batch: WindowBatch, batch_idx: int) -> None:
        ids, losses = self._losses(batch, teacher=True)
        # Position i predicts row i + 1, so the first target row is predicted at lookback − 1.
        ce_s1, ce_s2 = (loss[:, self.lookback - 1 :].mean(dim=1) for loss in losses)
        self.update_validation(ids, loss=(ce_s1 + ce_s2) / 2, ce_s1=ce_s1, ce_s2=ce_s2)

    def validation_paths(self, batch: WindowBatch) -> Tensor:
        generator = torch.Generator().manual_seed(self.seed)
        past, future = slice(None, self.lookback), slice(self.lookback, self.lookback + self.horizon)
        forecaster = replace(self.forecaster)  # its folded weights are stale after the next step anyway
        return forecaster.sample_normalised(
            batch.x[:, past], batch.stamp[:, past], batch.stamp[:, future], self.num_paths, generator
        )
