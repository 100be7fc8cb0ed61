"""The orderly end: nobody new, everybody finished, every byte sent."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

from voicestyle.errors import ServerError

log = logging.getLogger(__name__)

POLL: Final = 0.25  # s between two looks
CALM: Final = 2  # so many looks in a row must find nothing in flight
LAST_BYTES: Final = 0.5  # s for TorchServe to hand the last answer to the system


@dataclass(frozen=True)
class DrainOptions:
    """How a service stops.

    seconds: how long those taken in may need. grace: how many seconds before that the service goes on taking
    requests in, not ready any more, so that a load balancer sends no new ones.
    """

    seconds: float = 120.0
    grace: float = 0.0

    def __post_init__(self) -> None:
        if self.seconds < 0 or self.grace < 0:
            raise ValueError(f"seconds and grace must be at least 0, got {self.seconds} and {self.grace}")


class Draining(Protocol):
    """What is asked of a service that stops."""

    @property
    def ended(self) -> int | None:
        """Java's exit status; None while it runs."""
        ...

    def refuse(self) -> None:
        """Take nobody in any more."""
        ...

    def turned(self) -> bool:
        """Send a request that is to be refused; whether an answer came, hence a whole turn has passed."""
        ...

    def in_flight(self) -> int | None:
        """Requests that wait for an answer, as of the end of the last turn; None while it cannot be told."""
        ...

    def unsent(self) -> int:
        """Bytes of answers that clients did not fetch yet."""
        ...


def drain(
    service: Draining,
    options: DrainOptions,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> bool:
    """Wait until nothing is in flight; return whether that came true before the time was up.

    Raises:
        ServerError: TorchServe ended meanwhile.
    """
    if options.grace:
        log.info("stopping: not ready any more; requests are still taken in for %g s", options.grace)
        sleep(options.grace)
    service.refuse()
    log.info("stopping: no requests are taken in any more; up to %g s for those that are", options.seconds)
    end = clock() + options.seconds
    calm = 0
    while calm < CALM:
        if service.ended is not None:
            raise ServerError(f"TorchServe ended with status {service.ended} before its requests were answered")
        # Only a turn that began after the flag was set has counted everybody whom an earlier one took in.
        left = service.in_flight() if service.turned() else None
        calm = calm + 1 if left == 0 and service.unsent() == 0 else 0
        if calm < CALM:
            if clock() >= end:
                waiting = "an unknown number of" if left is None else left
                log.warning("stopping: the time is up with %s requests unanswered", waiting)
                return False
            sleep(POLL)
    sleep(LAST_BYTES)
    log.info("stopping: all requests are answered")
    return True
