"""All scheduling decisions: which requests are admitted, which take the next steps and how many, which are rendered."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, auto
from typing import Final, Generic, TypeVar

from voicestyle.scheduling.request import Phase, Request
from voicestyle.scheduling.step_budget import StepBudget

FAIR_INTERVAL: Final = 4

R = TypeVar("R", bound=Request)


class Admission(Enum):
    """What becomes of a request that arrives."""

    ADMIT = auto()
    DEFER = auto()  # it is looked at again in the next iteration
    REJECT_OVERLOADED = auto()
    REJECT_DRAINING = auto()


@dataclass(frozen=True)
class Plan(Generic[R]):
    """The steps of one iteration: for each one, the requests that take it."""

    steps: list[list[R]]

    @property
    def batch(self) -> int:
        """How many requests take each step."""
        return len(self.steps[0]) if self.steps else 0

    @property
    def requests(self) -> list[R]:
        """The requests that take steps."""
        return list(dict.fromkeys(request for group in self.steps for request in group))


class Scheduler(Generic[R]):
    """The requests of one pipeline, in the order in which they arrived.

    An iteration is `begin`, `admission` and `add` for each new request, `start_waiting`, `next_without_steps` until it
    returns none, `plan`, `record_steps`, and `next_to_render` until it returns None. `finish` follows for each request.

    A request without steps needs no slot: it starts in the iteration in which it is added, even while others wait, and
    is rendered before that iteration's steps. So it never waits for an optimisation to end, and because an iteration
    renders these requests until its deadline and then takes its steps, they never stop the optimisations.

    Args:
        capacity: slots in the batch.
        queue: how many more requests may wait for a slot.
        batched: whether all running requests take each step at once, as on a GPU, or one request at a time.
        iteration_seconds: how long an iteration should take. A request that arrives waits about so long.
        clock: counts seconds.
    """

    def __init__(
        self,
        capacity: int,
        queue: int,
        *,
        batched: bool,
        iteration_seconds: float,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.capacity = capacity
        self.queue = queue
        self.requests: dict[str, R] = {}
        self._batched = batched
        self._budget = StepBudget(iteration_seconds)
        self._clock = clock
        self._deadline = 0.0
        self._deferred = 0
        self._rendered = 0
        self._rendered_without_steps = 0
        self._steps_taken = 0

    @property
    def limit(self) -> int:
        """Most requests in the batch and the queue."""
        return self.capacity + self.queue

    def begin(self) -> None:
        """Begin an iteration."""
        self._deadline = self._clock() + self._budget.seconds
        self._deferred = self._rendered = self._rendered_without_steps = 0

    def admission(self, *, draining: bool = False) -> Admission:
        """Decide about one new request. Each one that is admitted has to be prepared and added before the next."""
        if draining:
            return Admission.REJECT_DRAINING
        if len(self.requests) + self._deferred >= self.limit:
            return Admission.REJECT_OVERLOADED
        if self._clock() < self._deadline:
            return Admission.ADMIT
        # The running requests must not wait until the audio of many new ones is decoded.
        self._deferred += 1
        return Admission.DEFER

    def add(self, request: R) -> None:
        """Queue a prepared request. Raises ValueError for an id that is already there."""
        if request.id in self.requests:
            raise ValueError(f"request {request.id!r} was already added")
        self.requests[request.id] = request
        self._enter(request, Phase.WAITING)

    def start_waiting(self) -> list[R]:
        """Start requests and return them: all without steps, and for each free slot the one that has waited longest."""
        free = self.capacity - sum(request.steps > 0 for request in self.in_phase(Phase.RUNNING, Phase.RENDERING))
        starting: list[R] = []
        for request in self.in_phase(Phase.WAITING):
            if not request.steps:
                self._enter(request, Phase.RENDERING)
            elif free > 0:
                free -= 1
                self._enter(request, Phase.RUNNING)
                request.last_stepped = self._steps_taken
            else:
                continue
            starting.append(request)
        return starting

    def next_without_steps(self) -> list[R]:
        """Return the requests without steps to render next and set their phase to ENCODING; empty if none is left.

        Where `batched`, these are all of them, but at most `capacity`; otherwise one. The first call of an iteration
        returns some if there are any, later ones only before the deadline of the iteration.
        """
        ready = [request for request in self.in_phase(Phase.RENDERING) if not request.steps]
        if not ready or (self._rendered_without_steps and self._clock() >= self._deadline):
            return []
        group = ready[: self.capacity if self._batched else 1]
        self._rendered_without_steps += len(group)
        for request in group:
            request.largest_batch = len(group)
            self._enter(request, Phase.ENCODING)
        return group

    def plan(self) -> Plan[R]:
        """Return the steps of this iteration.

        It ends no later than after the step at which the first request finishes or has a preview due, so that the
        preview shows that step and the slot is free in the next iteration.
        """
        running = self.in_phase(Phase.RUNNING)
        if not running:
            return Plan([])
        if self._batched:
            most = min(self._budget.steps(len(running)), *(request.next_stop - request.step for request in running))
            return Plan([running] * most)
        # The step counts that the requests will have; the requests themselves change in `record_steps`.
        ahead = {request.id: (request.step, request.last_stepped) for request in running}
        order: list[list[R]] = []
        most = self._budget.steps(1)
        while len(order) < most:
            now = self._steps_taken + len(order)
            request = min(running, key=lambda each: _priority(*ahead[each.id], steps=each.steps, now=now))
            order.append([request])
            step = ahead[request.id][0] + 1
            ahead[request.id] = (step, now + 1)
            if step == request.next_stop:
                break
        return Plan(order)

    def record_steps(self, plan: Plan[R], seconds: float) -> None:
        """Record that the steps of a plan were taken in `seconds`; requests without a further step get RENDERING."""
        running = self.count(Phase.RUNNING)
        for group in plan.steps:
            self._steps_taken += 1
            for request in group:
                request.step += 1
                request.last_stepped = self._steps_taken
                request.largest_batch = max(request.largest_batch, running)
                if request.step == request.steps:
                    self._enter(request, Phase.RENDERING)
        if plan.steps:
            self._budget.record(plan.batch, len(plan.steps), seconds)

    def next_to_render(self) -> R | None:
        """Return the next request that took all of its steps and set its phase to ENCODING; None if none is left.

        Renders at least one request per iteration, and more until the deadline of the iteration.
        """
        rendering = [request for request in self.in_phase(Phase.RENDERING) if request.steps]
        if not rendering or (self._rendered and self._clock() >= self._deadline):
            return None
        self._rendered += 1
        self._enter(rendering[0], Phase.ENCODING)
        return rendering[0]

    def finish(self, request: R) -> None:
        """Forget a request, whatever its phase was."""
        self._enter(request, Phase.FINISHED)
        del self.requests[request.id]

    def _enter(self, request: R, phase: Phase) -> None:
        request.phase = phase
        request.entered[phase] = self._clock()

    def in_phase(self, *phases: Phase) -> list[R]:
        """The requests in any of `phases`, in the order in which they arrived."""
        return [request for request in self.requests.values() if request.phase in phases]

    def count(self, *phases: Phase) -> int:
        """How many requests are in any of `phases`."""
        return len(self.in_phase(*phases))


def _priority(step: int, last_stepped: int, *, steps: int, now: int) -> tuple[int, int, int]:
    """Sort key of a request that takes its steps alone: the least is next.

    A first step comes first. Then the request with the fewest steps left goes on, so that requests finish one after
    the other instead of all late. Every fourth step goes to the one that has waited longest, so that a long request
    advances although short ones keep arriving.
    """
    if step and now % FAIR_INTERVAL:
        return 1, steps - step, 0
    return 0, last_stepped, step
