"""What a worker counts and measures, for Prometheus; docs/metrics.md lists all of it.

With `PROMETHEUS_MULTIPROC_DIR` in the environment before Python starts, the values live in memory-mapped files of
that folder, so what a killed worker counted stays; `voicestyle.serving.metrics_endpoint` serves them. Without it
they live in this process. Nothing here may disturb a request: a value that is no finite number is left out, and
whatever else goes wrong is logged once.
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

if TYPE_CHECKING:
    from voicestyle.face import Face

log = logging.getLogger("voicestyle.metrics")

FOLDER: Final = "PROMETHEUS_MULTIPROC_DIR"
PROTOCOLS: Final = ("http", "grpc")
OUTCOMES: Final = ("face", "refused", "failed", "left")
REFUSALS: Final = (
    *("bad_option", "too_large", "too_long", "not_audio", "no_speech", "too_short"),
    *("overloaded", "draining"),
)
# A refusal takes milliseconds, a face seconds, one that waited in a full queue minutes.
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
    """All families, on one registry; those whose labels are known begin at 0, so that `increase()` misses nothing."""

    def __init__(self, registry: CollectorRegistry) -> None:
        def counter(name: str, text: str, labels: Iterable[str] = ()) -> Counter:
            return Counter(f"voicestyle_{name}", text, labels, registry=registry)

        def total(name: str, text: str, labels: Iterable[str] = ()) -> Gauge:
            return Gauge(f"voicestyle_{name}", text, labels, registry=registry, multiprocess_mode="livesum")

        def histogram(name: str, text: str, buckets: tuple[float, ...], labels: Iterable[str] = ()) -> Histogram:
            return Histogram(f"voicestyle_{name}", text, labels, registry=registry, buckets=buckets)

        outcome = ("outcome", "protocol")
        self.received = counter("received_total", "Requests that reached a worker", ("protocol",))
        self.requests = counter("requests_total", "Requests that a worker is done with", outcome)
        self.refusals = counter("refusals_total", "Requests refused, by the error's code", ("code", "protocol"))
        self.request_seconds = histogram(
            "request_seconds", "Seconds from first seen to answered", REQUEST_SECONDS, outcome
        )
        self.stage_seconds = histogram("stage_seconds", "Seconds a face spent in a stage", STAGE_SECONDS, ("stage",))
        self.step_seconds = histogram("step_seconds", "Seconds per optimisation step", STEP_SECONDS, ("batch",))
        self.batch_size = histogram("batch_size", "Requests that shared a call's steps", BATCH_SIZES)
        self.steps = counter("steps_total", "Optimisation steps of the batch")
        self.request_steps = counter("request_steps_total", "Optimisation steps, counted once for each request in them")
        self.live = total("live_requests", "Requests in the batch, and finished ones whose file is being made")
        self.waiting = total("waiting_requests", "Requests in a worker that wait for a place in the batch")
        self.capacity = total("capacity_requests", "Most requests in the batch")
        self.first_similarity = histogram("first_similarity", "cos(voice, face) of a face's first step", SIMILARITIES)
        self.similarity = histogram("similarity", "cos(voice, face) of a face's last step", SIMILARITIES)
        self.audio_seconds = histogram("audio_seconds", "Seconds of audio behind a face", AUDIO_SECONDS)
        self.speech_seconds = histogram("speech_seconds", "Seconds of speech behind a face", AUDIO_SECONDS)
        self.resident = total("resident_memory_bytes", "The workers' resident memory")
        self.device_memory = total("device_memory_bytes", "CUDA memory of PyTorch's allocator", ("device", "kind"))
        self.starts = counter("worker_starts_total", "Workers that were started")
        # The newest one wins, so that a worker that another one replaces is not summed up to 2.
        self.build = Gauge(
            "voicestyle_build_info",
            "Always 1; the labels say what is running",
            ("version", "torch", "python", "device", "dtype", "model", "bundle_version", "capacity"),
            registry=registry,
            multiprocess_mode="livemostrecent",
        )
        for protocol in PROTOCOLS:
            self.received.labels(protocol)
            for each in OUTCOMES:
                self.requests.labels(each, protocol)
            for code in REFUSALS:
                self.refusals.labels(code, protocol)
        self.starts.inc()


_INSTRUMENTS: Final[WeakKeyDictionary[CollectorRegistry, _Instruments]] = WeakKeyDictionary()
_complained: Final[set[str]] = set()


def _harmless(
    method: Callable[Concatenate[Metrics, P], None],
) -> Callable[Concatenate[Metrics, P], None]:
    """Log what `method` raises, once, instead of raising it."""

    @wraps(method)
    def guarded(self: Metrics, /, *args: P.args, **kwargs: P.kwargs) -> None:
        try:
            method(self, *args, **kwargs)
        except Exception:
            if method.__name__ not in _complained:
                _complained.add(method.__name__)
                log.exception("Metrics.%s failed; more of the same is not logged", method.__name__)

    return guarded


class Metrics:
    """A worker's metrics. Two of the same registry share their instruments.

    registry: prometheus_client's own unless given. protocol is "http" or "grpc" throughout; all times are seconds.
    Only making one can raise: OSError where the folder of `PROMETHEUS_MULTIPROC_DIR` cannot be written.
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

    @_harmless
    def describe(self, *, model: str, version: str, device: str, dtype: str, capacity: int) -> None:
        """Say once what is running: the bundle, on "cpu" or "cuda:0", in "float32" or another, places in the batch."""
        self._device = device
        self._all.capacity.set(capacity)
        self._all.build.labels(
            version=__version__,
            torch=installed_version("torch"),
            python=platform.python_version(),
            device=device,
            dtype=dtype,
            model=model,
            bundle_version=version,
            capacity=str(capacity),
        ).set(1)
        self._measure_memory()

    @_harmless
    def received(self, protocol: str) -> None:
        """Count a request that is seen for the first time."""
        # Its first turn may last as long as a whole face; whoever waits for idle must see it before that turn ends.
        self._all.waiting.inc()
        self._all.received.labels(protocol).inc()

    @_harmless
    def finished(self, protocol: str, face: Face, seconds: float) -> None:
        """Count a face, `seconds` after its request was first seen."""
        self._done("face", protocol, seconds)
        _observe(self._all.similarity, face.similarity, least=-math.inf)
        _observe(self._all.first_similarity, face.first_similarity, least=-math.inf)
        _observe(self._all.audio_seconds, face.audio_seconds)
        _observe(self._all.speech_seconds, face.speech_seconds)
        for stage, took in face.timings.items():
            _observe(self._all.stage_seconds.labels(stage), took)

    @_harmless
    def refused(self, protocol: str, code: str, seconds: float | None = None) -> None:
        """Count a caller's mistake, or a request turned away as `overloaded` or `draining`."""
        self._all.refusals.labels(code, protocol).inc()
        self._done("refused", protocol, seconds)

    @_harmless
    def failed(self, protocol: str, seconds: float | None = None) -> None:
        """Count a fault of ours."""
        self._done("failed", protocol, seconds)

    @_harmless
    def left(self, protocol: str, seconds: float | None = None) -> None:
        """Count a client that was gone before its answer."""
        self._done("left", protocol, seconds)

    @_harmless
    def stepped(self, batch: int, steps: int, seconds: float) -> None:
        """Take in that `steps` steps with `batch` requests took `seconds`."""
        if batch < 1 or steps < 1:
            return
        self._all.steps.inc(steps)
        self._all.request_steps.inc(batch * steps)
        _observe(self._all.batch_size, batch)
        # To the next power of two: one series per batch size would be dozens, and CUDA graphs are padded like this.
        _observe(self._all.step_seconds.labels(str(1 << (batch - 1).bit_length())), seconds / steps)
        self._measure_memory()

    @_harmless
    def occupancy(self, live: int, waiting: int) -> None:
        """Say how many requests are in the batch and how many wait for a place in it."""
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
    """Observe a finite number of at least `least`; one NaN would stay in the histogram's sum for ever."""
    try:
        number = float(value)  # pyright: ignore[reportArgumentType]
    except (TypeError, ValueError):
        return
    if math.isfinite(number) and number >= least:
        histogram.observe(number)
