"""The option `--device`."""

import click
import torch


def usable_device(name: str) -> str:
    """Return `name` if it is a torch device of this machine. Raises click.BadParameter otherwise."""
    try:
        kind = torch.device(name).type
    except RuntimeError:
        raise click.BadParameter(f"must be cpu, cuda, cuda:1 …, got {name}", param_hint="--device") from None
    if kind == "cuda" and not torch.cuda.is_available():
        raise click.BadParameter(f"this machine has no CUDA device, got {name}", param_hint="--device")
    return name
