"""One running batch that many requests share: each joins and leaves it between two calls of the handler.

An iteration takes the rows of all live requests and returns the responses that are ready. Requests without a response
are passed again in the next call, so an iteration may leave for the next one what does not fit into its time.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from voicestyle.errors import InputError
from voicestyle.options import Options
from voicestyle.pipeline import FaceRequest
from voicestyle.scheduling import Admission, Phase, Scheduler
from voicestyle.worker.metrics import Metrics
from voicestyle.worker.previews import PreviewStream
from voicestyle.worker.request_parser import Protocol, Row, parse_request
from voicestyle.worker.responses import Response, error_response, image_response, internal_error, json_response
from voicestyle.worker.service_config import ServiceConfig

if TYPE_CHECKING:
    from voicestyle.face import Face
    from voicestyle.pipeline import Pipeline, Progress

log = logging.getLogger("voicestyle.handler")

MAX_RETRY_AFTER: Final = 60  # seconds
ENCODER_THREADS: Final = 2  # a PNG of 1024 pixels takes one about 50 ms, in which a GPU takes steps
MAX_FAILED_STEPS: Final = 3  # in a row; a CUDA context never recovers from an error


@dataclass(eq=False, kw_only=True)
class ServiceRequest(FaceRequest):
    """The record of a request of the service. received: when it was first seen, in seconds of the batch's clock."""

    protocol: Protocol
    received: float
    stream: PreviewStream | None = None  # if it asked for previews
    face: Future[Face] | None = None  # in the phase ENCODING


class ContinuousBatch:
    """Runs a pipeline in iterations. draining: whether new requests are rejected. clock: counts seconds."""

    def __init__(
        self,
        pipeline: Pipeline,
        config: ServiceConfig,
        *,
        metrics: Metrics,
        draining: Callable[[], bool] = lambda: False,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._pipeline = pipeline
        self._config = config
        self._metrics = metrics
        self._draining = draining
        self._clock = clock
        self._scheduler = Scheduler[ServiceRequest](
            pipeline.capacity,
            config.queue_of(pipeline.capacity),
            batched=pipeline.batched,
            iteration_seconds=config.iteration_seconds,
            clock=clock,
        )
        self._encoders = ThreadPoolExecutor(ENCODER_THREADS, "encoder")
        self._face_seconds = 1.0  # moving average, for Retry-After
        self._failed_steps = 0
        self._model = f"{pipeline.manifest.name}@{pipeline.manifest.version}"

    @property
    def broken(self) -> bool:
        """Whether the last steps all failed, so that this process should be replaced."""
        return self._failed_steps >= MAX_FAILED_STEPS

    def iterate(self, rows: Sequence[Row]) -> dict[str, Response]:
        """Admit new requests, drop disconnected ones, render those without steps, and step the batch.

        Returns responses by request id.

        Never raises because of one request: an error with one is the response to that one, and a step that fails is
        the response to all requests in the batch.
        """
        self._scheduler.begin()
        self._drop_disconnected({row.id for row in rows})
        responses = self._admit(rows)
        try:
            self._pipeline.start(self._scheduler.start_waiting())
            while requests := self._scheduler.next_without_steps():
                responses |= self._render(requests)
            progress = self._step()
        except Exception:
            self._failed_steps += 1
            failed = self._scheduler.in_phase(Phase.RUNNING, Phase.RENDERING)
            log.exception("a step failed; requests %s get a 500", ", ".join(request.id for request in failed))
            responses |= {request.id: self._fail(request) for request in failed}
        else:
            responses |= self._collect_events(progress)
            while request := self._scheduler.next_to_render():
                responses |= self._render([request])
        responses |= self._collect_faces()
        for request in self._scheduler.requests.values():
            if request.id not in responses and request.stream and (chunk := request.stream.next_chunk()):
                responses[request.id] = chunk
        waiting = self._scheduler.count(Phase.WAITING)
        self._metrics.occupancy(len(self._scheduler.requests) - waiting, waiting)
        return responses

    def fail(self, row: Row) -> Response:
        """Forget a request in whatever phase it is; returns the response that says so."""
        request = self._scheduler.requests.get(row.id)
        return internal_error(row.id) if request is None else self._fail(request)

    def _fail(self, request: ServiceRequest) -> Response:
        with suppress(Exception):  # whether it is in the pipeline is unknown after an error
            self._pipeline.remove(request)
        self._forget(request)
        self._metrics.failed(request.protocol, self._clock() - request.received)
        return internal_error(request.id, is_chunk=request.stream is not None and request.stream.started)

    def _forget(self, request: ServiceRequest) -> None:
        if request.face:
            request.face.cancel()
        self._scheduler.finish(request)

    def _drop_disconnected(self, present: set[str]) -> None:
        for request in list(self._scheduler.requests.values()):
            if request.id not in present:
                if request.phase is Phase.RUNNING:
                    self._pipeline.remove(request)
                self._forget(request)
                self._metrics.cancelled(request.protocol, self._clock() - request.received)
                log.info("request %s: client disconnected before completion", request.id)

    def _admit(self, rows: Sequence[Row]) -> dict[str, Response]:
        """Prepare new requests; returns the responses to those that are rejected or fail."""
        responses: dict[str, Response] = {}
        draining = self._draining()
        for row in rows:
            if row.id in self._scheduler.requests:
                continue
            match self._scheduler.admission(draining=draining):
                case Admission.ADMIT:
                    response = self._prepare_request(row)
                case Admission.REJECT_DRAINING:
                    response = self._reject(row, "draining", "the server is shutting down; retry on another one")
                case Admission.REJECT_OVERLOADED:
                    message = f"the queue is full ({self._scheduler.limit} requests)"
                    response = self._reject(row, "overloaded", message)
                case Admission.DEFER:
                    continue
            if response:
                responses[row.id] = response
        return responses

    def _prepare_request(self, row: Row) -> Response | None:
        """Prepare and queue a new request; returns the response if it gets no face."""
        received = self._clock()
        self._metrics.received(row.protocol)
        try:
            audio, options = parse_request(row, self._config.audio_bytes)
            prepared = self._pipeline.prepare(audio, Options.parse(options))
        except InputError as error:
            # Not the message: it may quote what the client sent.
            log.info("request %s: rejected, %d %s", row.id, error.status, error.code)
            self._metrics.refused(row.protocol, error.code, self._clock() - received)
            return error_response(error.code, error.message, row.id)
        except Exception:
            log.exception("request %s: failed before its first step", row.id)
            self._metrics.failed(row.protocol, self._clock() - received)
            return internal_error(row.id)
        request = ServiceRequest.of(row.id, prepared, protocol=row.protocol, received=received)
        if request.previews:
            request.stream = PreviewStream(row.id, row.protocol, self._model, prepared.settings)
        self._scheduler.add(request)
        return None

    def _reject(self, row: Row, code: str, message: str) -> Response:
        log.info("request %s: rejected, 503 %s", row.id, code)
        self._metrics.received(row.protocol)
        self._metrics.refused(row.protocol, code)
        retry_after = math.ceil(self._face_seconds / self._scheduler.capacity)
        return error_response(code, message, row.id, min(max(retry_after, 1), MAX_RETRY_AFTER))

    def _step(self) -> dict[str, Progress]:
        """Take the steps of this iteration; returns the progress of the requests that were in them."""
        plan = self._scheduler.plan()
        began = self._clock()
        for requests in plan.steps:
            self._pipeline.step(requests)
        progress = self._pipeline.progress(plan.requests)  # waits for the device, so that the time is that of the steps
        seconds = self._clock() - began
        self._scheduler.record_steps(plan, seconds)
        if plan.steps:
            self._metrics.stepped(plan.batch, len(plan.steps), seconds)
            self._failed_steps = 0
        return progress

    def _collect_events(self, progress: dict[str, Progress]) -> dict[str, Response]:
        """Collect progress and previews for clients that asked for them; returns the responses to those that fail."""
        responses: dict[str, Response] = {}
        for request in self._scheduler.in_phase(Phase.RUNNING, Phase.RENDERING):
            if request.stream and request.id in progress:
                request.stream.add_progress(progress[request.id])
                if request.step in request.preview_steps:
                    try:
                        request.stream.add_preview(progress[request.id], self._pipeline.preview(request))
                    except Exception:
                        log.exception("request %s: the preview failed", request.id)
                        responses[request.id] = self._fail(request)
        return responses

    def _render(self, requests: Sequence[ServiceRequest]) -> dict[str, Response]:
        """Render requests that have no steps left, and encode their images in other threads.

        Returns the responses to those that fail.
        """
        try:
            rendered = self._pipeline.render_all(requests)
        except Exception:
            if len(requests) > 1:  # the error is the response to the requests that cause it alone
                return {key: failed for request in requests for key, failed in self._render([request]).items()}
            (request,) = requests
            log.exception("request %s: the image could not be rendered", request.id)
            return {request.id: self._fail(request)}
        for request, each in zip(requests, rendered, strict=True):
            request.face = self._encoders.submit(each.encode)
        return {}

    def _collect_faces(self) -> dict[str, Response]:
        """The responses to requests whose image is encoded. Waits for one if nothing else is left to do."""
        responses: dict[str, Response] = {}
        encoding = {request.face: request for request in self._scheduler.in_phase(Phase.ENCODING) if request.face}
        if len(encoding) == len(self._scheduler.requests):
            wait(encoding, self._config.iteration_seconds, FIRST_COMPLETED)
        for future, request in encoding.items():
            if future.done():
                try:
                    responses[request.id] = self._respond(request, future.result())
                except Exception:
                    log.exception("request %s: the image could not be encoded", request.id)
                    responses[request.id] = self._fail(request)
        return responses

    def _respond(self, request: ServiceRequest, face: Face) -> Response:
        if request.stream:
            response = request.stream.finish(face)
        elif request.protocol == "grpc" or face.settings.output == "json":
            response = json_response(face, self._model, request.id)
        else:
            response = image_response(face, self._model)
        self._scheduler.finish(request)
        seconds = self._clock() - request.received
        self._face_seconds += 0.2 * (seconds - self._face_seconds)
        self._metrics.finished(request.protocol, face, seconds)
        log.info(
            "request %s: %d steps in a batch of up to %d, %.0f ms",
            request.id,
            request.steps,
            request.largest_batch,
            1000 * seconds,
        )
        return response
