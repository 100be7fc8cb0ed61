"""Settings of torch for a device, before anything else uses it."""

import os
from typing import Final

import torch
from torch.cuda import DeferredCudaCallError

from voicestyle.devices.choice import DeviceError
from voicestyle.devices.machine import Machine, first_sentence

WORKSPACE: Final = "CUBLAS_WORKSPACE_CONFIG"
IEEE: Final = "ieee"  # float32 as it is: torch rounds the inputs of convolutions to TensorFloat-32 otherwise


def prepare_device(device: torch.device | str) -> None:
    """Make a GPU the current device, set up its arithmetic and compute on it once.

    On a CPU, use all cores of this process unless the environment says how many.

    Raises DeviceError with what was found if the GPU cannot compute.
    """
    device = torch.device(device)
    if device.type != "cuda":
        if "OMP_NUM_THREADS" not in os.environ:
            torch.set_num_threads(len(os.sched_getaffinity(0)))
        return
    os.environ.setdefault(WORKSPACE, ":4096:8")  # read at the first CUDA call
    try:
        # First of all: any other call would create a context on GPU 0, which costs some of its memory.
        torch.cuda.set_device(device.index or 0)
        _set_arithmetic()
        _compute(device)
    except (RuntimeError, DeferredCudaCallError) as error:  # of CUDA, a full GPU too
        findings = Machine().findings(first_sentence(error))
        raise DeviceError(f"{device} must be able to compute, and it failed: {findings}") from error


def _set_arithmetic() -> None:
    """Let float32 be float32, and the same input give the same bits again.

    Operators are chosen for determinism where they have such a form. For one that has none, torch warns in its first
    call, which is in the warm-up, and names it: it shows in the log of the start, and no request fails for it.
    """
    torch.backends.cuda.matmul.fp32_precision = IEEE
    torch.backends.cudnn.conv.fp32_precision = IEEE  # pyright: ignore[reportAttributeAccessIssue]
    torch.backends.cudnn.rnn.fp32_precision = IEEE  # pyright: ignore[reportAttributeAccessIssue]
    torch.backends.cudnn.deterministic = True
    torch.backends.cudnn.benchmark = False  # it would choose by time, hence differently in each process
    torch.use_deterministic_algorithms(True, warn_only=True)
    # Otherwise this mode also fills each new tensor with NaN, one more kernel each. Nothing here reads such memory.
    torch.utils.deterministic.fill_uninitialized_memory = False  # pyright: ignore[reportAttributeAccessIssue]


def _compute(device: torch.device) -> None:
    """A product of matrices: its kernels are in this build for this GPU, cuBLAS loads, and there is memory."""
    ones = torch.ones(16, 16, device=device)
    total = float((ones @ ones).sum())
    if total != 16**3:
        raise RuntimeError(f"a product of matrices of ones must sum to {16**3}, got {total}")
