"""Linear maps of the folded networks, in the layouts that BLAS multiplies fastest.

Shape letters: R rows, P parts.
"""

import math

import torch
from torch import Tensor, nn

from kronos_lightning.forecast.int8 import Int8Weight

Placement = tuple[torch.device, torch.dtype]
FEW_ROWS = 256  # up to this number of rows, a batched product of all parts plus an addition is faster than a loop


def fold(weight: Tensor, place: Placement, gain: Tensor | float = 1.0) -> Tensor:
    """Multiply the weight ``(out, in)`` of a linear map by a gain of its inputs; return it as ``(in, out)``."""
    return (weight.detach().float() * gain).t().contiguous().to(*place)


class Product:
    """Linear map whose output columns are divided into equal parts, each with its own contiguous weight.

    BLAS distributes the parts over the cores, which for few rows is up to twice as fast as one wide product.

    Args:
        weight: folded, ``(in, out)``.
        bias: ``(out,)``.
        parts: number of parts, P; it must divide the number of columns.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None = None, parts: int = 1):
        self.weight = torch.unflatten(weight, 1, (parts, -1)).transpose(0, 1).contiguous()  # (P, in, out / P)
        self.flat_bias, self.bias = bias, bias if bias is None else bias.view(parts, 1, -1)
        self.parts = parts
        self.int8: Int8Weight | None = None

    @classmethod
    def of(cls, linear: nn.Linear, place: Placement) -> "Product":
        """Build the product of a linear layer."""
        return cls(fold(linear.weight, place), linear.bias.detach().to(*place), math.gcd(2, linear.out_features))

    def quantise(self) -> None:
        """Multiply single rows by weights of 8 bits from now on."""
        self.int8 = Int8Weight(self.weight.transpose(0, 1).flatten(1), self.flat_bias)

    def split(self, rows: Tensor, out: Tensor | None = None) -> Tensor:
        """Map rows ``(R, in)`` → ``(P, R, out / P)``; `out` is a buffer for the result."""
        if self.int8 is not None and len(rows) == 1:
            product = self.int8(rows).view(self.parts, 1, -1)
            return product if out is None else out.copy_(product)
        rows = rows.expand(self.parts, *rows.shape)
        if self.bias is None:
            return torch.bmm(rows, self.weight, out=out)
        return torch.baddbmm(self.bias, rows, self.weight, out=out)

    def __call__(self, x: Tensor) -> Tensor:
        """Map x ``(…, in)`` → ``(…, out)``."""
        return self.split(x.flatten(0, -2)).transpose(0, 1).reshape(*x.shape[:-1], self.parts * self.weight.size(2))

    def add_to(self, target: Tensor, rows: Tensor) -> None:
        """Add the product of rows ``(R, in)`` to ``(R, out)``, in place."""
        count = rows.size(0)
        if count == 1 and self.int8 is not None:
            target.add_(self.int8(rows))
            return
        if count == 1:
            target.view(self.parts, 1, -1).baddbmm_(rows.expand(self.parts, 1, -1), self.weight)
            if self.flat_bias is not None:
                target.add_(self.flat_bias)
            return
        parts = target.view(count, self.parts, -1).transpose(0, 1)
        if count <= FEW_ROWS:
            parts.add_(self.split(rows))
            return
        for part, weight in zip(parts, self.weight, strict=True):
            part.addmm_(rows, weight)
        if self.bias is not None:
            parts.add_(self.bias)
