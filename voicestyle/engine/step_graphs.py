"""The step as CUDA graphs, so that thousands of kernels are launched at once.

A batched engine has a graph for each of some batch sizes. A batch between two sizes is padded to the larger one: the
padding rows are computed, and their results are ignored. A sequential engine has a graph of one item for each row.
"""

from collections.abc import Callable, Sequence
from functools import cache, partial
from typing import Protocol, TypeAlias

import torch
from torch import Tensor

from voicestyle.errors import CaptureError

Run: TypeAlias = Callable[[], None]
Capture: TypeAlias = Callable[[Run], Run]
Step: TypeAlias = Callable[[slice, Tensor], None]

# Modules are compiled and libraries choose their algorithms in the first runs: three, and a margin of two.
WARM_UP_RUNS = 5


class CudaCapture:
    """Captures what a function does on a CUDA device as a graph. All captures use one stream and one pool of memory.

    The graphs of a pool may overwrite each other's memory. This is safe because they are replayed one after the other
    and write their results to tensors outside the pool. The pool is that of this object, the stream that of the device.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream = capture_stream(device)
        with torch.cuda.device(device):
            self._pool = torch.cuda.graph_pool_handle()

    def __call__(self, run: Run) -> Run:
        """Run a few times, capture, replay once, and return the replay, which runs on the stream that is current then.

        Raises CaptureError for any failure, such as too little memory; the current stream is restored.
        """
        with torch.cuda.device(self._device):
            current = torch.cuda.current_stream()
            try:
                self._stream.wait_stream(current)
                with torch.cuda.stream(self._stream):
                    for _ in range(WARM_UP_RUNS):
                        run()
                graph = torch.cuda.CUDAGraph()
                with torch.cuda.graph(graph, pool=self._pool, stream=self._stream):
                    run()
                current.wait_stream(self._stream)  # a replay comes after the runs above
                graph.replay()  # the first one takes memory, too
                current.synchronize()
            except Exception as error:
                raise CaptureError(f"a step could not be captured as a CUDA graph: {_first_cause(error)}") from error
            finally:
                torch.cuda.set_stream(current)  # after a failed capture, that of the capture would stay
        return graph.replay


@cache
def capture_stream(device: torch.device) -> torch.cuda.Stream:
    """The stream of all captures on a device in this process.

    torch keeps a workspace of cuBLAS for each thread and stream, for good: with `voicestyle.devices.prepare_device`,
    32 MiB for the steps' forward passes and as much for the backward ones. Trials capture anew for each batch size.
    """
    with torch.cuda.device(device):
        return torch.cuda.Stream()


def _first_cause(error: BaseException) -> str:
    """The first line of the error that came first: ending an invalid capture raises another one."""
    while error.__context__ is not None:
        error = error.__context__
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


class StepGraphs:
    """Steps the first N rows of a batch, with the graph of the next size.

    Args:
        step: takes a step with a slice of rows and their packed numbers [K, N], and uses the device alone. It runs in
            this constructor, with numbers that are 0, so no row may be in use yet.
        packed: a buffer [K, capacity] from which the graphs read the numbers of a step.
        capture: captures a function and returns its replay.
        sizes: the batch sizes, ascending, each 1 … capacity; by default 1, 2, 4 … capacity.
    """

    def __init__(self, step: Step, packed: Tensor, capture: Capture, sizes: Sequence[int] | None = None) -> None:
        self._packed = packed
        capacity = packed.shape[1]
        self.sizes = [*(2**i for i in range((capacity - 1).bit_length())), capacity] if sizes is None else list(sizes)
        if not self.sizes or self.sizes != sorted(set(self.sizes).intersection(range(1, capacity + 1))):
            raise ValueError(f"sizes must be ascending numbers of 1 to {capacity}, got {self.sizes}")
        # The largest first, so that the others can reuse its memory.
        self._replay = {size: capture(partial(step, slice(0, size), packed[:, :size])) for size in reversed(self.sizes)}

    def step(self, rows: slice, packed: Tensor) -> None:
        """Take a step with rows 0 … N − 1. packed: their numbers [K, N]. Raises ValueError for too large a batch."""
        count = rows.stop
        if count > self.sizes[-1]:
            raise ValueError(f"the captured sizes are {self.sizes}, got a batch of {count}")
        self._packed[:, :count].copy_(packed, non_blocking=True)
        self._replay[next(size for size in self.sizes if size >= count)]()


class RowGraphs:
    """Steps one row at a time, each with a graph of its own; the arguments are those of `StepGraphs`."""

    def __init__(self, step: Step, packed: Tensor, capture: Capture) -> None:
        self._packed = packed
        rows = [slice(row, row + 1) for row in range(packed.shape[1])]
        self._replay = [capture(partial(step, row, packed[:, row])) for row in rows]

    def step(self, rows: slice, packed: Tensor) -> None:
        """Take a step with one row. packed: its numbers [K, 1]."""
        self._packed[:, rows].copy_(packed, non_blocking=True)
        self._replay[rows.start]()


class Graphs(Protocol):
    """A captured step, batched or sequential."""

    def step(self, rows: slice, packed: Tensor) -> None:
        """Take a step with a slice of rows. packed: their numbers [K, N]."""
        ...
