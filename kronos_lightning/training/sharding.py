"""Fully sharded data parallelism: each process holds a share of the weights, gradients and optimiser state."""

from collections.abc import Iterator
from contextlib import contextmanager

import lightning as L
import torch
from lightning.pytorch.strategies import FSDPStrategy
from torch.distributed.fsdp import FullyShardedDataParallel

from kronos_lightning.model.layers import TransformerBlock


class ShardingError(RuntimeError):
    """There is nothing to share the weights out to."""


class BlockSharding(FSDPStrategy):
    """FSDP whose units are the transformer blocks, and whose checkpoints are whole, as those of one process."""

    def __init__(self, process_group_backend: str | None = None):
        if not torch.accelerator.is_available():
            raise ShardingError("trainer=fsdp: torch shards on GPUs alone, and finds none; trainer=ddp_sim has the CPU")
        super().__init__(
            auto_wrap_policy={TransformerBlock},
            state_dict_type="full",
            process_group_backend=process_group_backend,
        )


@contextmanager
def gathered(trainer: L.Trainer) -> Iterator[None]:
    """Within it every process sees the whole weights; all have to enter."""
    if isinstance(trainer.strategy, FSDPStrategy):
        with FullyShardedDataParallel.summon_full_params(trainer.strategy.model, writeback=False):
            yield
    else:
        yield
