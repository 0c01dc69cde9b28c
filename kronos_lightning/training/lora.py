"""Low-rank adapters (LoRA, arXiv 2106.09685): train a small difference to some matrices and nothing else.

As a parametrisation of `torch.nn.utils.parametrize`, not through the library peft: a layer's ``weight`` then is the
adapted matrix wherever it is read. Forecasts fold that matrix, and an export holds it, so that both equal the network
that was trained to the last bit. Layers of peft keep the matrix without the adapter as their ``weight``, and merging it
in and out again rounds.
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
    """Adds ``alpha / rank × up down`` to a matrix ``(out, in)``; zero at the start, as ``up`` is.

    ``down`` is ``(rank, in)``, ``up`` is ``(out, rank)``.
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
    """Freeze a network and give an adapter to each linear layer whose name matches one of the patterns.

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
    """The network with its adapters worked into the matrices: a new one, or itself where it has none."""
    adapted = [name for name, module in network.named_modules() if parametrize.is_parametrized(module)]
    if not adapted:
        return network
    state = {name: value for name, value in network.state_dict().items() if ".parametrizations." not in name}
    state |= {f"{name}.weight": network.get_submodule(name).weight.detach() for name in adapted}
    with torch.device("meta"):  # no random numbers for weights that are replaced at once
        plain = type(network)(**network.config)
    plain.load_state_dict(state, assign=True)
    return plain.eval()
