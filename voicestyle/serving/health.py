"""Readiness and liveness of a running service, each with the reasons why not."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol

from voicestyle.serving.canary import CanaryResult, Outcome

log = logging.getLogger(__name__)

PERIOD: Final = 30.0  # s from a successful canary to the next one
RETRY: Final = 5.0  # s from a canary without success to the next one
POLL: Final = 1.0  # s between two polls of the workers
# s for which a successful canary counts: until the next one, and the time that the next one may take.
FRESH: Final = 120.0
# s without a successful canary after which only a restart helps. TorchServe kills a worker that hangs after its
# responseTimeout (120 s) and gives the next one startupTimeout (300 s).
HUNG: Final = 600.0


class Server(Protocol):
    """The TorchServe whose health is reported."""

    @property
    def ended(self) -> int | None:
        """Java's exit status; None while it runs or is not started yet."""

    def worker_pids(self) -> list[int]:
        """The process ids of running workers that have the model loaded."""
        ...


@dataclass(frozen=True)
class Conditions:
    """Conditions by name: None if it is met, else the reason why not. pids: the workers for which this holds."""

    reasons: Mapping[str, str | None]
    pids: tuple[int, ...] = ()

    @property
    def met(self) -> bool:
        """Whether all of them are met."""
        return not any(self.reasons.values())

    def json(self) -> dict[str, Any]:
        """The body of a probe's response."""
        return {"ok": self.met, "conditions": {name: reason or "ok" for name, reason in self.reasons.items()}}


@dataclass(frozen=True)
class _SentCanary:
    result: CanaryResult
    time: float  # when the result came
    pids: tuple[int, ...]  # the workers that ran when it was sent


class Health:
    """Sends canaries and derives readiness and liveness from their results; `clock` returns seconds.

    One thread calls `update` again and again; `ready` and `live` are called from any thread. A canary counts only for
    the workers that ran when it was sent: a new worker needs a new canary.
    """

    def __init__(
        self,
        server: Server,
        send_canary: Callable[[], CanaryResult],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._server = server
        self._send_canary = send_canary
        self._clock = clock
        self._last: _SentCanary | None = None
        self._last_success: float | None = None
        self._draining = threading.Event()
        self.canaries = dict.fromkeys(Outcome, 0)  # number of canaries by outcome

    def drain(self) -> None:
        """Report not ready from now on."""
        self._draining.set()

    def update(self) -> None:
        """Send a canary if one is due."""
        pids = self._pids()
        if not pids or self._draining.is_set() or not self._due(pids):
            return
        result = self._send_canary()
        self.canaries[result.outcome] += 1
        if self._draining.is_set():
            return  # it may have been rejected for that, which says nothing about the model
        successful = result.outcome.successful
        if not successful:
            log.warning("canary: %s", result.message)
        elif self._last is None or not self._last.result.outcome.successful:
            log.info("canary: %s", result.message)
        now = self._clock()
        self._last = _SentCanary(result, now, pids)
        if successful:
            self._last_success = now

    def ready(self) -> Conditions:
        """Whether a request sent now will be admitted and answered."""
        pids = self._pids()
        return Conditions(
            {
                "admission": "the service is shutting down" if self._draining.is_set() else None,
                "java": self._java(),
                "model": None if pids else "no running worker has the model loaded",
                "canary": self._canary(pids),
            },
            pids,
        )

    def live(self) -> Conditions:
        """Whether the service can recover by itself; if not, the process must be restarted.

        A slow start does not count here: it ends by itself, or a start-up probe ends it.
        """
        idle = 0.0 if self._last_success is None else self._clock() - self._last_success
        hung = idle > HUNG and not self._draining.is_set()
        return Conditions(
            {
                "java": self._java(),
                "progress": f"no canary was successful for {idle:.0f} s" if hung else None,
            }
        )

    def _pids(self) -> tuple[int, ...]:
        return tuple(sorted(self._server.worker_pids()))

    def _due(self, pids: tuple[int, ...]) -> bool:
        if self._last is None or self._last.pids != pids:
            return True
        return self._clock() - self._last.time >= (PERIOD if self._last.result.outcome.successful else RETRY)

    def _java(self) -> str | None:
        status = self._server.ended
        return None if status is None else f"TorchServe ended with status {status}"

    def _canary(self, pids: tuple[int, ...]) -> str | None:
        last = self._last
        if last is None:
            return "none was sent yet"
        if not last.result.outcome.successful:
            return last.result.message
        if last.pids != pids:
            return "none was sent to this worker yet"
        age = self._clock() - last.time
        return f"the last one is {age:.0f} s old" if age > FRESH else None
