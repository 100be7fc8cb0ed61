"""The dtype of the networks' convolutions: float32, or bfloat16 on devices with native support.

Latents, styles, demodulation, images, embeddings, the loss and the optimiser stay in float32, so inputs and outputs of
the networks are always float32.
"""

from typing import Final

import torch
from torch import nn

AUTO: Final = "auto"
DTYPES: Final = {"float32": torch.float32, "bfloat16": torch.bfloat16}
CHOICES: Final = (AUTO, *DTYPES)
NATIVE_BFLOAT16: Final = ("avx512_bf16", "amx_bf16")  # torch's names of CPU capabilities
NATIVE_BFLOAT16_CUDA: Final = (8, 0)  # compute capability of Ampere


def choose_dtype(choice: str, device: torch.device | str) -> torch.dtype:
    """Return the dtype for one of `CHOICES`; `auto` is bfloat16 on devices with native support, else float32.

    `auto` depends only on hardware capabilities, not on a measurement, so that replicas on equal machines generate
    equal faces. Raises ValueError for another choice.
    """
    if choice not in CHOICES:
        raise ValueError(f"dtype must be one of {', '.join(CHOICES)}, got {choice!r}")
    if choice != AUTO:
        return DTYPES[choice]
    if torch.device(device).type == "cuda":
        native = torch.cuda.get_device_capability(device) >= NATIVE_BFLOAT16_CUDA
    else:
        capabilities = torch.cpu.get_capabilities()
        native = any(capabilities.get(name, False) for name in NATIVE_BFLOAT16)
    return torch.bfloat16 if native else torch.float32


def adapt_convolutions_(module: nn.Module, dtype: torch.dtype) -> None:
    """Convert the convolutions of a module (4-D tensors and their biases) to `dtype` and channels last, in place.

    Channels last also applies to float32 and to all activations: tensor cores of GPUs need it, and on CPUs pointwise
    and depthwise convolutions take two thirds of the time.
    """
    for part in module.modules():
        own = [*part.parameters(recurse=False), *part.buffers(recurse=False)]
        if any(tensor.dim() == 4 for tensor in own):
            for tensor in own:
                if tensor.dim() == 4:
                    tensor.data = tensor.data.to(dtype, memory_format=torch.channels_last)
                elif tensor.dim() == 1:
                    tensor.data = tensor.data.to(dtype)
