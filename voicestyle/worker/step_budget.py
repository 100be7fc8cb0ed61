"""How many steps fit into one call of the handler, by how many requests take a step together.

A new request joins at the next call, so calls must be short; every call costs TorchServe 5 to 10 ms, so
they must not be too short.
"""

from __future__ import annotations


class StepBudget:
    """Learns the duration of a step for every batch size and fits steps into `seconds`."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._step_seconds: dict[int, float] = {}

    def steps(self, batch: int) -> int:
        """Return how many steps a call should take with a batch of `batch`, at least one."""
        if not self._step_seconds:
            return 1
        known = min(self._step_seconds, key=lambda other: abs(other - batch))
        # A larger batch than any seen may cost in proportion; a smaller one is never slower.
        expected = self._step_seconds[known] * max(1.0, batch / known)
        return max(1, round(self.seconds / expected))

    def note(self, batch: int, steps: int, seconds: float) -> None:
        """Take in that `steps` steps with a batch of `batch` took `seconds`."""
        step_seconds = max(seconds / steps, 1e-6)
        before = self._step_seconds.get(batch, step_seconds)
        self._step_seconds[batch] = 0.5 * (before + step_seconds)
