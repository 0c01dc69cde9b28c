"""Binary spherical quantisation (arXiv 2406.07548): every candle becomes a corner of a cube on the unit sphere.

Shape letters: B batch, T tokens, N bits (s1_bits + s2_bits).
"""

from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn


def bits_to_index(bits: Tensor) -> Tensor:
    """Read the last axis as a binary number in which bit i has weight 2^i: bool ``(…, N)`` → int64 ``(…)``."""
    weights = 2 ** torch.arange(bits.size(-1), device=bits.device)
    return (bits.long() * weights).sum(dim=-1)


def index_to_bits(index: Tensor, n_bits: int) -> Tensor:
    """Convert an index to its bits, the inverse of `bits_to_index`: int64 ``(…)`` → bool ``(…, N)``."""
    return index.unsqueeze(-1).bitwise_right_shift(torch.arange(n_bits, device=index.device)).bitwise_and(1).bool()


class _SumOverProcesses(torch.autograd.Function):
    """Sum of a tensor over all training processes; gradients are summed in the same way."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        total = x.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        total = gradient.clone()
        dist.all_reduce(total)
        return total


def _mean_over_processes(x: Tensor) -> Tensor:
    """Average a tensor over all training processes, with gradients; a single process returns it unchanged."""
    if dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1:
        return _SumOverProcesses.apply(x) / dist.get_world_size()
    return x


def _entropy(p: Tensor) -> Tensor:
    """Return the entropy in nats of independent bits with probability p, summed over the last axis."""
    eps = 1e-8
    return -(p * (p + eps).log() + (1 - p) * (1 - p + eps).log()).sum(dim=-1)


class BinarySphericalQuantizer(nn.Module):
    """Sign quantisation on the unit sphere with straight-through gradients and an entropy penalty.

    Args:
        n_bits: length of the code in bits, N.
        beta: weight of the commitment loss.
        gamma0: weight of the per-sample entropy; a lower entropy means more certain codes.
        gamma: weight of the codebook entropy; a higher entropy means that more codes are in use.
        zeta: weight of both entropies in the loss.
        group_size: length of the `group_basis` buffer in published checkpoints; the loss does not depend on it.

    Raises:
        ValueError: `group_size` does not divide `n_bits`.
    """

    def __init__(self, n_bits: int, beta: float, gamma0: float, gamma: float, zeta: float, group_size: int):
        super().__init__()
        if n_bits % group_size:
            raise ValueError(f"group_size {group_size} does not divide the number of bits {n_bits}")
        self.n_bits, self.beta, self.gamma0, self.gamma, self.zeta = n_bits, beta, gamma0, gamma, zeta
        self.register_buffer("basis", 2 ** torch.arange(n_bits - 1, -1, -1))
        self.register_buffer("group_basis", 2 ** torch.arange(group_size - 1, -1, -1))

    @property
    def scale(self) -> float:
        """Absolute coordinate of a cube corner on the unit sphere, 1/√N."""
        return self.n_bits**-0.5

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Quantise z ``(B, T, N)``: codes ``(B, T, N)`` in {−1/√N, +1/√N}, and the loss (scalar, may be negative).

        Half-precision input is converted to float32 here; otherwise the mean of many probabilities near 0.5 would be
        rounded to 1/512.
        """
        given, z = z, F.normalize(z if z.dtype.itemsize >= 4 else z.float(), dim=-1)
        code = torch.where(z > 0, 1.0, -1.0).type_as(z) * self.scale
        commitment = (code - z).square().sum(dim=-1).mean()
        p = torch.sigmoid(-4.0 * z * self.scale)
        per_sample = _entropy(p).mean()
        dims = tuple(range(p.dim() - 1))
        average = p.mean(dim=dims)
        # The codebook entropy is not linear in the batch, so several processes compute it over the global batch.
        codebook = _entropy(_mean_over_processes(average) if self.training else average)
        loss = self.beta * commitment + self.zeta * (self.gamma0 * per_sample - self.gamma * codebook)
        straight_through = z * self.scale + (code - z * self.scale).detach()
        return straight_through.type_as(given), loss

    def bits(self, z: Tensor) -> Tensor:
        """Return only the code, as bool ``(B, T, N)``; normalisation is skipped because it does not change signs."""
        return z > 0
