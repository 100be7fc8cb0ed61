"""The record of one request, from its admission to its response."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum


class Phase(Enum):
    """Where a request stands; `Scheduler` alone moves it, in this order. One without steps is never RUNNING."""

    WAITING = "waiting"  # prepared, without a slot in the batch
    RUNNING = "running"  # takes optimisation steps
    RENDERING = "rendering"  # has taken all of its steps, or takes none; its image is yet to be rendered
    ENCODING = "encoding"  # its pixels are being written to an image file
    FINISHED = "finished"  # has a response, or needs none any more


@dataclass(eq=False, kw_only=True)
class Request:
    """What the scheduler knows of a request; users of the scheduler add their own fields in a subclass.

    steps: how many optimisation steps it takes; with 0 it needs no slot. previews: how many images it gets on the way,
    at evenly spread steps.
    """

    id: str
    steps: int
    previews: int = 0
    phase: Phase = Phase.WAITING
    step: int = 0  # steps taken so far
    largest_batch: int = 0  # most requests that were running at any of its steps, or that were rendered with it
    last_stepped: int = 0  # when it last took a step, in steps of the whole scheduler
    entered: dict[Phase, float] = field(default_factory=dict[Phase, float])  # seconds of the scheduler's clock

    @property
    def preview_steps(self) -> list[int]:
        """The steps after which its previews are due, evenly spread."""
        return [-(-number * self.steps // (self.previews + 1)) for number in range(1, self.previews + 1)]

    def seconds_between(self, first: Phase, last: Phase) -> float:
        """Seconds from when it entered the phase `first` to when it entered `last`. Raises KeyError before that."""
        return self.entered[last] - self.entered[first]

    @property
    def next_stop(self) -> int:
        """The step after which an iteration has to end for it: the next preview, or the last step."""
        return next((step for step in self.preview_steps if step > self.step), self.steps)
