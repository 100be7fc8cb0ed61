"""Graceful shutdown: stop admission, then wait until every response has been sent."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

from voicestyle.errors import ServerError

log = logging.getLogger(__name__)

POLL: Final = 0.25  # s between two polls
IDLE_POLLS: Final = 2  # consecutive polls that must find nothing in flight
LAST_BYTES: Final = 0.5  # s for TorchServe to pass the last response to the operating system


@dataclass(frozen=True)
class DrainOptions:
    """How a service shuts down.

    seconds: how long admitted requests may take to finish. grace: for how many seconds before that the service,
    already not ready, still accepts requests, so that load balancers notice.
    """

    seconds: float = 120.0
    grace: float = 0.0

    def __post_init__(self) -> None:
        if self.seconds < 0 or self.grace < 0:
            raise ValueError(f"seconds and grace must be at least 0, got {self.seconds} and {self.grace}")


class Service(Protocol):
    """The service that is shut down."""

    @property
    def ended(self) -> int | None:
        """Java's exit status; None while it runs."""

    def stop_admission(self) -> None:
        """Let the handler reject all new requests."""

    def completes_iteration(self) -> bool:
        """Send a request that the handler must reject; whether its response came, hence an iteration completed."""
        ...

    def in_flight(self) -> int | None:
        """Requests without a response at the end of the last iteration; None if that is unknown."""

    def unsent(self) -> int:
        """Bytes of responses that clients have not read yet."""
        ...


def drain(
    service: Service,
    options: DrainOptions,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> bool:
    """Wait until nothing is in flight; return whether that was reached within `options.seconds`.

    Raises:
        ServerError: TorchServe ended meanwhile.
    """
    if options.grace:
        log.info("shutting down: not ready any more; new requests are accepted for another %g s", options.grace)
        sleep(options.grace)
    service.stop_admission()
    log.info("shutting down: new requests are rejected; admitted ones have %g s to finish", options.seconds)
    deadline = clock() + options.seconds
    idle_polls = 0
    while idle_polls < IDLE_POLLS:
        if service.ended is not None:
            raise ServerError(f"TorchServe ended with status {service.ended} before all requests were finished")
        # Only an iteration that began after admission stopped has counted every admitted request.
        in_flight = service.in_flight() if service.completes_iteration() else None
        idle_polls = idle_polls + 1 if in_flight == 0 and service.unsent() == 0 else 0
        if idle_polls < IDLE_POLLS:
            if clock() >= deadline:
                unfinished = "an unknown number of" if in_flight is None else in_flight
                log.warning("shutting down: the time is up with %s requests unfinished", unfinished)
                return False
            sleep(POLL)
    sleep(LAST_BYTES)
    log.info("shutting down: all requests are finished")
    return True
