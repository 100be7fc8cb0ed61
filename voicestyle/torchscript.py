"""The compiled form of a module. The only module that knows it is TorchScript, which torch 2.13 deprecates.

A file holds the scripted module in float32; it is narrowed and frozen when it is loaded, for a frozen module's weights
are constants that no longer change their dtype. Frozen modules keep exact gradients with respect to their inputs
(`optimize_for_inference` does not).
"""

import warnings
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeAlias

import torch
from torch import nn

from voicestyle.precision import adapt_convolutions_

CompiledModule: TypeAlias = torch.jit.ScriptModule


@contextmanager
def _quiet() -> Generator[None]:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="`torch.jit")
        yield


def save(module: nn.Module, path: Path) -> None:
    """Script a module in evaluation mode and write it for `load`."""
    if module.training:
        raise ValueError("a module is compiled in evaluation mode: call .eval() first")
    with _quiet():
        torch.jit.save(torch.jit.script(module), str(path))


def load(
    path: Path, device: torch.device | str, dtype: torch.dtype = torch.float32, keep: Sequence[str] = ()
) -> CompiledModule:
    """Read a module onto a device and freeze it, its convolutions in `dtype`; `keep` names what stays beside `forward`.

    Raises RuntimeError for a file that is not one.
    """
    with _quiet():
        module = torch.jit.load(str(path), map_location=device)
        adapt_convolutions_(module, dtype)
        return torch.jit.freeze(module.eval(), preserved_attrs=list(keep))
