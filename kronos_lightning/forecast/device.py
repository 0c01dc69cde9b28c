"""Choice of the device that computes forecasts, and the memory that they take there."""

import ctypes
import sys

import torch

from kronos_lightning.errors import KronosError

WORKING_MEMORY = 2**30  # bytes
M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # parameters of glibc's mallopt
GPU_PARTS = 8  # a GPU of more than 8 GiB gives this part of its memory instead


class DeviceError(KronosError, RuntimeError):
    """Error if a device is not available."""


def best_device(name: str = "auto") -> torch.device:
    """Return the device of that name; auto selects the best available device.

    Raises:
        DeviceError: this machine has no such device.
    """
    if name == "auto":
        return torch.accelerator.current_accelerator() or torch.device("cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise DeviceError(f"device={name}: not available ({str(error).splitlines()[0]}); use auto or cpu") from error
    return device


def working_memory(device: torch.device) -> int:
    """Return the bytes that a forecast may take at a time; what else uses the device does not change them.

    On a GPU the steps of a small group take as long as their launches, so large groups are faster.
    """
    if device.type != "cuda":
        return WORKING_MEMORY
    return max(WORKING_MEMORY, int(torch.cuda.get_device_properties(device).total_memory) // GPU_PARTS)


def keep_freed_memory() -> None:
    """Let this process reuse the memory of freed tensors.

    By default glibc returns every large block to the system, so the kernel maps and zeroes the memory of each
    activation again in each training step and forecast. Without glibc this function does nothing.
    """
    if sys.platform.startswith("linux"):
        mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
        if mallopt is not None:
            mallopt(M_MMAP_MAX, 0)
            mallopt(M_TRIM_THRESHOLD, -1)
