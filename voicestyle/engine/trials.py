"""Trial steps on a device, to choose the capacity of a batch: their time, and the memory that they need."""

import gc
from collections.abc import Callable
from statistics import median
from time import perf_counter
from typing import Final, Protocol

import torch

from voicestyle.devices import is_out_of_memory
from voicestyle.engine.capacity import Choice, Trial, choose_capacity
from voicestyle.engine.engine import Engine

UNTIMED_STEPS: Final = 3  # modules are compiled and libraries choose their algorithms in the first ones
TIMED_STEPS: Final = 7


class Meter(Protocol):
    """Clock and memory of a device."""

    def seconds(self) -> float:
        """The time, once the device has done all of its work."""
        ...

    def begin(self) -> None:
        """Free what nothing refers to, and begin to watch the memory."""
        ...

    def free(self) -> int:
        """Bytes that are free."""
        ...

    def peak(self) -> int:
        """Bytes that were taken since `begin`, at the peak."""
        ...


class CudaMeter:
    """The meter of a CUDA device. Memory is that of the whole device, with what libraries and graphs take."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._free = 0

    def seconds(self) -> float:
        """The time, once the device has done all of its work."""
        torch.cuda.synchronize(self._device)
        return perf_counter()

    def begin(self) -> None:
        """Free what nothing refers to, and begin to watch the memory."""
        gc.collect()  # an engine and its graphs refer to each other
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(self._device)
        self._free = self.free()

    def free(self) -> int:
        """Bytes that are free."""
        return torch.cuda.mem_get_info(self._device)[0]

    def peak(self) -> int:
        """Bytes that were taken since `begin`, at the peak."""
        # PyTorch gives memory back before a capture, so the peak can lie before now.
        given_back = torch.cuda.max_memory_reserved(self._device) - torch.cuda.memory_reserved(self._device)
        return max(0, self._free - self.free()) + given_back


def meter_of(device: torch.device) -> Meter | None:
    """The meter of a GPU; None for another device, on which nothing is measured."""
    return CudaMeter(device) if device.type == "cuda" else None


def measure_capacity(
    full_engine: Callable[[int], Engine], largest_request: Callable[[], object], meter: Meter, seconds: float
) -> Choice:
    """Choose the capacity of a batch by trial steps; see `choose_capacity`.

    Args:
        full_engine: makes an engine of a capacity that is full of items, none of which ends within the trial.
        largest_request: does the work before and after the steps, for the request that needs the most memory.
        meter: of the device.
        seconds: the time of an iteration.

    Raises RuntimeError if the memory is too small for one item, and what the two functions raise.
    """
    largest_request()  # the first one also loads kernels and libraries, which stay
    meter.begin()
    largest_request()
    reserve = meter.peak()
    meter.begin()
    free = meter.free()
    choice = choose_capacity(lambda size: _try(full_engine, size, meter), seconds=seconds, free=free, reserve=reserve)
    meter.begin()  # frees the last trial
    return choice


def _try(full_engine: Callable[[int], Engine], size: int, meter: Meter) -> Trial | None:
    """Step a full engine; None if the device ran out of memory."""
    meter.begin()
    try:
        return _step(full_engine(size), meter)
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        return None


def _step(engine: Engine, meter: Meter) -> Trial:
    seconds: list[float] = []
    for _ in range(min(UNTIMED_STEPS + TIMED_STEPS, engine.max_steps)):
        began = meter.seconds()
        engine.step()
        seconds.append(meter.seconds() - began)
    return Trial(median(seconds[UNTIMED_STEPS:] or seconds[-1:]), meter.peak())
