"""Read the weights of a TorchScript archive without executing its code.

An archive is a zip file. `data.pkl` holds the module tree as a pickle, in which tensors refer to the files `data/N` of
their values. `torch.jit.load` would compile and could run the archive's code; here, a restricted unpickler turns
modules into plain containers and knows no function but the one that describes a tensor.
"""

import math
import pickle
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any, NoReturn

import torch
from torch import Tensor

from voicestyle.errors import CheckpointError

DTYPES = {
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "FloatStorage": torch.float32,
    "DoubleStorage": torch.float64,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}


def is_torchscript(path: Path) -> bool:
    """Whether `path` is a zip file with TorchScript code. Raises OSError for a path that cannot be opened."""
    with path.open("rb") as file:
        try:
            with zipfile.ZipFile(file) as archive:
                return any("/code/" in name for name in archive.namelist())
        except zipfile.BadZipFile:
            return False


def read_torchscript_weights(path: Path) -> dict[str, Tensor]:
    """All tensors of an archive's module tree by their names, on the CPU. Raises CheckpointError, OSError."""
    with path.open("rb") as file:
        try:
            with zipfile.ZipFile(file) as archive:
                root = _Unpickler(archive).load()
        except Exception as error:  # damaged files raise many different exceptions
            reason = str(error).strip().split("\n")[0] or type(error).__name__
            raise CheckpointError(f"{path} must be a TorchScript archive of plain tensors: {reason}") from None
    weights: dict[str, Tensor] = {}
    pending: list[tuple[str, object]] = [("", root)]
    seen: set[int] = set()
    while pending:
        prefix, module = pending.pop()
        if isinstance(module, _Module) and id(module) not in seen:
            seen.add(id(module))
            for name, value in vars(module).items():
                if isinstance(value, Tensor):
                    weights[prefix + name] = value
                else:
                    pending.append((f"{prefix}{name}.", value))
    return weights


class _Module:
    """A module of the archive: its attributes, without methods."""


def _tensor(storage: Tensor, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_: object) -> Tensor:
    if math.prod(size) > storage.numel():  # a stride of zero could make a small file a huge tensor
        raise ValueError(f"a tensor must not be larger than its storage, got {list(size)} of {storage.numel()} values")
    return storage.as_strided(size, stride, offset).clone()


class _Unpickler(pickle.Unpickler):
    """Knows tensors, ordered dictionaries and modules; refuses everything else."""

    def __init__(self, archive: zipfile.ZipFile) -> None:
        names = [name for name in archive.namelist() if name.count("/") == 1 and name.endswith("/data.pkl")]
        if len(names) != 1:
            raise ValueError(f"it must contain one data.pkl, got {len(names)}")
        super().__init__(archive.open(names[0]))
        self._archive = archive
        self._folder = names[0].removesuffix(".pkl")
        self._storages: dict[str, Tensor] = {}

    def find_class(self, module: str, name: str, /) -> Any:
        if module.split(".")[0] == "__torch__":
            return _Module
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _tensor
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if module == "torch" and name in DTYPES:
            return DTYPES[name]
        if module == "torch.jit._pickle":
            return _plain_value
        raise pickle.UnpicklingError(f"{module}.{name} is not allowed")

    def persistent_load(self, pid: Any, /) -> Tensor:
        kind, dtype, key, _, _ = pid
        if kind != "storage" or not isinstance(dtype, torch.dtype):
            return _refuse(pid)
        if key not in self._storages:
            entry = self._archive.getinfo(f"{self._folder}/{key}")
            if entry.compress_type != zipfile.ZIP_STORED:
                raise ValueError(f"{entry.filename} must be stored uncompressed")
            self._storages[key] = torch.frombuffer(bytearray(self._archive.read(entry)), dtype=dtype)
        return self._storages[key]


def _plain_value(*values: object) -> object:
    """Lists and type tags, in which no weights are stored."""
    return values[0] if values else None


def _refuse(pid: object) -> NoReturn:
    raise pickle.UnpicklingError(f"a reference to {str(pid)[:80]} is not allowed")
