"""Which device a service runs on: the one that was asked for, or an error that says what was found instead."""

from typing import Final

import torch

AUTO: Final = "auto"
DEVICES: Final = (AUTO, "cpu", "cuda")  # what can be asked for


class DeviceError(RuntimeError):
    """The device that was asked for cannot be used; the message is one line that says what was found."""


def choose_device(asked: str, gpu: int | str | None) -> str:
    """Return "cpu" or "cuda:N". asked: one of `DEVICES`. gpu: the number that TorchServe gave this worker, if any."""
    if asked == "cpu" or gpu is None or not torch.cuda.is_available():
        return "cpu"
    return f"cuda:{gpu}"
