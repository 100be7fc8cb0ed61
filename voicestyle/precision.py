"""The dtype of the networks' convolutions: float32, or bfloat16 on devices that multiply clearly faster in it.

Latents, styles, demodulation, images, embeddings, the loss and the optimiser stay in float32, so inputs and outputs of
the networks are always float32.
"""

import logging
from collections.abc import Callable, Sequence
from functools import cache
from time import perf_counter
from typing import Final, TypeAlias

import torch
import torch.nn.functional as F
from torch import nn

log = logging.getLogger("voicestyle.precision")

AUTO: Final = "auto"
DTYPES: Final = {"float32": torch.float32, "bfloat16": torch.bfloat16}
CHOICES: Final = (AUTO, *DTYPES)

# Machines are far from it on either side: bfloat16 is 2 to 16 times as fast where it has instructions of full rate, and
# at most as fast as float32 elsewhere. So equal machines choose the same dtype, also beside other load.
CLEARLY_FASTER: Final = 1.3
ROUNDS: Final = 8
MAX_SECONDS: Final = 0.2  # no further round starts after this time: emulated bfloat16 can be a hundred times slower

Kernel: TypeAlias = Callable[[], object]
Kernels: TypeAlias = Callable[[torch.device, torch.dtype], Sequence[Kernel]]


def choose_dtype(
    choice: str, device: torch.device | str, measure: Callable[[torch.device], float] | None = None
) -> torch.dtype:
    """Return the dtype for one of `CHOICES`; `auto` is bfloat16 where it is at least 1.3 times as fast as float32.

    The flags of a processor do not decide, because some processors have instructions for bfloat16 that are slower than
    those for float32. measure: returns how many times as fast bfloat16 is on a device; by default `bfloat16_speedup`,
    once in a process. Call it after the settings of torch (threads, TF32) are made. Raises ValueError for another
    choice.
    """
    if choice not in CHOICES:
        raise ValueError(f"dtype must be one of {', '.join(CHOICES)}, got {choice!r}")
    if choice != AUTO:
        return DTYPES[choice]
    speedup = (measure or _speedup_here)(torch.device(device))
    return torch.bfloat16 if speedup >= CLEARLY_FASTER else torch.float32


@cache
def _speedup_here(device: torch.device) -> float:
    speedup = bfloat16_speedup(device)
    log.info("bfloat16 is %.2g times as fast as float32 here", speedup)
    return speedup


def network_kernels(device: torch.device, dtype: torch.dtype) -> list[Kernel]:
    """A matrix product and a 3×3 convolution in channels last, of the sizes of a generator's layers.

    The product stands for pointwise convolutions too, which are products in channels last. Depthwise ones take a small
    part of a step. The gradients to the images take the same time.
    """
    source = torch.Generator(device).manual_seed(0)  # not the global one

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=source, device=device).to(dtype)

    # About 1 ms each, in float32, of one core of a CPU and of a large GPU.
    rows, columns, channels, height, width = (
        (256, 512, 128, 16, 32) if device.type == "cpu" else (4096, 2048, 512, 128, 64)
    )
    left, right = draw(rows, columns), draw(columns, columns)
    image = draw(1, channels, height, width).contiguous(memory_format=torch.channels_last)
    weight = draw(channels, channels, 3, 3).contiguous(memory_format=torch.channels_last)
    return [lambda: torch.mm(left, right), lambda: F.conv2d(image, weight, padding=1)]


@torch.inference_mode()
def bfloat16_speedup(
    device: torch.device | str, kernels: Kernels = network_kernels, clock: Callable[[], float] | None = None
) -> float:
    """How many times as fast as in float32 the kernels are in bfloat16: the smallest of their ratios.

    The smallest, because one bundle consists of 3×3 convolutions and another of pointwise ones, and bfloat16 should
    make none slower. It is 0 where the device has no such kernel in bfloat16. The dtypes take turns, so that other load
    affects both, and the best of several rounds counts. On a CPU one thread computes: threads that wait for each other
    on a busy machine would be what is measured. It takes about 50 ms, and about a second where bfloat16 is emulated.
    clock: seconds, read when the device has finished its work.
    """
    device = torch.device(device)
    clock = clock or (lambda: _now(device))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return _smallest_ratio([kernels(device, dtype) for dtype in DTYPES.values()], clock)
    except (torch.OutOfMemoryError, torch.AcceleratorError):
        raise
    except RuntimeError as error:
        log.info("bfloat16 is not available on %s: %s", device, str(error).partition("\n")[0])
        return 0.0
    finally:
        torch.set_num_threads(threads)
        if device.type == "cuda":
            torch.cuda.empty_cache()


def _smallest_ratio(kernels: Sequence[Sequence[Kernel]], clock: Callable[[], float]) -> float:
    """Of pairs of kernels in two dtypes, the smallest ratio of the first one's seconds to the second one's."""

    def seconds(kernel: Kernel) -> float:
        began = clock()
        kernel()
        return clock() - began

    ratios: list[float] = []
    for pair in zip(*kernels, strict=True):
        for kernel in pair:
            kernel()  # the first call compiles
        rounds: list[list[float]] = []
        began = clock()
        while len(rounds) < ROUNDS and (not rounds or clock() - began < MAX_SECONDS):
            rounds.append([seconds(kernel) for kernel in pair])
        wide, narrow = map(min, zip(*rounds, strict=True))
        ratios.append(wide / narrow)
    return min(ratios)


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return perf_counter()


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
