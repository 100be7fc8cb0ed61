"""The compiled form of a module. The only module that knows it is TorchScript, which torch 2.13 deprecates.

Frozen modules keep exact gradients with respect to their inputs (`optimize_for_inference` does not) and have
batch normalisation folded into the convolutions before it.
"""

import warnings
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeAlias

import torch
from torch import nn

CompiledModule: TypeAlias = torch.jit.ScriptModule


@contextmanager
def _quiet() -> Generator[None]:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="`torch.jit")
        yield


def compile_module(module: nn.Module, keep: Sequence[str] = ()) -> CompiledModule:
    """The frozen, scripted form of a module in evaluation mode; `keep` names what stays beside `forward`."""
    if module.training:
        raise ValueError("a module is compiled in evaluation mode: call .eval() first")
    with _quiet():
        return torch.jit.freeze(torch.jit.script(module), preserved_attrs=list(keep))


def save(module: CompiledModule, path: Path) -> None:
    """Write a compiled module for `load`."""
    with _quiet():
        torch.jit.save(module, str(path))


def load(path: Path, device: torch.device | str) -> CompiledModule:
    """Read a compiled module onto a device. Raises RuntimeError for a file that is not one."""
    with _quiet():
        return torch.jit.load(str(path), map_location=device)
