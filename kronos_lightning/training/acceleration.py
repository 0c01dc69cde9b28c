"""CPU and compiler settings that speed up a training, with a message where they do not work."""

import logging

import torch
from torch import nn

from kronos_lightning.errors import KronosError

log = logging.getLogger(__name__)


class CompilerError(KronosError, RuntimeError):
    """Error if torch.compile does not work on this machine."""


def warn_of_slow_precision(device: torch.device, precision: str) -> None:
    """Warn if bf16 precision would be slower: CPUs without bfloat16 instructions emulate it."""
    if device.type == "cpu" and "bf16" in precision and not has_bfloat16():
        log.warning("This CPU has no bfloat16 instructions; trainer.precision=32-true is many times faster")


def has_bfloat16() -> bool:
    """Return True if the CPU has instructions for bfloat16 matrix products."""
    able = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    return any(able.get(name, False) for name in ("avx512_bf16", "amx_bf16", "bf16"))  # "bf16" on ARM


def compile_networks(device: torch.device, *networks: nn.Module) -> None:
    """Compile networks in place; names, weights and checkpoints stay the same.

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
