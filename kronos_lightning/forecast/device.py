"""Choice of the device that computes forecasts, and the memory that a forecast may take there."""

import torch

from kronos_lightning.errors import KronosError

WORKING_MEMORY = 2**30  # bytes
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
