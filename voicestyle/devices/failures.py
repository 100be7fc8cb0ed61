"""Which errors mean that the device is out of memory, and which that it can do nothing more in this process."""

import torch


def is_out_of_memory(error: BaseException) -> bool:
    """Whether the device had too little free memory, which leaves it usable."""
    return isinstance(error, torch.OutOfMemoryError)


def device_failed(error: BaseException, device: torch.device | str) -> bool:
    """Whether the device can do nothing more in this process, so that the process has to be replaced."""
    return isinstance(error, torch.AcceleratorError) and torch.device(device).type != "cpu"
