"""What the networks compute in: float32, or bfloat16 where the device multiplies it natively.

Only what passes through convolutions is narrowed. Latents, styles, demodulation, images, embeddings, the loss and the
optimiser stay in float32, so a narrow network takes and gives what a wide one does.
"""

from typing import Final

import torch
from torch import nn

AUTO: Final = "auto"
DTYPES: Final = {"float32": torch.float32, "bfloat16": torch.bfloat16}
CHOICES: Final = (AUTO, *DTYPES)
NATIVE_BFLOAT16: Final = ("avx512_bf16", "amx_bf16")  # capabilities of a CPU, as torch names them

NATIVE_BFLOAT16_CUDA: Final = (8, 0)  # compute capability of Ampere


def choose_dtype(choice: str, device: torch.device | str) -> torch.dtype:
    """The dtype of a choice on a device; `auto` is bfloat16 where the hardware has it, else float32.

    It follows from the hardware alone, never from a measurement: two replicas on equal machines give one face.
    Raises ValueError for another choice.
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
    """Lay the convolutions of a module out for `dtype`, in place: every 4-D tensor and the biases beside it.

    They become channels last, in float32 too, and with them all that passes through: a GPU's tensor cores want it, and
    a CPU's pointwise and depthwise convolutions take two thirds of the time.
    """
    for part in module.modules():
        own = [*part.parameters(recurse=False), *part.buffers(recurse=False)]
        if any(tensor.dim() == 4 for tensor in own):
            for tensor in own:
                if tensor.dim() == 4:
                    tensor.data = tensor.data.to(dtype, memory_format=torch.channels_last)
                elif tensor.dim() == 1:
                    tensor.data = tensor.data.to(dtype)
