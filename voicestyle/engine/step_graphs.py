"""The step as CUDA graphs, one for each batch size, so that thousands of kernels are launched at once.

A batch between two sizes is padded to the larger one: the padding rows are computed, and their results are ignored.
"""

from collections.abc import Callable
from functools import partial
from typing import TypeAlias

import torch
from torch import Tensor

Run: TypeAlias = Callable[[], None]
Capture: TypeAlias = Callable[[Run], Run]
Step: TypeAlias = Callable[[slice, Tensor], None]

WARM_UP_RUNS = 3  # modules are compiled and libraries choose their algorithms in the first runs


class CudaCapture:
    """Captures what a function does on a CUDA device as a graph; all graphs share their memory.

    This is safe because they are replayed one after the other and write their results to tensors outside that memory.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._pool = torch.cuda.graph_pool_handle()

    def __call__(self, run: Run) -> Run:
        """Run a few times, capture, and return the replay. Raises RuntimeError for work that a graph cannot contain."""
        with torch.cuda.device(self._device):
            current, own = torch.cuda.current_stream(), torch.cuda.Stream()
            own.wait_stream(current)
            with torch.cuda.stream(own):
                for _ in range(WARM_UP_RUNS):
                    run()
            current.wait_stream(own)
            graph = torch.cuda.CUDAGraph()
            try:
                with torch.cuda.graph(graph, pool=self._pool, stream=own):
                    run()
            finally:
                torch.cuda.set_stream(current)  # after a failed capture, its own is current
        return graph.replay


class StepGraphs:
    """Steps any number of rows, 1 … capacity, with the graph of the next size: 1, 2, 4, 8 … capacity.

    Args:
        step: takes a step with a slice of rows and their packed numbers [K, N], and uses the device alone. It runs in
            this constructor, so no row may be in use yet.
        packed: a buffer [K, capacity] from which the graphs read the numbers of a step.
        capture: captures a function and returns its replay.
    """

    def __init__(self, step: Step, packed: Tensor, capture: Capture) -> None:
        self._packed = packed
        capacity = packed.shape[1]
        self.sizes = [*(2**i for i in range((capacity - 1).bit_length())), capacity]
        # The largest first, so that the others can reuse its memory.
        self._replay = {size: capture(partial(step, slice(0, size), packed[:, :size])) for size in reversed(self.sizes)}

    def step(self, packed: Tensor) -> None:
        """Take a step with the first N rows. packed: their numbers [K, N]."""
        count = packed.shape[1]
        self._packed[:, :count].copy_(packed, non_blocking=True)
        self._replay[next(size for size in self.sizes if size >= count)]()
