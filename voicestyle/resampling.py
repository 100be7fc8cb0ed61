"""Images at another size, with gradients that are deterministic on every device.

On CUDA, the gradients of adaptive average pooling and of interpolation are sums whose order changes from run to run.
Both resample each axis by a fixed linear map, so off the CPU they are two matrix products here.
"""

from collections.abc import Callable
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor


def average_pool(images: Tensor, size: int) -> Tensor:
    """Images [N, C, S, S] average-pooled to [N, C, size, size], size ≤ S."""
    factor, rest = divmod(images.shape[-1], size)
    if not rest and factor.bit_count() == 1:  # for powers of two, the bits are those of adaptive pooling
        return F.avg_pool2d(images, factor)
    if images.is_cpu:
        return F.adaptive_avg_pool2d(images, size)
    return apply_to_axes(_on_device(_pooling_matrix, images.shape[-1], size, images.device, images.dtype), images)


def resize(images: Tensor, size: int) -> Tensor:
    """Images [N, C, S, S] to [N, C, size, size]: bilinear, with low-pass filtering where that makes them smaller."""
    if images.is_cpu:
        return F.interpolate(images, (size, size), mode="bilinear", antialias=True, align_corners=False)
    return apply_to_axes(_on_device(resize_matrix, images.shape[-1], size, images.device, images.dtype), images)


def resize_matrix(size: int, wanted: int) -> Tensor:
    """The linear map [wanted, size] of `resize` for one axis, float32 on the CPU."""
    return F.interpolate(torch.eye(size)[None, None], (wanted, size), mode="bilinear", antialias=True)[0, 0]


def _pooling_matrix(size: int, wanted: int) -> Tensor:
    """The linear map [wanted, size] of adaptive average pooling for one axis, float32 on the CPU."""
    return F.adaptive_avg_pool2d(torch.eye(size)[None], (wanted, size))[0]


def apply_to_axes(matrix: Tensor, images: Tensor) -> Tensor:
    """A linear map [T, S] on both axes of images [N, C, S, S]. Returns [N, C, T, T]. Scriptable."""
    return matrix @ images @ matrix.t()


@cache  # without a limit: a CUDA graph reads the same memory in each replay
def _on_device(
    matrix: Callable[[int, int], Tensor], size: int, wanted: int, device: torch.device, dtype: torch.dtype
) -> Tensor:
    with torch.inference_mode(False):  # a tensor of inference mode could not be used with gradients later
        return matrix(size, wanted).to(device, dtype)
