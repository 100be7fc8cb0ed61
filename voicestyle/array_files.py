"""Read .npz files of named arrays without unpickling anything."""

import zipfile
import zlib
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib.npyio import NpzFile
from numpy.typing import NDArray

from voicestyle.errors import BundleError

# What numpy raises for files that are damaged or something else.
_DAMAGED = (EOFError, NotImplementedError, RuntimeError, ValueError, zipfile.BadZipFile, zlib.error)


def read_arrays(path: Path, names: Collection[str]) -> dict[str, NDArray[Any]]:
    """The arrays of a .npz file, which must be exactly `names`. Raises BundleError for another content, OSError."""
    try:
        with path.open("rb") as file:
            archive = np.load(file, allow_pickle=False)
            if not isinstance(archive, NpzFile):
                raise ValueError("a single array")
            arrays = dict(archive)
        if other := [name for name, array in arrays.items() if not isinstance(array, np.ndarray)]:
            raise ValueError(f"{other[0]} is none")
    except _DAMAGED as error:
        reason = str(error).split("\n")[0] or type(error).__name__
        raise BundleError(f"{path} must be a .npz file of plain arrays: {reason}") from error
    if sorted(arrays) != sorted(names):
        raise BundleError(f"{path} must have the arrays {', '.join(names)}, got {', '.join(sorted(arrays)) or 'none'}")
    return arrays
