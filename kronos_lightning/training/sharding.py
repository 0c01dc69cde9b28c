"""Fully sharded data parallelism (FSDP2): each process holds a shard of the weights, gradients and optimiser state."""

from typing import TypeVar

import torch
from lightning.pytorch.strategies import ModelParallelStrategy
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from torch.distributed.fsdp import FSDPModule, fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor

from kronos_lightning.model import Kronos, KronosTokenizer
from kronos_lightning.model.layers import TransformerBlock

Network = TypeVar("Network", KronosTokenizer, Kronos)


class BlockSharding(ModelParallelStrategy):
    """Strategy that shards a network among all processes by transformer block, on GPUs or, for trials, on CPUs.

    A checkpoint is one file with the full weights and optimiser state, as with a single process.
    """

    def __init__(self, process_group_backend: str | None = None):
        super().__init__(
            tensor_parallel_size=1, save_distributed_checkpoint=False, process_group_backend=process_group_backend
        )

    def setup_environment(self) -> None:
        self._data_parallel_size = self.num_nodes * self.num_processes
        super().setup_environment()

    def shard(self, network: KronosTokenizer | Kronos) -> None:
        """Shard each parameter in place; a block's full parameters exist only while the block is computed."""
        if isinstance(network, FSDPModule):
            return
        mesh = self.device_mesh["data_parallel"]
        for module in network.modules():
            if isinstance(module, TransformerBlock):
                fully_shard(module, mesh=mesh)
        fully_shard(network, mesh=mesh)
        if isinstance(network, KronosTokenizer):
            register_fsdp_forward_method(network, "encode")


def gather_network(network: Network, device: torch.device) -> Network:
    """Return a sharded network with all of its weights; return an unsharded network unchanged.

    All processes have to call this function; only the result of the first process has the weights.
    """
    if not isinstance(network, FSDPModule):
        return network
    state = get_model_state_dict(network, options=StateDictOptions(full_state_dict=True, cpu_offload=True))
    with torch.device("meta"):  # use no memory in the other processes, and no random numbers
        plain = _class_before(network)(**network.config)
    if state:  # empty in the other processes
        plain.to_empty(device=device).load_state_dict(state)
    return plain.eval()


def local_shard(parameter: Tensor) -> Tensor:
    """Return this process's shard of a parameter as a view; the whole parameter if it is not sharded."""
    return parameter.to_local() if isinstance(parameter, DTensor) else parameter


def gather_tensor(value: Tensor) -> Tensor:
    """Return the value over all shards."""
    return value.full_tensor() if isinstance(value, DTensor) else value


def _class_before(network: nn.Module) -> type:
    """Return the network's original class, which FSDP replaces by a subclass."""
    return next(kind for kind in type(network).__mro__ if kind in (KronosTokenizer, Kronos))
