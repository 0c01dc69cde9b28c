"""Chronos, Chronos-Bolt and Chronos-2 of Amazon as baselines: general foundation models for time series."""

from functools import cache
from typing import Any

import numpy as np
import torch

from .rival import Rival, RivalError, quantile_paths


class Chronos(Rival):
    """Baseline of a Chronos model, without fine-tuning.

    The models of 2024 sample paths; Bolt and Chronos-2 give quantiles of each step, from which paths are drawn.

    checkpoint: folder of the model, or its name on the Hugging Face Hub, such as amazon/chronos-2.
    revision: commit of the Hub's repository; None = the newest.
    device: cpu, cuda, or auto.
    """

    checkpoint: str
    revision: str | None = None
    device: str = "auto"

    @property
    def name(self) -> str:
        """Name with the last part of the checkpoint, such as chronos_chronos-2."""
        return f"chronos_{self.checkpoint.rstrip('/').rpartition('/')[2]}"

    def log_returns(
        self, series: list[np.ndarray], generators: list[np.random.Generator], shape: tuple[int, int]
    ) -> np.ndarray:
        """Forecast log returns ``(N, S, h)``: sampled one cutoff at a time, or drawn from quantiles of the batch."""
        pipeline = load_pipeline(self.checkpoint, self.revision, self.device)
        horizon = shape[1]
        inputs = [torch.tensor(one, dtype=torch.float32) for one in series]
        if not hasattr(pipeline, "quantiles"):
            sampled = [
                _sampled(pipeline, one, shape, int(rng.integers(2**63)))
                for one, rng in zip(inputs, generators, strict=True)
            ]
            return np.stack(sampled)
        levels = list(pipeline.quantiles)
        found, _ = pipeline.predict_quantiles(inputs, prediction_length=horizon, quantile_levels=levels)
        drawn = [
            quantile_paths(one.reshape(horizon, -1).numpy().astype(np.float64).T, np.array(levels), normals)
            for one, normals in zip(found, (rng.normal(size=shape) for rng in generators), strict=True)
        ]
        return np.stack(drawn)


def _sampled(pipeline: Any, series: torch.Tensor, shape: tuple[int, int], seed: int) -> np.ndarray:
    """Sample paths ``(S, h)`` with a seed of their own, so that they do not depend on the other cutoffs."""
    devices = [torch.cuda.current_device()] if torch.cuda.is_available() else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        found = pipeline.predict([series], prediction_length=shape[1], num_samples=shape[0])
    paths: np.ndarray = found[0].numpy().astype(np.float64)
    return paths


@cache
def load_pipeline(checkpoint: str, revision: str | None, device: str) -> Any:
    """Load a Chronos pipeline.

    Raises:
        RivalError: chronos-forecasting is not installed, or the checkpoint cannot be loaded.
    """
    try:
        from chronos import BaseChronosPipeline
    except ImportError as error:
        raise RivalError(
            "baselines.chronos needs chronos-forecasting: pip install 'kronos-lightning[chronos]'"
        ) from error
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    options = {} if revision is None else {"revision": revision}
    try:
        return BaseChronosPipeline.from_pretrained(checkpoint, device_map=device, dtype=torch.float32, **options)
    except (OSError, ValueError) as error:
        reason = str(error).partition("\n")[0]
        raise RivalError(
            f"baselines: no Chronos model could be loaded from checkpoint={checkpoint} ({reason}); set the folder of a "
            f"model or its name on the Hub"
        ) from error
