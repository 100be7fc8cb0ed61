"""When to ask again and how long a request may take. Decides; waits for nothing itself."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

from voicestyle.client.errors import Busy, ClientError

SHORTEST: Final = 0.001  # s; a time-out of 0 would mean something else to some libraries


@dataclass(frozen=True)
class Retry:
    """Exponential backoff with full jitter: at most `attempts`, the first included.

    The n-th pause is drawn between 0 and first_delay·2ⁿ⁻¹ seconds, max_delay at most, and comes on top of what the
    server asks for with Retry-After. Raises ValueError for values that make no sense.
    """

    attempts: int = 8
    first_delay: float = 0.5
    max_delay: float = 15.0

    def __post_init__(self) -> None:
        if self.attempts < 1:
            raise ValueError(f"attempts must be at least 1, got {self.attempts}")
        if not 0 <= self.first_delay <= self.max_delay < math.inf:
            raise ValueError(f"delays must be 0 <= first <= max, got {self.first_delay} and {self.max_delay}")

    def delay(self, failures: int, error: ClientError, draw: Callable[[], float]) -> float | None:
        """Seconds to wait after `failures` attempts, the last of which ended in `error`; None to give up.

        draw: a number in [0, 1).
        """
        if not error.retryable or failures >= self.attempts:
            return None
        longest = min(self.max_delay, self.first_delay * 2.0 ** min(failures - 1, 64))
        asked = error.retry_after if isinstance(error, Busy) else None
        return (asked or 0.0) + longest * draw()


@dataclass(frozen=True)
class Settings:
    """What a client needs to know beside its address.

    headers: sent with each request, as metadata over gRPC, for what a proxy in front wants. attempt_seconds: of one
    attempt, waiting in the server's queue included: too short a time would put who waits to its end again.
    deadline_seconds: of all attempts and the pauses between them. clock and draw: monotonic seconds, and a number in
    [0, 1). Raises ValueError for times that are not positive.
    """

    model: str = "voicestyle"
    headers: Mapping[str, str] = field(default_factory=dict[str, str], repr=False)
    retry: Retry = field(default_factory=Retry)
    connect_seconds: float = 5.0
    attempt_seconds: float = 600.0
    deadline_seconds: float = 1800.0
    clock: Callable[[], float] = field(default=time.monotonic, repr=False)
    draw: Callable[[], float] = field(default=random.random, repr=False)

    def __post_init__(self) -> None:
        for name in ("connect_seconds", "attempt_seconds", "deadline_seconds"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be more than 0, got {getattr(self, name)}")


class Attempts:
    """The attempts at one request, in order: `begin` one, and `pause` after it failed."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._end = settings.clock() + settings.deadline_seconds
        self.made = 0

    def begin(self) -> float:
        """Seconds that the attempt which begins now may take."""
        self.made += 1
        return max(SHORTEST, min(self._settings.attempt_seconds, self._end - self._settings.clock()))

    def pause(self, error: ClientError) -> float:
        """Seconds to wait before the next attempt. Raises `error` where there is none, or the deadline is nearer."""
        settings = self._settings
        delay = settings.retry.delay(self.made, error, settings.draw)
        if delay is None or settings.clock() + delay >= self._end:
            raise error
        return delay
