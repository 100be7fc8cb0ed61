"""Watches one TorchServe: sends canaries, serves probes and metrics, and drains it at shutdown."""

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
from voicestyle.serving.health import POLL, Health
from voicestyle.serving.metrics_endpoint import CONTENT_TYPE, exposition, progress_made, running_workers
from voicestyle.serving.operations import Page, json_page
from voicestyle.serving.server import TorchServe
from voicestyle.serving.unsent import unsent_bytes

log = logging.getLogger(__name__)

ITERATION_SECONDS: Final = 10.0  # timeout of a request that is rejected after one iteration of the handler


class Supervisor:
    """Watches one TorchServe, which may not be started yet, and can drain it.

    Raises:
        ServerError: the archive holds no bundle.
    """

    def __init__(self, server: TorchServe) -> None:
        self._server = server
        self._canary = Canary.of(server.archive, server.url, lambda: progress_made(server.run.metrics))
        self.health = Health(server, self._canary.send)
        self._registry = CollectorRegistry()
        self._registry.register(_HealthMetrics(self.health))

    @contextmanager
    def watching(self, on_ready: Callable[[], None]) -> Generator[None]:
        """Send canaries from a thread until the block is left; call `on_ready` there once the service is ready."""
        done = Event()

        def watch() -> None:
            announced = False
            while not done.is_set():
                try:
                    self.health.update()
                    if not announced and self.health.ready().met:
                        announced = True
                        on_ready()
                except Exception:
                    log.exception("the health check failed")
                done.wait(POLL)

        thread = Thread(target=watch, name="canaries", daemon=True)
        thread.start()
        try:
            yield
        finally:
            done.set()  # not joined: it may wait for a canary that the stopped server never answers

    def pages(self) -> dict[str, Page]:
        """The pages of the operations port, by path."""

        def live() -> tuple[HTTPStatus, str, bytes]:
            conditions = self.health.live()
            return json_page(conditions.met, conditions.json())

        def ready() -> tuple[HTTPStatus, str, bytes]:
            conditions = self.health.ready()
            workers = running_workers(self._server.run.metrics, conditions.pids) if self._server.started else []
            return json_page(conditions.met, conditions.json() | {"workers": workers})

        def metrics() -> tuple[HTTPStatus, str, bytes]:
            workers = exposition(self._server.run.metrics, self._server.worker_pids()) if self._server.started else b""
            return HTTPStatus.OK, CONTENT_TYPE, workers + generate_latest(self._registry)

        return {
            "/live": live,
            "/ready": ready,
            "/metrics": metrics,
        }

    @property
    def ended(self) -> int | None:
        """Java's exit status; None while it runs."""
        return self._server.ended

    def stop_admission(self) -> None:
        """Let the handler reject all new requests."""
        self._server.run.begin_drain()

    def completes_iteration(self) -> bool:
        """Send a canary, which the handler must reject; whether its response came."""
        outcome, _ = replace(self._canary, seconds=ITERATION_SECONDS).send()
        return outcome in (Outcome.DRAINING, Outcome.ANSWERED)

    def in_flight(self) -> int | None:
        """Requests without a response; None if that is unknown."""
        return self._server.in_flight()

    def unsent(self) -> int:
        """Bytes of responses that clients have not read yet."""
        return unsent_bytes((self._server.ports.inference, self._server.ports.grpc_inference))


class _HealthMetrics(Collector):
    """The supervisor's own metrics."""

    def __init__(self, health: Health) -> None:
        self._health = health

    def describe(self) -> list[Metric]:
        return []  # called at registration, before the server can be asked

    def collect(self) -> list[Metric]:
        canaries = CounterMetricFamily(
            "voicestyle_canaries", "Canary requests sent; workers count them as requests too", labels=["outcome"]
        )
        for outcome, count in self._health.canaries.items():
            canaries.add_metric([outcome.value], count)
        ready = GaugeMetricFamily(
            "voicestyle_ready", "1 if /ready returns 200, else 0", float(self._health.ready().met)
        )
        return [canaries, ready]
