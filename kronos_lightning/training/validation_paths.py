"""Forecasts during validation. Shape letters: B windows, L lookback, S sample paths, h horizon."""

from typing import Annotated

import lightning as L
import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from kronos_lightning.data import CandleWindows, WindowBatch
from kronos_lightning.data.representation import WindowScale
from kronos_lightning.forecast.distribution import crps, path_quantiles
from kronos_lightning.forecast.plots import forecast_figure
from kronos_lightning.model import Kronos, KronosTokenizer
from kronos_lightning.training.sharding import gather_network
from kronos_lightning.training.trackers import log_figure, takes_plots

NUM_PLOTTED = 3  # forecasts in the validation plot
PATH_METRICS = ("crps", "coverage_90", "direction_accuracy", "direction_majority")


class ValidationPaths(L.Callback):
    """Callback that forecasts some windows after each validation and logs their metrics and a plot.

    The metrics are those of `path_metrics`. The windows and the random numbers of their paths are the same in every
    epoch, so that epochs are comparable. The first process measures and broadcasts the metrics: all processes know
    them, and they do not depend on the number of processes.

    Args:
        windows: number of windows, spread evenly over the validation range.
        every_n_epochs: measure in every n-th epoch. The other epochs have no metric instead of an outdated one.
    """

    def __init__(self, windows: Annotated[int, Field(ge=1)], every_n_epochs: Annotated[int, Field(ge=1)]):
        self.windows, self.every_n_epochs = windows, every_n_epochs

    def on_validation_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.sanity_checking:
            return
        if trainer.current_epoch % self.every_n_epochs:
            for name in PATH_METRICS:
                trainer.callback_metrics.pop(f"val/{name}", None)
            return
        network = gather_network(pl_module.eval_network, pl_module.device)
        metrics = self._measure(trainer, pl_module, network) if trainer.is_global_zero else {}
        metrics = trainer.strategy.broadcast(metrics)
        for name, value in metrics.items():
            pl_module.log(f"val/{name}", value)

    def _measure(
        self, trainer: L.Trainer, pl_module: L.LightningModule, network: KronosTokenizer | Kronos
    ) -> dict[str, float]:
        data = trainer.datamodule.windows["val"]
        chosen = np.linspace(0, len(data) - 1, min(self.windows, len(data))).astype(int)
        batches = np.array_split(chosen, -(-len(chosen) // trainer.datamodule.batch_size))
        parts = [_forecast(trainer, pl_module, network, data.__getitems__(batch.tolist())) for batch in batches]
        x, paths, *scale = (torch.cat(part) for part in zip(*parts, strict=True))
        self._plot_paths(trainer, data, WindowScale(*scale), paths, chosen)
        known, coming = x[:, : data.lookback], x[:, data.lookback : data.lookback + paths.size(2)]
        last, close = data.representation.closes(known, paths, data.clip)
        _, actual = data.representation.closes(known, coming, data.clip)
        return path_metrics(last.numpy(), close.numpy(), actual.numpy())

    def _plot_paths(
        self, trainer: L.Trainer, data: CandleWindows, scale: WindowScale, paths: Tensor, chosen: np.ndarray
    ) -> None:
        boards = [logger for logger in trainer.loggers if takes_plots(logger)]
        if not boards:
            return
        pick = np.linspace(0, len(chosen) - 1, min(NUM_PLOTTED, len(chosen))).astype(int)
        kind = "reconstruction" if paths.size(1) == 1 else "sample paths"
        synthetic = " (synthetic candles)" if trainer.datamodule.manifest()["synthetic"] else ""
        candles, _ = data.raw(torch.from_numpy(chosen[pick]))
        last, horizon = data.lookback, paths.size(2)
        scale = WindowScale(*(part[pick] for part in scale))
        figure = forecast_figure(
            candles[:, max(0, last - 3 * horizon) : last].numpy(),
            data.representation.denormalise(paths[pick], scale, data.clip).numpy(),
            candles[:, last : last + horizon].numpy(),
            [f"validation window {chosen[i]}" for i in pick],
            f"Epoch {trainer.current_epoch + 1}: {kind} against reality{synthetic}",
        )
        for board in boards:
            log_figure(board, "val/paths", figure, trainer.global_step)


def _forecast(
    trainer: L.Trainer, pl_module: L.LightningModule, network: KronosTokenizer | Kronos, batch: WindowBatch
) -> tuple[Tensor, ...]:
    """Return windows ``(B, W, 6)``, paths ``(B, S, h, 6)``, both normalised, and the parts of their scale, on the CPU.

    The scale is that of the target rows.
    """
    paths = pl_module.validation_paths(trainer.strategy.batch_to_device(batch), network).float().cpu()
    x, scale = batch.candles
    scale = scale.after(pl_module.lookback)
    std = scale.std if scale.std.size(1) == 1 else scale.std[:, : paths.size(2)]
    return x, paths, scale.mean, std, scale.close


def path_metrics(known: np.ndarray, paths: np.ndarray, actual: np.ndarray) -> dict[str, float]:
    """Compute validation metrics of the close's sample paths.

    Args:
        known: last close before the forecast, ``(B,)``.
        paths: ``(B, S, h)``.
        actual: ``(B, h)``. All in the same units.

    Returns:
        crps: fair CRPS, mean over windows and steps, in the units given. For a single path it is the absolute error.
        coverage_90: share of closes inside the 90 % interval; needs at least 19 paths to reach 0.9. Missing for a
            single path.
        direction_accuracy: share of windows in which the median path has the right sign of the change over the horizon.
        direction_majority: direction_accuracy of always forecasting the more frequent sign. Both directions are missing
            if no close changed.
    """
    found = {"crps": float(crps(paths, actual).mean())}
    if paths.shape[1] > 1:
        lower, upper = path_quantiles(paths, (0.05, 0.95))
        found["coverage_90"] = float(((lower <= actual) & (actual <= upper)).mean())
    realised = np.sign(actual[:, -1] - known)
    right = np.sign(np.median(paths[:, :, -1], axis=1) - known) == realised
    moved = realised != 0
    if moved.any():
        up = float((realised[moved] > 0).mean())
        found |= {"direction_accuracy": float(right[moved].mean()), "direction_majority": max(up, 1 - up)}
    return found
