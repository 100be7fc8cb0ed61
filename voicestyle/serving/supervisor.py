"""Beside a TorchServe: canaries, the operations port, and the orderly end."""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import replace
from http import HTTPStatus
from threading import Event, Thread
from typing import Final

from prometheus_client import CollectorRegistry, Metric, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from voicestyle.serving.canary import Canary, Outcome
from voicestyle.serving.health import TICK, Health
from voicestyle.serving.metrics_endpoint import CONTENT_TYPE, exposition, steps_taken
from voicestyle.serving.operations import Page, json_page
from voicestyle.serving.server import TorchServe
from voicestyle.serving.unsent import unsent_bytes

log = logging.getLogger(__name__)

TURN_SECONDS: Final = 10.0  # a refusal comes after one turn of the handler


class Supervisor:
    """Watches one TorchServe, which may not be started yet, and can drain it.

    Raises:
        ServerError: the archive holds no bundle.
    """

    def __init__(self, server: TorchServe) -> None:
        self._server = server
        self._canary = Canary.of(server.archive, server.url, self._steps_taken)
        self.health = Health(server, self._canary.send)
        self._registry = CollectorRegistry()
        self._registry.register(_Supervision(self.health))

    @contextmanager
    def watching(self, on_ready: Callable[[], None]) -> Generator[None]:
        """Send canaries from a thread until the block is left; call `on_ready` there once all conditions hold."""
        left = Event()

        def watch() -> None:
            announced = False
            while not left.is_set():
                try:
                    self.health.look()
                    if not announced and self.health.ready().holds:
                        announced = True
                        on_ready()
                except Exception:
                    log.exception("the service could not be looked at")
                left.wait(TICK)

        thread = Thread(target=watch, name="canaries", daemon=True)
        thread.start()
        try:
            yield
        finally:
            left.set()  # not joined: it may wait for a canary that nobody answers any more

    def pages(self) -> dict[str, Page]:
        """What the operations port serves."""

        def live() -> tuple[HTTPStatus, str, bytes]:
            verdict = self.health.live()
            return json_page(verdict.holds, verdict.json())

        def ready() -> tuple[HTTPStatus, str, bytes]:
            verdict = self.health.ready()
            return json_page(verdict.holds, verdict.json())

        def metrics() -> tuple[HTTPStatus, str, bytes]:
            workers = exposition(self._server.run.metrics, self._server.worker_pids()) if self._server.started else b""
            return HTTPStatus.OK, CONTENT_TYPE, workers + generate_latest(self._registry)

        return {"/live": live, "/ready": ready, "/metrics": metrics}

    @property
    def ended(self) -> int | None:
        """Java's exit status; None while it runs."""
        return self._server.ended

    def refuse(self) -> None:
        """Have the handler take nobody in any more."""
        self._server.run.begin_drain()

    def turned(self) -> bool:
        """Send a canary, which is to be refused; whether the handler answered."""
        outcome, _ = replace(self._canary, seconds=TURN_SECONDS).send()
        return outcome in (Outcome.DRAINING, Outcome.ANSWERED)

    def in_flight(self) -> int | None:
        """Requests that wait for an answer; None while it cannot be told."""
        return self._server.in_flight()

    def unsent(self) -> int:
        """Bytes of answers that clients did not fetch yet."""
        return unsent_bytes((self._server.ports.inference, self._server.ports.grpc_inference))

    def _steps_taken(self) -> float:
        return steps_taken(self._server.run.metrics)


class _Supervision(Collector):
    """What the supervisor itself knows, for Prometheus."""

    def __init__(self, health: Health) -> None:
        self._health = health

    def describe(self) -> list[Metric]:
        return []  # asked at registration, when nothing can be collected yet

    def collect(self) -> list[Metric]:
        canaries = CounterMetricFamily(
            "voicestyle_canaries", "Canaries sent; each is one of the workers' requests too", labels=["outcome"]
        )
        for outcome, count in self._health.canaries.items():
            canaries.add_metric([outcome.value], count)
        ready = GaugeMetricFamily("voicestyle_ready", "Whether /ready says yes", float(self._health.ready().holds))
        return [canaries, ready]
