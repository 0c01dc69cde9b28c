"""Choice of the device that computes forecasts."""

import torch

from kronos_lightning.errors import KronosError


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
