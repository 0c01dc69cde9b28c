"""Common base of both fine-tuning stages: optimiser, schedule, regularisation, gradient norm, validation means."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.core.optimizer import LightningOptimizer
from torch import Tensor, nn
from torch.nn.utils import clip_grad_value_, clip_grads_with_norm_, get_total_norm
from torchmetrics import MeanMetric, Metric

from kronos_lightning.config.renamed import migrate_settings
from kronos_lightning.data import WindowBatch
from kronos_lightning.errors import KronosError
from kronos_lightning.forecast.device import keep_freed_memory
from kronos_lightning.model import Kronos, KronosTokenizer
from kronos_lightning.model.pretrained import RECORD_FILE
from kronos_lightning.training.acceleration import compile_networks, warn_of_slow_precision
from kronos_lightning.training.lora import merged
from kronos_lightning.training.optimization import build_optimizer, build_schedule
from kronos_lightning.training.recipe import Recipe
from kronos_lightning.training.regularisers import L2SP, Regulariser, SoftThreshold
from kronos_lightning.training.regularization import WeightAverage, window_volatility
from kronos_lightning.training.sharding import BlockSharding, gather_tensor
from kronos_lightning.training.stopping import diverged

LEAST_SCALE = 2.0**-10  # smallest loss scale in 16-mixed precision; it starts at 2^16 and halves with each overflow


class ScheduleError(KronosError, RuntimeError):
    """Error if a run is resumed with other settings or another number of steps than planned."""


def changed(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """List the changed settings as text; settings that earlier versions did not record are skipped."""
    before = migrate_settings(before)
    return [f"{key} ({before[key]} before, {now.get(key)} now)" for key in before if before[key] != now.get(key)]


def require_same_run(checkpoint: dict[str, Any], stage: str, settings: dict[str, Any]) -> None:
    """Raise `ScheduleError` if a checkpoint belongs to another stage, or to a run with other settings."""
    held = checkpoint.get("stage", stage)  # earlier versions did not record it
    if held != stage:
        raise ScheduleError(f"cannot resume stage={stage} from a checkpoint of stage={held}")
    differences = changed(checkpoint.get("settings", {}), settings)
    if differences:
        raise ScheduleError(
            f"cannot resume: these settings changed: {', '.join(differences)}. Restore them, or start a new run from "
            f"these weights with init_from=DIR"
        )


class CodebookUsage(Metric):
    """Share of the codebook entries that occur among the tokens seen."""

    def __init__(self, bits: int):
        super().__init__()
        self.add_state("counts", torch.zeros(2**bits, dtype=torch.long), dist_reduce_fx="sum")

    def update(self, ids: Tensor) -> None:
        """Count token ids of any shape."""
        self.counts = self.counts + torch.bincount(ids.flatten(), minlength=self.counts.numel())

    def compute(self) -> Tensor:
        return (self.counts > 0).float().mean()


class StageModule(L.LightningModule):
    """Base of `TokenizerModule` and `PredictorModule`.

    Validation metrics are means over windows, accumulated in float64 and summed over processes: they do not depend on
    the number of processes. Only the target rows of a window count (those after the lookback), because the rows before
    them may have been trained on.

    Training state is part of the module and therefore of its checkpoints: the EMA network, and the initial weights if
    they are pulled towards. A resumed run thus keeps the initial weights of its first part, even if files changed.

    Args:
        network: the network to fine-tune.
        recipe: training settings.
        metrics: names of the validation means.
    """

    frozen: KronosTokenizer | None = None  # the tokenizer of the predictor stage
    record: dict[str, Any] | None = None  # training metadata for the checkpoint directory
    compiled = False  # True = train and validate the networks with torch.compile

    def __init__(
        self,
        network: KronosTokenizer | Kronos,
        recipe: Recipe,
        metrics: tuple[str, ...],
    ):
        super().__init__()
        self.recipe, regularization = recipe, recipe.regularization
        self.lookback, self.horizon = recipe.lookback, recipe.horizon
        self.means = nn.ModuleDict({name: MeanMetric() for name in metrics})
        self.usage = nn.ModuleDict({"s1": CodebookUsage(network.s1_bits), "s2": CodebookUsage(network.s2_bits)})
        self.average = None if regularization.ema is None else WeightAverage(network, regularization.ema)
        pulled = [p for p in network.parameters() if p.requires_grad and regularization.l2_pretrained]
        self.start = nn.ParameterList(nn.Parameter(p.detach().clone(), requires_grad=False) for p in pulled)
        self.regularisers = self._regularisers()
        self._volatility: list[Tensor] = []  # volatilities of the batches of this step

    def _regularisers(self) -> list[Regulariser]:
        """Build the regularisers that act in each step, in the order in which they run."""
        regularization = self.recipe.regularization
        found: list[Regulariser] = []
        if regularization.l2_pretrained:
            found.append(L2SP(regularization.l2_pretrained, self.start))
        if regularization.l1:
            found.append(SoftThreshold(regularization.l1))
        return [*found, *self.recipe.regularisers]

    @property
    def trained(self) -> KronosTokenizer | Kronos:
        """Network that is fine-tuned."""
        raise NotImplementedError

    @property
    def eval_network(self) -> KronosTokenizer | Kronos:
        """Network that is validated and exported: the EMA network if there is one, else the trained network."""
        return self.trained if self.average is None else self.average.network

    def validation_paths(self, batch: WindowBatch, network: KronosTokenizer | Kronos) -> Tensor:
        """Forecast the horizon for the validation metrics and plot.

        Args:
            batch: windows.
            network: the network to validate, unsharded.

        Returns:
            Normalised paths ``(B, S, h, 6)``.
        """
        raise NotImplementedError

    def save_pretrained(self, directory: Path, network: KronosTokenizer | Kronos) -> None:
        """Write the validated network as a checkpoint directory, with its training metadata."""
        merged(network).save_pretrained(directory)
        if self.record is not None:
            (directory / RECORD_FILE).write_text(json.dumps(self.record, indent=2))

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        metrics = self.trainer.callback_metrics
        checkpoint["figures"] = {name: float(value) for name, value in metrics.items() if name.startswith("val/")}
        checkpoint["settings"] = (self.record or {}).get("settings", {})
        checkpoint["stage"] = self.recipe.stage.name

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        require_same_run(checkpoint, self.recipe.stage.name, (self.record or {}).get("settings", {}))

    def flops(self, rows: int) -> float:
        """Return the floating-point operations of a training step on one window of `rows` rows; see `throughput`."""
        raise NotImplementedError

    def setup(self, stage: str) -> None:
        device = self.trainer.strategy.root_device
        if stage == "fit":
            keep_freed_memory()
            warn_of_slow_precision(device, str(self.trainer.precision))
            if self.compiled:
                compile_networks(device, *{self.trained, self.eval_network})
        if device.type != "mps":  # MPS has no float64
            for mean in self.means.values():
                mean.set_dtype(torch.float64)

    def configure_model(self) -> None:
        if isinstance(self.trainer.strategy, BlockSharding):
            self.trainer.strategy.shard(self.trained)

    def configure_optimizers(self) -> dict[str, Any]:
        fused = self.trainer.precision != "16-mixed"  # its gradients have to be unscaled before clipping
        stage, layer_decay = self.recipe.stage, self.recipe.regularization.layer_decay
        optimizer = build_optimizer(self.trained, stage, layer_decay, fused)
        schedule = build_schedule(optimizer, stage, int(self.trainer.estimated_stepping_batches))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def on_fit_start(self) -> None:
        self.train()  # loaded networks are in eval mode; Lightning would keep it, and dropout would be off

    def on_train_start(self) -> None:
        planned = self.lr_schedulers().total_steps
        if planned != self.trainer.estimated_stepping_batches:
            raise ScheduleError(
                f"cannot resume: the run was planned for {planned} steps, this one has "
                f"{int(self.trainer.estimated_stepping_batches)}: epochs, batch size or data changed. Restore them, or "
                f"start a new run from these weights with init_from=DIR"
            )

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        if self.recipe.regularization.volatility is not None:
            self._adapt_rate(optimizer)
        for regulariser in self.regularisers:
            regulariser.on_gradient(self.trained, optimizer)

    def on_train_batch_start(self, batch: WindowBatch, batch_idx: int) -> None:
        if self.recipe.regularization.volatility == "batch":
            self._volatility.append(window_volatility(batch, self.recipe.representation, self.recipe.clip))

    def optimizer_step(
        self,
        epoch: int,
        batch_idx: int,
        optimizer: LightningOptimizer,
        optimizer_closure: Callable[[], Any] | None = None,
    ) -> None:
        rates = [group["lr"] for group in optimizer.param_groups]
        try:
            super().optimizer_step(epoch, batch_idx, optimizer, optimizer_closure)
            for regulariser in self.regularisers:
                regulariser.on_weights(self.trained, optimizer)
        finally:  # the schedule continues from its own rates
            for group, rate in zip(optimizer.param_groups, rates, strict=True):
                group["lr"] = rate
        if self.average is not None:
            self.average.update(self.trained)

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Check the gradient norm and clip by it. (Lightning refuses fused optimisers in all half precisions.)"""
        trained = [p for p in self.trained.parameters() if p.grad is not None]
        norm = get_total_norm([p.grad for p in trained])
        logged = self.trainer.global_step % self.trainer.log_every_n_steps == 0
        if logged or self.device.type == "cpu":  # on other devices, reading a number waits for the device
            self._check(gather_tensor(norm))
            if logged:
                self.log("train/gradient_norm", gather_tensor(norm))
        if gradient_clip_val and gradient_clip_algorithm == "value":
            clip_grad_value_(trained, gradient_clip_val)
        elif gradient_clip_val:
            clip_grads_with_norm_(trained, gradient_clip_val, norm)

    def _check(self, norm: Tensor) -> None:
        """Raise `DivergedError` if the gradient is not finite; in 16-mixed precision, if the loss scale is low."""
        scaler = getattr(self.trainer.precision_plugin, "scaler", None)
        if not norm.isfinite() if scaler is None else scaler.get_scale() < LEAST_SCALE:
            raise diverged("the gradient", self.trainer.global_step + 1)

    def _adapt_rate(self, optimizer: torch.optim.Optimizer) -> None:
        """Reduce the learning rate of this step by the volatility, identically in all processes."""
        volatility = self.recipe.market_volatility
        if self.recipe.regularization.volatility == "batch":
            mean = torch.stack(self._volatility).mean()
            self._volatility.clear()
            volatility = float(self.trainer.strategy.reduce(mean, reduce_op="mean"))
        factor = 1 / (1 + volatility / self.recipe.regularization.volatility_base)
        for group in optimizer.param_groups:
            group["lr"] *= factor
        self.log_dict({"train/volatility": volatility, "train/rate_factor": factor})

    def regularised(self, loss: Tensor) -> Tensor:
        """Return the training loss including the terms of the regularisers."""
        for regulariser in self.regularisers:
            loss = regulariser.on_loss(loss, self.trained)
        return loss

    def log_training(self, loss: Tensor, **parts: Tensor) -> None:
        """Log the loss of a step (also on the progress bar) and its parts."""
        self.log("train/loss", loss, prog_bar=True)
        self.log_dict({f"train/{name}": value.detach() for name, value in parts.items()})

    def update_validation(self, ids: tuple[Tensor, Tensor], **per_window: Tensor) -> None:
        """Add the metrics of a batch, each ``(B,)``, and its token ids."""
        for name, values in per_window.items():
            self.means[name].update(values.to(self.means[name].dtype))
        for usage, part in zip(self.usage.values(), ids, strict=True):
            usage.update(part)

    def on_validation_epoch_start(self) -> None:
        for metric in (*self.means.values(), *self.usage.values()):
            metric.reset()

    def on_validation_epoch_end(self) -> None:
        for name, mean in self.means.items():
            self.log(f"val/{name}", mean.compute().float(), prog_bar=name == "loss")
        for name, usage in self.usage.items():
            self.log(f"val/codebook_usage_{name}", usage.compute())
