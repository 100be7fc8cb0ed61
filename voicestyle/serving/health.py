"""Whether a running service is ready and whether it is alive, and if not, why."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol

from voicestyle.serving.canary import Outcome

log = logging.getLogger(__name__)

PERIOD: Final = 30.0  # s between canaries that sang
RETRY: Final = 5.0  # s after one that did not
TICK: Final = 1.0  # s between two looks at the workers
# s that a good canary is believed: until the next one, and as long as that may take.
FRESH: Final = 120.0
# s without a good canary until only a restart can help. TorchServe kills a worker that hangs for its
# responseTimeout (120 s) and gives the next one startupTimeout (300 s).
HUNG: Final = 600.0


class Server(Protocol):
    """What is asked of TorchServe."""

    @property
    def ended(self) -> int | None:
        """Java's exit status; None while it runs or is not started yet."""
        ...

    def worker_pids(self) -> list[int]:
        """The processes of workers that have the model loaded and are alive."""
        ...


@dataclass(frozen=True)
class Verdict:
    """Conditions by name: None where it holds, else why it does not."""

    conditions: Mapping[str, str | None]

    @property
    def holds(self) -> bool:
        """Whether all of them hold."""
        return not any(self.conditions.values())

    def json(self) -> dict[str, Any]:
        """For an answer: what holds, and what fails for which reason."""
        return {
            "ok": self.holds,
            "conditions": {name: why or "ok" for name, why in self.conditions.items()},
        }


@dataclass(frozen=True)
class _Song:
    outcome: Outcome
    words: str
    at: float
    pids: tuple[int, ...]


class Health:
    """Keeps what the canaries said and answers the probes; `clock` counts seconds.

    A thread calls `look` again and again, any thread may ask. A canary speaks for the workers that lived when it was
    sent: a new worker needs a new one.
    """

    def __init__(
        self,
        server: Server,
        send_canary: Callable[[], tuple[Outcome, str]],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._server = server
        self._send_canary = send_canary
        self._clock = clock
        self._last: _Song | None = None
        self._last_good: float | None = None
        self._draining = threading.Event()
        self.canaries = dict.fromkeys(Outcome, 0)  # how many, by outcome

    def drain(self) -> None:
        """Be ready no more, for good."""
        self._draining.set()

    def look(self) -> None:
        """Send a canary if one is due."""
        pids = tuple(sorted(self._server.worker_pids()))
        if not pids or self._draining.is_set() or not self._due(pids):
            return
        outcome, words = self._send_canary()
        self.canaries[outcome] += 1
        if self._draining.is_set():
            return  # it may have come too late, which says nothing about the model
        if not outcome.good:
            log.warning("canary: %s", words)
        elif self._last is None or not self._last.outcome.good:
            log.info("canary: %s", words)
        now = self._clock()
        self._last = _Song(outcome, words, now, pids)
        if outcome.good:
            self._last_good = now

    def ready(self) -> Verdict:
        """Whether a request that comes now will be taken in and answered."""
        pids = tuple(sorted(self._server.worker_pids()))
        return Verdict(
            {
                "taking": "the service is stopping" if self._draining.is_set() else None,
                "java": self._java(),
                "model": None if pids else "no living worker has the model loaded",
                "canary": self._canary(pids),
            }
        )

    def live(self) -> Verdict:
        """Whether waiting can help; if not, the process should be started anew.

        A slow start is not judged here: it ends by itself, or a start-up probe ends it.
        """
        idle = 0.0 if self._last_good is None else self._clock() - self._last_good
        hung = idle > HUNG and not self._draining.is_set()
        return Verdict(
            {
                "java": self._java(),
                "progress": f"no canary was answered for {idle:.0f} s" if hung else None,
            }
        )

    def _due(self, pids: tuple[int, ...]) -> bool:
        if self._last is None or self._last.pids != pids:
            return True
        return self._clock() - self._last.at >= (PERIOD if self._last.outcome.good else RETRY)

    def _java(self) -> str | None:
        status = self._server.ended
        return None if status is None else f"TorchServe ended with status {status}"

    def _canary(self, pids: tuple[int, ...]) -> str | None:
        last = self._last
        if last is None:
            return "none was sent yet"
        if not last.outcome.good:
            return last.words
        if last.pids != pids:
            return "none was sent to this worker yet"
        age = self._clock() - last.at
        return f"the last one is {age:.0f} s old" if age > FRESH else None
