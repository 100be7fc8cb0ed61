"""When to repeat a request, and how long it may take in all.

Exponential backoff with full jitter: the pause before retry n is drawn between 0 and FIRST_DELAY · 2ⁿ⁻¹ seconds,
MAX_DELAY at most, and is added to what the server asks for with Retry-After.
"""

from __future__ import annotations

import asyncio
import random
import time
from dataclasses import dataclass
from typing import Final

from voicestyle.client.errors import APIError, OverloadedError
from voicestyle.client.models import Retrying

FIRST_DELAY: Final = 0.5  # s
MAX_DELAY: Final = 15.0  # s
MIN_TIMEOUT: Final = 0.001  # s; some libraries take a timeout of 0 for none at all

# Tests replace these four.
clock = time.monotonic
draw = random.random
sleep_async = asyncio.sleep


def sleep(seconds: float) -> None:
    """Wait between two attempts."""
    time.sleep(seconds)


def retry_delay(failures: int, error: APIError, drawn: float) -> float:
    """Seconds to wait after `failures` attempts, the last of which ended in `error`; drawn: a number in [0, 1)."""
    longest = min(MAX_DELAY, FIRST_DELAY * 2.0 ** min(failures - 1, 64))
    retry_after = error.retry_after if isinstance(error, OverloadedError) else None
    return (retry_after or 0.0) + longest * drawn


@dataclass(frozen=True)
class Limits:
    """Limits of one request: seconds of an attempt, of its connecting, of all attempts with their pauses; retries.

    Raises ValueError for values out of range.
    """

    timeout: float
    connect_timeout: float
    deadline: float
    max_retries: int

    def __post_init__(self) -> None:
        for name in ("timeout", "connect_timeout", "deadline"):
            if not getattr(self, name) > 0:  # NaN is not
                raise ValueError(f"{name} must be more than 0 seconds, got {getattr(self, name)}")
        if self.max_retries < 0:
            raise ValueError(f"max_retries must be at least 0, got {self.max_retries}")


class Attempts:
    """The attempts of one request: call `begin` for each one, and `failed` when it ended in an error."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._end = clock() + limits.deadline
        self._made = 0

    def begin(self) -> float:
        """Seconds that the attempt which begins now may take."""
        self._made += 1
        return max(MIN_TIMEOUT, min(self._limits.timeout, self._end - clock()))

    def failed(self, error: APIError) -> Retrying:
        """The next attempt and the pause before it. Raises `error` if it is final, or attempts or time are used up."""
        if error.retryable and self._made <= self._limits.max_retries:
            delay = retry_delay(self._made, error, draw())
            if clock() + delay < self._end:
                return Retrying(self._made + 1, delay, error)
        raise error
