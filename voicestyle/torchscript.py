"""Compile, save and load networks. All use of TorchScript, which torch 2.13 deprecates, is in this module.

A file contains the scripted module in float32. Loading converts it to the requested dtype and then freezes it, because
the dtype of a frozen module can no longer change. Freezing keeps gradients with respect to the inputs exact, which
`optimize_for_inference` does not.

Loading also forbids that TorchScript fuses operators into kernels of its own. Only CUDA builds do so by default; they
compile again for new shapes, such as audio of another length, and have known failures with frozen modules. Without
fusion a module runs the same operators on every device. It is forbidden for each device, and the tensor-expression
fuser stays enabled: without it, the executor specialises modules to the shapes of their first inputs, also on a CPU.
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
    """Script a module in evaluation mode and write it to a file. Raises ValueError for a module in training mode."""
    if module.training:
        raise ValueError("the module must be in evaluation mode: call .eval() first")
    with _quiet():
        torch.jit.save(torch.jit.script(module), str(path))


def load(
    path: Path, device: torch.device | str, dtype: torch.dtype = torch.float32, keep: Sequence[str] = ()
) -> CompiledModule:
    """Load a module to a device, convert its convolutions to `dtype` and freeze it.

    keep: names of attributes and methods to preserve besides `forward`. Raises RuntimeError for an invalid file.
    """
    torch._C._jit_override_can_fuse_on_cpu(False)  # pyright: ignore[reportPrivateUsage]
    torch._C._jit_override_can_fuse_on_gpu(False)  # pyright: ignore[reportPrivateUsage]
    with _quiet():
        module = torch.jit.load(str(path), map_location=device)
        adapt_convolutions_(module, dtype)
        return torch.jit.freeze(module.eval(), preserved_attrs=list(keep))
