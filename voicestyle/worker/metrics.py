"""What a worker counts and measures, for Prometheus; docs/metrics.md lists all of it.

If `PROMETHEUS_MULTIPROC_DIR` is set before Python starts, the values are kept in memory-mapped files of that folder,
so that the counts of a killed worker remain; `voicestyle.serving.metrics_endpoint` serves them. Otherwise they are
kept in this process. A metric never fails a request: a value that is not a finite number is left out, and any other
error is logged once.
"""

from __future__ import annotations

import logging
import math
import os
import platform
from collections.abc import Callable, Iterable
from functools import wraps
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import TYPE_CHECKING, Concatenate, Final, ParamSpec
from weakref import WeakKeyDictionary

import psutil
from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram

from voicestyle import __version__
from voicestyle.error_codes import ERROR_CODES

if TYPE_CHECKING:
    from voicestyle.face import Face
    from voicestyle.pipeline import Computing

log = logging.getLogger("voicestyle.metrics")

FOLDER: Final = "PROMETHEUS_MULTIPROC_DIR"
PROTOCOLS: Final = ("http", "grpc")
OUTCOMES: Final = ("face", "refused", "failed", "cancelled")
# A rejection takes milliseconds, a face seconds, a face whose request waited in a full queue minutes.
REQUEST_SECONDS: Final = (
    *(0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 1.5, 2, 3, 4, 5, 7.5, 10, 15, 20, 30, 45, 60, 90, 120, 180, 240, 300),
)
STAGE_SECONDS: Final = (
    *(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 30, 60, 120, 180, 300),
)
STEP_SECONDS: Final = (0.002, 0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 0.75, 1, 2, 5, 10)
BATCH_SIZES: Final = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 64)
SIMILARITIES: Final = tuple(tenth / 10 for tenth in range(-9, 11))
AUDIO_SECONDS: Final = (0.5, 1, 2, 3, 5, 7.5, 10, 15, 20, 30, 45, 60, 90, 120, 300)

P = ParamSpec("P")


class _Instruments:
    """All metrics, on one registry. Those whose labels are known start at 0, so that `increase()` misses nothing."""

    def __init__(self, registry: CollectorRegistry) -> None:
        def counter(name: str, text: str, labels: Iterable[str] = ()) -> Counter:
            return Counter(f"voicestyle_{name}", text, labels, registry=registry)

        def total(name: str, text: str, labels: Iterable[str] = ()) -> Gauge:
            return Gauge(f"voicestyle_{name}", text, labels, registry=registry, multiprocess_mode="livesum")

        def histogram(name: str, text: str, buckets: tuple[float, ...], labels: Iterable[str] = ()) -> Histogram:
            return Histogram(f"voicestyle_{name}", text, labels, registry=registry, buckets=buckets)

        outcome = ("outcome", "protocol")
        self.received = counter("received_total", "Requests that reached a worker", ("protocol",))
        self.requests = counter("requests_total", "Completed requests", outcome)
        self.refusals = counter("refusals_total", "Rejected requests, by error code", ("code", "protocol"))
        self.request_seconds = histogram(
            "request_seconds",
            "Seconds from arrival in the worker to response",
            REQUEST_SECONDS,
            outcome,
        )
        self.stage_seconds = histogram("stage_seconds", "Seconds of a request per stage", STAGE_SECONDS, ("stage",))
        self.step_seconds = histogram("step_seconds", "Seconds per optimisation step", STEP_SECONDS, ("batch",))
        self.batch_size = histogram("batch_size", "Requests that took the steps of an iteration together", BATCH_SIZES)
        self.steps = counter("steps_total", "Optimisation steps of the batch")
        self.request_steps = counter("request_steps_total", "Optimisation steps, counted once per request in them")
        self.instant_faces = counter("instant_faces_total", "Faces made without an optimisation step")
        self.live = total("live_requests", "Requests in the batch, and those whose image is being encoded")
        self.waiting = total("waiting_requests", "Requests in the worker that wait for a slot in the batch")
        self.capacity = total("capacity_requests", "Slots in the batch")
        self.measured_step_seconds = Gauge(
            "voicestyle_measured_step_seconds",
            "Seconds of a step by batch size, measured at the start to choose the slots",
            ("batch",),
            registry=registry,
            multiprocess_mode="livemostrecent",
        )
        self.first_similarity = histogram("first_similarity", "cos(voice, face) of the first step", SIMILARITIES)
        self.similarity = histogram("similarity", "cos(voice, face) of the last step", SIMILARITIES)
        self.audio_seconds = histogram("audio_seconds", "Seconds of audio per face", AUDIO_SECONDS)
        self.speech_seconds = histogram("speech_seconds", "Seconds of speech per face", AUDIO_SECONDS)
        self.resident = total("resident_memory_bytes", "Resident memory of the workers")
        self.device_memory = total("device_memory_bytes", "CUDA memory of PyTorch's allocator", ("device", "kind"))
        self.starts = counter("worker_starts_total", "Started workers")
        # The most recent one counts, so that a replaced worker and its successor do not add up to 2.
        self.build = Gauge(
            "voicestyle_build_info",
            "Always 1; the labels describe what is running",
            (
                *("version", "torch", "python", "device", "dtype", "batching", "graphs"),
                *("model", "bundle_version", "capacity"),
            ),
            registry=registry,
            multiprocess_mode="livemostrecent",
        )
        for protocol in PROTOCOLS:
            self.received.labels(protocol)
            for each in OUTCOMES:
                self.requests.labels(each, protocol)
            for code in ERROR_CODES.values():
                if not code.is_fault:
                    self.refusals.labels(code.name, protocol)
        self.starts.inc()


_INSTRUMENTS: Final[WeakKeyDictionary[CollectorRegistry, _Instruments]] = WeakKeyDictionary()
_logged: Final[set[str]] = set()


def _never_raises(
    method: Callable[Concatenate[Metrics, P], None],
) -> Callable[Concatenate[Metrics, P], None]:
    """Log what `method` raises, once, instead of raising it."""

    @wraps(method)
    def guarded(self: Metrics, /, *args: P.args, **kwargs: P.kwargs) -> None:
        try:
            method(self, *args, **kwargs)
        except Exception:
            if method.__name__ not in _logged:
                _logged.add(method.__name__)
                log.exception("Metrics.%s failed; further failures of it are not logged", method.__name__)

    return guarded


class Metrics:
    """A worker's metrics. Two objects with the same registry share their instruments.

    registry: prometheus_client's default one unless given. protocol: "http" or "grpc". All times are in seconds. Only
    the constructor raises: OSError if the folder of `PROMETHEUS_MULTIPROC_DIR` cannot be written.
    """

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        registry = REGISTRY if registry is None else registry
        if registry not in _INSTRUMENTS:
            if folder := os.environ.get(FOLDER):
                Path(folder).mkdir(parents=True, exist_ok=True)
            _INSTRUMENTS[registry] = _Instruments(registry)
        self._all = _INSTRUMENTS[registry]
        self._process = psutil.Process()
        self._device = "cpu"
        self.occupancy(0, 0)

    @_never_raises
    def describe(self, model: str, version: str, computing: Computing) -> None:
        """Describe what is running: name and version of the bundle, and how it is computed."""
        self._device = computing.device
        self._all.capacity.set(computing.capacity)
        for size, seconds in computing.step_seconds.items():
            self._all.measured_step_seconds.labels(str(size)).set(seconds)
        self._all.build.labels(
            version=__version__,
            torch=installed_version("torch"),
            python=platform.python_version(),
            device=computing.device,
            dtype=computing.dtype,
            batching=computing.batching,
            graphs=computing.graphs,
            model=model,
            bundle_version=version,
            capacity=str(computing.capacity),
        ).set(1)
        self._measure_memory()

    @_never_raises
    def received(self, protocol: str) -> None:
        """Count a request that has just arrived."""
        # Its first iteration may take as long as a face; a shutdown that waits for idle must see it before the end.
        self._all.waiting.inc()
        self._all.received.labels(protocol).inc()

    @_never_raises
    def finished(self, protocol: str, face: Face, seconds: float) -> None:
        """Count a face, `seconds` after its request arrived."""
        self._done("face", protocol, seconds)
        if not face.settings.steps:
            self._all.instant_faces.inc()
        _observe(self._all.similarity, face.similarity, least=-math.inf)
        _observe(self._all.first_similarity, face.first_similarity, least=-math.inf)
        _observe(self._all.audio_seconds, face.audio_seconds)
        _observe(self._all.speech_seconds, face.speech_seconds)
        for stage, took in face.timings.items():
            _observe(self._all.stage_seconds.labels(stage), took)

    @_never_raises
    def refused(self, protocol: str, code: str, seconds: float | None = None) -> None:
        """Count a request that was rejected with `code`."""
        self._all.refusals.labels(code, protocol).inc()
        self._done("refused", protocol, seconds)

    @_never_raises
    def failed(self, protocol: str, seconds: float | None = None) -> None:
        """Count a fault of the service."""
        self._done("failed", protocol, seconds)

    @_never_raises
    def cancelled(self, protocol: str, seconds: float | None = None) -> None:
        """Count a client that disconnected before its response."""
        self._done("cancelled", protocol, seconds)

    @_never_raises
    def stepped(self, batch: int, steps: int, seconds: float) -> None:
        """Count `steps` steps with `batch` requests that took `seconds` in all."""
        if batch < 1 or steps < 1:
            return
        self._all.steps.inc(steps)
        self._all.request_steps.inc(batch * steps)
        _observe(self._all.batch_size, batch)
        # Up to the next power of two, as CUDA graphs are padded: a series for every batch size would be dozens.
        _observe(self._all.step_seconds.labels(str(1 << (batch - 1).bit_length())), seconds / steps)
        self._measure_memory()

    @_never_raises
    def occupancy(self, live: int, waiting: int) -> None:
        """Set how many requests are in the batch and how many wait for a slot."""
        self._all.live.set(live)
        self._all.waiting.set(waiting)
        self._measure_memory()

    def _done(self, outcome: str, protocol: str, seconds: float | None) -> None:
        self._all.requests.labels(outcome, protocol).inc()
        if seconds is not None:
            _observe(self._all.request_seconds.labels(outcome, protocol), seconds)

    def _measure_memory(self) -> None:
        self._all.resident.set(self._process.memory_info().rss)
        if self._device.startswith("cuda"):
            import torch.cuda as cuda

            for kind, measure in (
                ("allocated", cuda.memory_allocated),
                ("reserved", cuda.memory_reserved),
                ("peak", cuda.max_memory_allocated),
            ):
                self._all.device_memory.labels(self._device, kind).set(measure(self._device))


def _observe(histogram: Histogram, value: object, least: float = 0.0) -> None:
    """Observe a finite number of at least `least`. A single NaN would make the histogram's sum NaN for ever."""
    try:
        number = float(value)  # pyright: ignore[reportArgumentType]
    except (TypeError, ValueError):
        return
    if math.isfinite(number) and number >= least:
        histogram.observe(number)
