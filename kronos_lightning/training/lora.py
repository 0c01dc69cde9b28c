"""Low-rank adapters (LoRA, arXiv 2106.09685): train a low-rank update of some matrices and nothing else.

The adapters are parametrisations of `torch.nn.utils.parametrize` instead of layers from the library peft. A layer's
``weight`` is then the adapted matrix wherever it is read. Forecasts fold this matrix and an export stores it, so both
are bit-identical to the trained network. Layers of peft keep the matrix without the adapter as their ``weight``, and
merging and unmerging it rounds.
"""

from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from kronos_lightning.model import Kronos, KronosTokenizer
from kronos_lightning.training.regularization import RegularizationError

Network = TypeVar("Network", KronosTokenizer, Kronos)


class LowRank(nn.Module):
    """Parametrisation that adds ``alpha / rank × up down`` to a matrix ``(out, in)``.

    ``down`` is ``(rank, in)``, ``up`` is ``(out, rank)``. The update starts at zero because ``up`` does.
    """

    def __init__(self, matrix: Tensor, rank: int, alpha: float):
        super().__init__()
        self.scale = alpha / rank
        self.down = nn.Parameter(torch.empty(rank, matrix.size(1), device=matrix.device))
        self.up = nn.Parameter(torch.zeros(matrix.size(0), rank, device=matrix.device))
        nn.init.kaiming_uniform_(self.down, a=5**0.5)

    def forward(self, matrix: Tensor) -> Tensor:
        return torch.addmm(matrix, self.up, self.down, alpha=self.scale)


def add_adapters(network: nn.Module, rank: int, alpha: float, modules: Sequence[str]) -> None:
    """Freeze a network and add an adapter to each linear layer whose name matches one of the patterns.

    Raises:
        RegularizationError: a pattern matches no linear layer.
    """
    linear = {name: module for name, module in network.named_modules() if isinstance(module, nn.Linear)}
    for pattern in modules:
        if not any(fnmatchcase(name, pattern) for name in linear):
            raise RegularizationError(
                f"regularization.lora.modules: {pattern!r} matches no linear layer of this network; it has "
                f"{', '.join(linear)}"
            )
    network.requires_grad_(False)
    for name, module in linear.items():
        if any(fnmatchcase(name, pattern) for pattern in modules):
            parametrize.register_parametrization(module, "weight", LowRank(module.weight, rank, alpha))


def merged(network: Network) -> Network:
    """Merge the adapters into the matrices; return a new network, or the same network if it has no adapters."""
    adapted = [name for name, module in network.named_modules() if parametrize.is_parametrized(module)]
    if not adapted:
        return network
    state = {name: value for name, value in network.state_dict().items() if ".parametrizations." not in name}
    state |= {f"{name}.weight": network.get_submodule(name).weight.detach() for name in adapted}
    with torch.device("meta"):  # draw no random weights, they would be replaced immediately
        plain = type(network)(**network.config)
    plain.load_state_dict(state, assign=True)
    return plain.eval()
