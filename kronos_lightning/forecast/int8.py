"""Products of a single row with weights of 8 bits.

Such a product takes as long as its weights take to come from memory, so a quarter of the bytes is a gain. Weights have
one scale per output; the row and the result are rounded to bfloat16, for which alone torch's kernel is fast. A product
of several rows is bound by arithmetic instead, and slower than in float32.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from kronos_lightning.forecast.device import DeviceError

LARGEST = 127
BLOCK = 32  # the kernel reads the features in blocks of this size, and past the end of others


def check_int8(device: torch.device) -> None:
    """Check that 8-bit weights work on a device.

    Raises:
        DeviceError: they do not.
    """
    if device.type != "cpu":
        raise DeviceError(f"forecast.precision=int8: only on a CPU, not on {device}; use bfloat16 or float32")


class Int8Weight:
    """Weight ``(in, out)`` and bias ``(out,)`` of a linear map, quantised to 8 bits per weight."""

    def __init__(self, weight: Tensor, bias: Tensor | None):
        rows = weight.t()
        scales = (rows.abs().amax(dim=1) / LARGEST).clamp_(min=1e-30).bfloat16()
        # A scale may be rounded down, so that the largest weight exceeds the range.
        quantised = (rows / scales[:, None].float()).round_().clamp_(-LARGEST, LARGEST).to(torch.int8)
        self.padding = -rows.size(1) % BLOCK
        self.weight, self.scales, self.bias = F.pad(quantised, (0, self.padding)).contiguous(), scales, bias

    def __call__(self, row: Tensor) -> Tensor:
        """Map a row ``(1, in)`` → ``(1, out)``, in the row's precision."""
        if self.padding:
            row = F.pad(row, (0, self.padding))
        product = torch._weight_int8pack_mm(row.bfloat16(), self.weight, self.scales).to(row.dtype)
        return product if self.bias is None else product.add_(self.bias)
