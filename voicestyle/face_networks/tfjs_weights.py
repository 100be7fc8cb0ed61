"""Weights of TensorFlow.js models: a manifest of names, shapes and types, and one file with all values in its order."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from voicestyle.errors import CheckpointError


def read_weights(manifest: Sequence[Mapping[str, Any]], binary: bytes) -> dict[str, Tensor]:
    """The weights of a manifest by name, with TensorFlow's axes (convolutions [H, W, in, out]).

    manifest: the parsed "weightsManifest", whose groups are stored in `binary` one after the other. Values are little
    endian; quantised ones are restored to float32: value · scale + min. Raises CheckpointError if the two do not match.
    """
    weights: dict[str, Tensor] = {}
    offset = 0
    for entry in (entry for group in manifest for entry in group["weights"]):
        quantisation = entry.get("quantization")
        stored = np.dtype((quantisation or entry)["dtype"]).newbyteorder("<")
        shape = [int(size) for size in entry["shape"]]
        count = int(np.prod(shape, dtype=np.int64))
        if offset + count * stored.itemsize > len(binary):
            raise CheckpointError(f"the weights must have {entry['name']} {shape} at byte {offset} of {len(binary)}")
        values = np.frombuffer(binary, stored, count, offset).reshape(shape)
        offset += count * stored.itemsize
        if quantisation:
            values = (values * float(quantisation["scale"]) + float(quantisation["min"])).astype(np.float32)
        weights[entry["name"]] = torch.from_numpy(values.astype(values.dtype.newbyteorder("=")))
    if offset != len(binary):
        raise CheckpointError(f"the weights must have {offset} bytes, as their manifest says, got {len(binary)}")
    return weights


def to_convolution(filters: Tensor) -> Tensor:
    """Filters [H, W, in, out] of a convolution in PyTorch's order [out, in, H, W]."""
    return filters.permute(3, 2, 0, 1).contiguous()


def to_depthwise(filters: Tensor) -> Tensor:
    """Filters [H, W, C, 1] of a depthwise convolution in PyTorch's order [C, 1, H, W]."""
    return filters.permute(2, 3, 0, 1).contiguous()
