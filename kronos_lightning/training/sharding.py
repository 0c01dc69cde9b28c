"""Fully sharded data parallelism (FSDP2): each process holds a share of the weights, gradients and optimiser state."""

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
    """Shares a network out among all processes, a transformer block at a time; GPUs or, to try it, processors.

    A checkpoint is one file with the whole weights and optimiser state, as that of one process is.
    """

    def __init__(self, process_group_backend: str | None = None):
        super().__init__(
            tensor_parallel_size=1, save_distributed_checkpoint=False, process_group_backend=process_group_backend
        )

    def setup_environment(self) -> None:
        self._data_parallel_size = self.num_nodes * self.num_processes
        super().setup_environment()

    def shard(self, network: KronosTokenizer | Kronos) -> None:
        """Leave this process its share of each parameter; whole ones exist while a block is computed."""
        if isinstance(network, FSDPModule):
            return
        mesh = self.device_mesh["data_parallel"]
        for module in network.modules():
            if isinstance(module, TransformerBlock):
                fully_shard(module, mesh=mesh)
        fully_shard(network, mesh=mesh)
        if isinstance(network, KronosTokenizer):
            register_fsdp_forward_method(network, "encode")


def whole(network: Network, device: torch.device) -> Network:
    """A sharded network with all of its weights, for the first process alone: all have to call. Another as it is."""
    if not isinstance(network, FSDPModule):
        return network
    state = get_model_state_dict(network, options=StateDictOptions(full_state_dict=True, cpu_offload=True))
    with torch.device("meta"):  # neither memory in the other processes, nor random numbers
        plain = _class_before(network)(**network.config)
    if state:  # the others get none
        plain.to_empty(device=device).load_state_dict(state)
    return plain.eval()


def share(parameter: Tensor) -> Tensor:
    """What this process has of a parameter: a view, all of it where it is not sharded."""
    return parameter.to_local() if isinstance(parameter, DTensor) else parameter


def joined(value: Tensor) -> Tensor:
    """A figure of all shares together."""
    return value.full_tensor() if isinstance(value, DTensor) else value


def _class_before(network: nn.Module) -> type:
    """FSDP puts a class of its own before that of the network."""
    return next(kind for kind in type(network).__mro__ if kind in (KronosTokenizer, Kronos))
