"""Sweeper plugin that Hydra discovers. Every command imports it, so the work is done in `kronos_lightning.sweeps`."""

from collections.abc import Mapping
from typing import Any

from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig


class KronosSweeper(Sweeper):
    """Sweeper over a grid, random draws or Optuna's proposals; `conf/hydra/sweeper` documents the arguments."""

    def __init__(
        self,
        method: str,
        params: Mapping[str, Any],
        swept: list[str],
        parallel: int | None,
        trials: int | None = None,
        seed: int = 0,
    ):
        self.method, self.params, self.parallel, self.trials, self.seed = method, params, parallel, trials, seed

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Store the arguments that `sweep` needs."""
        self.hydra_context, self.task_function, self.config = hydra_context, task_function, config

    def sweep(self, arguments: list[str]) -> None:
        """Run every trial; leave a table, a plot and the best command. `arguments` are the given overrides."""
        from kronos_lightning.sweeps.runner import run_sweep

        run_sweep(self, arguments)
