"""The option `--device`."""

import click
import torch

from voicestyle.devices import DeviceError, prepare_device, usable_gpu

HINT = "--device"


def usable_device(name: str, *, here: bool = True) -> str:
    """Return `name` if it is a CPU or CUDA device, and if `here`, one of this machine. Raises click.BadParameter."""
    try:
        device = torch.device(name)
    except RuntimeError:
        device = None
    if device is None or device.type not in ("cpu", "cuda"):
        raise click.BadParameter(f"must be cpu, cuda, cuda:1 …, got {name}", param_hint=HINT)
    if here and device.type == "cuda":
        try:
            usable_gpu(device.index or 0)
        except DeviceError as error:
            raise click.BadParameter(str(error), param_hint=HINT) from error
    return name


def prepared_device(name: str) -> str:
    """`usable_device`, and a GPU computes as in the service. Raises click.BadParameter."""
    if torch.device(usable_device(name)).type == "cuda":
        try:
            prepare_device(name)
        except DeviceError as error:
            raise click.BadParameter(str(error), param_hint=HINT) from error
    return name
