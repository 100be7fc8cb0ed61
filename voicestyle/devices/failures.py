"""Which errors mean that the device is out of memory, and which that it can do nothing more in this process.

A CUDA context never recovers from an error of a kernel: every later call fails too, whatever it does, and a kernel's
error may be reported by another call than the one that launched it. Lack of memory leaves the context as it was.

The type of an error tells little. Only errors of PyTorch itself have one (`torch.AcceleratorError`,
`torch.OutOfMemoryError`), those of cuDNN and cuBLAS are plain RuntimeErrors, and the interpreter of TorchScript raises
every error of an operator as a RuntimeError whose text ends in that of the original. So the text decides too.
"""

import re
from collections.abc import Callable, Iterator
from functools import wraps
from typing import Final, ParamSpec, TypeVar

import torch

P = ParamSpec("P")
T = TypeVar("T")

_OUT_OF_MEMORY: Final = re.compile(
    # PyTorch's allocator; the CUDA runtime and driver; cuBLAS and cuDNN 8; cuDNN 9.
    r"CUDA out of memory|CUDA (driver )?error: out of memory|_STATUS_ALLOC_FAILED|DEVICE_ALLOCATION_FAILED"
)
# These libraries reject a call with such a status before anything runs on the device.
_REJECTED_CALL: Final = re.compile(r"CU(DNN|BLAS|SPARSE|SOLVER)_STATUS_(NOT_SUPPORTED|BAD_PARAM|INVALID_VALUE)")
_FAILED: Final = re.compile(
    r"CUDA (driver )?error|cuDNN error|cuFFT error|CU(DNN|BLAS|SPARSE|SOLVER)_STATUS_|device-side assert"
)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether the error, or one that led to it, is that the device has too little free memory."""
    return any(_is_memory(each) for each in _chain(error))


def device_failed(
    error: BaseException, device: torch.device | str, probe: Callable[[torch.device], None] | None = None
) -> bool:
    """Whether the device can do nothing more in this process, so that the process has to be replaced.

    Never on a CPU, whatever the text of an error says. On a GPU, an error that is neither an accelerator's nor about
    memory is unexplained, and the device is asked: `probe` uses it and raises what comes of that, by default with a
    tiny operation.
    """
    device = torch.device(device)
    if device.type != "cuda":
        return False
    chain = list(_chain(error))
    if any(_is_failure(each) for each in chain):
        return True
    if any(_is_memory(each) for each in chain):
        return False
    try:
        (probe or _use)(device)
    except Exception as found:
        return not is_out_of_memory(found)
    return False


def free_memory() -> None:
    """Return the memory that PyTorch's allocator keeps for later use to the GPU; without one, do nothing."""
    torch.cuda.empty_cache()


def retry_out_of_memory(function: Callable[P, T]) -> Callable[P, T]:
    """Repeat a call once that failed because the device was out of memory, after `free_memory`.

    For functions that change nothing when they raise.
    """

    @wraps(function)
    def called(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return function(*args, **kwargs)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
        # Not inside the handler: its error holds the frames of the failed call, and these hold their tensors.
        free_memory()
        return function(*args, **kwargs)

    return called


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """The error and all that led to it."""
    seen: set[int] = set()
    pending = [error]
    while pending:
        each = pending.pop()
        if each is not None and id(each) not in seen:
            seen.add(id(each))
            yield each
            pending += [each.__cause__, each.__context__]


def _is_memory(error: BaseException) -> bool:
    return isinstance(error, torch.OutOfMemoryError) or _OUT_OF_MEMORY.search(str(error)) is not None


def _is_failure(error: BaseException) -> bool:
    text = str(error)
    if _is_memory(error) or _REJECTED_CALL.search(text):
        return False
    return isinstance(error, torch.AcceleratorError) or _FAILED.search(text) is not None


def _use(device: torch.device) -> None:
    """Run a tiny operation and wait for everything that was launched before."""
    torch.zeros(1, device=device).add_(1)
    torch.cuda.synchronize(device)
