"""How many steps fit into one call of the handler.

A new request joins at the next call, so calls must be short; every call costs TorchServe 5 to 10 ms, so
they must not be too short.
"""

from __future__ import annotations


class Pace:
    """Learns the duration of a step for every number of live requests and fits steps into `seconds`."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._step_seconds: dict[int, float] = {}

    def steps(self, live: int) -> int:
        """Return how many steps a call should take with `live` requests, at least one."""
        if not self._step_seconds:
            return 1
        known = min(self._step_seconds, key=lambda other: abs(other - live))
        # A larger batch than any seen may cost in proportion; a smaller one is never slower.
        expected = self._step_seconds[known] * max(1.0, live / known)
        return max(1, round(self.seconds / expected))

    def note(self, live: int, steps: int, seconds: float) -> None:
        """Take in that `steps` steps with `live` requests took `seconds`."""
        step_seconds = max(seconds / steps, 1e-6)
        before = self._step_seconds.get(live, step_seconds)
        self._step_seconds[live] = 0.5 * (before + step_seconds)
