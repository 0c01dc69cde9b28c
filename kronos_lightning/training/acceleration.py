"""What makes the processor or the compiler faster for a training, and says so where it cannot."""

import ctypes
import logging
import sys

import torch
from torch import nn

from kronos_lightning.errors import KronosError

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # of glibc's mallopt

log = logging.getLogger(__name__)


class CompilerError(KronosError, RuntimeError):
    """torch.compile does not work here."""


def keep_freed_memory() -> None:
    """Let this process reuse the memory of freed tensors.

    By default glibc gives every large block back to the system, and each activation of each step is mapped and zeroed
    anew by the kernel. Without glibc nothing happens.
    """
    if sys.platform.startswith("linux"):
        mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
        if mallopt is not None:
            mallopt(M_MMAP_MAX, 0)
            mallopt(M_TRIM_THRESHOLD, -1)


def warn_of_slow_precision(device: torch.device, precision: str) -> None:
    """Say it where half precision would only cost time: processors without instructions for it emulate it."""
    if device.type == "cpu" and "bf16" in precision and not has_bfloat16():
        log.warning("This processor has no bfloat16 instructions: trainer.precision=32-true is many times faster here")


def has_bfloat16() -> bool:
    """Whether the processor multiplies bfloat16 matrices itself."""
    able = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    return any(able.get(name, False) for name in ("avx512_bf16", "amx_bf16", "bf16"))  # the last on ARM


def compile_networks(device: torch.device, *networks: nn.Module) -> None:
    """Compile networks in place: their names, weights and checkpoints stay as they are.

    Raises:
        CompilerError: the device's compiler is missing or does not work.
    """
    try:
        torch.compile(lambda x: x.sin() + 1)(torch.zeros(8, device=device))
    except Exception as error:
        reason = str(error).strip().splitlines()[0][:200]
        needs = "a C++ compiler such as g++" if device.type == "cpu" else "Triton and a C compiler"
        raise CompilerError(f"compile=true does not work here (it needs {needs}): {reason}") from error
    for network in networks:
        network.compile()
