"""The step as CUDA graphs, one for each size of the batch: thousands of kernels are launched as one.

A batch between two sizes is padded to the larger one: the rows behind the live items compute what nobody reads.
"""

from collections.abc import Callable
from functools import partial
from typing import TypeAlias

import torch
from torch import Tensor

Run: TypeAlias = Callable[[], None]
Capture: TypeAlias = Callable[[Run], Run]
Step: TypeAlias = Callable[[slice, Tensor], None]

WARM_UP_RUNS = 3  # in which modules are compiled and libraries choose their algorithms


class CudaCapture:
    """Makes a graph of what a function does on a CUDA device; the graphs share their memory.

    They may, for they are replayed one after the other and leave their results in tensors that they do not own.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._pool = torch.cuda.graph_pool_handle()

    def __call__(self, run: Run) -> Run:
        """Run a few times, then capture; returns what replays it. Raises RuntimeError for what no graph can hold."""
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
                torch.cuda.set_stream(current)  # a capture that fails leaves its own
        return graph.replay


class StepGraphs:
    """A step of any number of rows, 1 … capacity, by the graph of the next size: 1, 2, 4, 8 … capacity.

    Args:
        step: what takes a step with a slice of rows and their packed numbers [K, N]; it reads and writes nothing of
            the host. It runs here, so no row may be in use yet.
        packed: numbers [K, capacity] of some step, for the graphs to read theirs from.
        capture: makes a function repeatable.
    """

    def __init__(self, step: Step, packed: Tensor, capture: Capture) -> None:
        self._packed = packed
        capacity = packed.shape[1]
        self.sizes = [*(2**i for i in range((capacity - 1).bit_length())), capacity]
        # The largest first: the others find their memory in its.
        self._replay = {size: capture(partial(step, slice(0, size), packed[:, :size])) for size in reversed(self.sizes)}

    def step(self, packed: Tensor) -> None:
        """A step of the first N rows with their numbers [K, N]."""
        count = packed.shape[1]
        self._packed[:, :count].copy_(packed, non_blocking=True)
        self._replay[next(size for size in self.sizes if size >= count)]()
