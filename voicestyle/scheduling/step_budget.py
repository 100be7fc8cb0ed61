"""How many steps fit into one iteration, by how many requests take a step at once."""

from __future__ import annotations


class StepBudget:
    """Learns how long a step takes for every batch size, and fits steps into `seconds`.

    A new request joins at the next iteration, so iterations must be short; each one costs TorchServe 5 to 10 ms, so
    they must not be too short.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._step_seconds: dict[int, float] = {}

    def steps(self, batch: int) -> int:
        """Return how many steps an iteration should take with a batch of `batch`, at least one."""
        if not self._step_seconds:
            return 1
        known = min(self._step_seconds, key=lambda other: abs(other - batch))
        # A larger batch than any measured may cost in proportion; a smaller one is never slower.
        expected = self._step_seconds[known] * max(1.0, batch / known)
        return max(1, round(self.seconds / expected))

    def record(self, batch: int, steps: int, seconds: float) -> None:
        """Record that `steps` steps with a batch of `batch` took `seconds`."""
        step_seconds = max(seconds / steps, 1e-6)
        before = self._step_seconds.get(batch, step_seconds)
        self._step_seconds[batch] = 0.5 * (before + step_seconds)
