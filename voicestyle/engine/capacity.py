"""How many items a device should step at once, from trial steps of a full batch of each size.

Arithmetic alone: `voicestyle.engine.trials` makes the trials on a device.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

SIZES: Final = (1, 2, 4, 8, 16, 32)
CPU_CAPACITY: Final = 8  # where items take their steps one after the other, so that no batch makes a face cheaper
# How many times the faces a second a doubling must give. A device that is busy already takes twice as long for twice
# the items: each face would come later, and none sooner. 5 % is more than the spread of the timings.
GAIN: Final = 1.05
MEMORY_SHARE: Final = 0.9  # of the free memory; allocators cannot use all of it


@dataclass(frozen=True)
class Trial:
    """What a full batch of one size took: seconds of a step, and bytes of the device's memory at the peak."""

    seconds: float
    memory: int


@dataclass(frozen=True)
class Choice:
    """The chosen capacity, the seconds of a step by batch size, as measured, and why it is not larger."""

    capacity: int
    step_seconds: Mapping[int, float]
    reason: str

    def as_text(self) -> str:
        """One line for the log."""
        measured = ", ".join(f"{size}: {1000 * seconds:.3g} ms" for size, seconds in self.step_seconds.items())
        steps = f"; a step by batch size: {measured}" if measured else ""
        return f"{self.capacity} slots in the batch, {self.reason}{steps}"


def choose_capacity(
    trial: Callable[[int], Trial | None],
    *,
    seconds: float,
    free: int,
    reserve: int,
    sizes: Sequence[int] = SIZES,
) -> Choice:
    """Return the largest size whose step takes at most `seconds`, whose memory fits, and that is worth it.

    Sizes are tried from the smallest on, up to the first that does not qualify. The smallest needs only to run: a
    device on which its step takes longer still serves one face after the other.

    Args:
        trial: steps a full batch of a size; None where the device ran out of memory.
        seconds: the time of an iteration. A new request waits so long, and an iteration has at least one step.
        free: bytes of memory that are free before the trials.
        reserve: bytes that must stay free beside the batch, for the largest request before and after its steps.
        sizes: ascending.

    Raises RuntimeError if the memory is too small for the smallest size.
    """
    budget = int(MEMORY_SHARE * free) - reserve
    done: dict[int, Trial] = {}
    capacity = sizes[0]

    def objection(size: int, found: Trial | None) -> str | None:
        if found is None or found.memory > budget:
            return f"as {size} do not fit into the memory"
        if found.seconds > seconds:
            return f"as a step of {size} takes longer than the {1000 * seconds:g} ms of an iteration"
        if size > capacity and size / found.seconds < GAIN * capacity / done[capacity].seconds:
            return f"as {size} make no more faces a second"
        return None

    for size in sizes:
        found = None if done and _predicted_memory(done, size) > budget else trial(size)
        if found:
            done[size] = found
        elif not done:
            raise RuntimeError(f"a batch of {size} does not fit into the {free / 2**20:.0f} MiB of free memory")
        if reason := objection(size, found):
            break
        capacity = size
    else:
        reason = "the most that are tried"
    return Choice(capacity, {size: each.seconds for size, each in done.items()}, reason)


def _predicted_memory(done: Mapping[int, Trial], size: int) -> float:
    """The memory that a size needs, if each further item takes as much as those of the last trial.

    After one trial that is all of its memory, which is too much rather than too little.
    """
    (before, less), (last, memory) = [(0, 0), *((each, trial.memory) for each, trial in done.items())][-2:]
    return memory + (memory - less) / (last - before) * (size - last)
