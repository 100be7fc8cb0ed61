"""The option `--device`."""

import click
import torch


def usable_device(name: str, *, here: bool = True) -> str:
    """Return `name` if it is a CPU or CUDA device, and if `here`, one of this machine. Raises click.BadParameter."""
    try:
        kind = torch.device(name).type
    except RuntimeError:
        kind = None
    if kind not in ("cpu", "cuda"):
        raise click.BadParameter(f"must be cpu, cuda, cuda:1 …, got {name}", param_hint="--device")
    if here and kind == "cuda" and not torch.cuda.is_available():
        raise click.BadParameter(f"this machine has no CUDA device, got {name}", param_hint="--device")
    return name
