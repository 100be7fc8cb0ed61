"""One running batch that many requests share: each joins and leaves it between two calls of the handler.

An iteration takes the rows of all live requests and returns the responses that are ready. Requests without a response
are passed again in the next call, so an iteration may leave for the next one what does not fit into its time.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ALL_COMPLETED, FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from voicestyle.errors import InputError
from voicestyle.options import Options
from voicestyle.pipeline import FaceRequest
from voicestyle.scheduling import Admission, Phase, Scheduler
from voicestyle.worker.metrics import Metrics
from voicestyle.worker.pipeline_calls import DEVICE_FAILED, INTERNAL, OUT_OF_MEMORY, DeviceFailedError, PipelineCalls
from voicestyle.worker.previews import PreviewStream
from voicestyle.worker.request_parser import Protocol, Row, parse_request
from voicestyle.worker.responses import Response, error_response, fault_response, image_response, json_response
from voicestyle.worker.service_config import ServiceConfig

if TYPE_CHECKING:
    from voicestyle.face import Face
    from voicestyle.pipeline import Pipeline, Progress

log = logging.getLogger("voicestyle.handler")

ENCODER_THREADS: Final = 2  # a PNG of 1024 pixels takes one about 50 ms, in which a GPU takes steps
MAX_FAILED: Final = 3  # iterations in a row whose steps, or whose faces without steps, all failed without explanation
LAST_ENCODING_SECONDS: Final = 10.0  # for the images that are being encoded when the device fails


@dataclass(eq=False, kw_only=True)
class ServiceRequest(FaceRequest):
    """The record of a request of the service. received: when it was first seen, in seconds of the batch's clock."""

    protocol: Protocol
    received: float
    stream: PreviewStream | None = None  # if it asked for previews
    face: Future[Face] | None = None  # in the phase ENCODING


class ContinuousBatch:
    """Runs a pipeline in iterations.

    draining: whether new requests are rejected. restart_seconds: how long a new worker takes to start, for Retry-After.
    clock: counts seconds.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        config: ServiceConfig,
        *,
        metrics: Metrics,
        draining: Callable[[], bool] = lambda: False,
        restart_seconds: float = 5.0,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._pipeline = PipelineCalls(pipeline)
        self._config = config
        self._metrics = metrics
        self._draining = draining
        self._restart_seconds = restart_seconds
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
        self._received = set[str]()  # the new requests of an iteration that were counted so far
        self._device_failed = False
        self._failed_steps = 0
        self._failed_without_steps = 0
        self._model = f"{pipeline.manifest.name}@{pipeline.manifest.version}"

    @property
    def broken(self) -> bool:
        """Whether this process should be replaced: the device failed, or all that was tried in the last iterations."""
        return self._device_failed or max(self._failed_steps, self._failed_without_steps) >= MAX_FAILED

    def iterate(self, rows: Sequence[Row]) -> dict[str, Response]:
        """Drop disconnected requests, admit new ones, render those without steps, and step the batch.

        Returns responses by request id.

        Never raises: an error with one request is the response to that one, and a step that fails is the response to
        the requests in it. When the device fails, every request has a response, and the batch is `broken`.
        """
        responses: dict[str, Response] = {}
        try:
            self._iterate(rows, responses)
        except DeviceFailedError as failure:
            self._device_failed = True
            self._give_up(rows, responses, failure)
        waiting = self._scheduler.count(Phase.WAITING)
        self._metrics.occupancy(len(self._scheduler.requests) - waiting, waiting)
        return responses

    def _iterate(self, rows: Sequence[Row], responses: dict[str, Response]) -> None:
        """The same, but raises DeviceFailedError; `responses` has those that were ready by then."""
        try:
            self._run_stages(rows, responses)
        except Exception:
            left = [row for row in rows if row.id not in responses]
            log.exception("an iteration failed; requests %s get a 500", ", ".join(row.id for row in left))
            known = [self._scheduler.requests[row.id] for row in left if row.id in self._scheduler.requests]
            self._fail(dict.fromkeys(known, INTERNAL), responses)
            responses |= {row.id: self._fail_row(row, INTERNAL) for row in left if row.id not in responses}

    def _run_stages(self, rows: Sequence[Row], responses: dict[str, Response]) -> None:
        self._received.clear()
        self._scheduler.begin()
        self._drop_disconnected({row.id for row in rows})
        self._admit(rows, responses)
        self._make_faces_without_steps(responses)
        self._collect_events(self._step(responses), responses)
        while request := self._scheduler.next_to_render():
            self._fail(self._render([request]), responses)
        self._collect_faces(responses)
        for request in self._scheduler.requests.values():
            if request.id not in responses and request.stream and (chunk := request.stream.next_chunk()):
                responses[request.id] = chunk

    def _give_up(self, rows: Sequence[Row], responses: dict[str, Response], failure: DeviceFailedError) -> None:
        """Respond to all requests without the device: a face to those whose image is being encoded, else an error."""
        encoding = [request.face for request in self._scheduler.in_phase(Phase.ENCODING) if request.face]
        wait(encoding, LAST_ENCODING_SECONDS, ALL_COMPLETED)
        self._collect_faces(responses)
        left = [row for row in rows if row.id not in responses]
        ids = ", ".join(row.id for row in left) or "none"
        log.critical("the device failed, so this worker ends; requests with a 503: %s", ids, exc_info=failure.__cause__)
        responses |= {row.id: self._fail_row(row, DEVICE_FAILED) for row in left}

    def _fail_row(self, row: Row, code: str) -> Response:
        """Forget the request of a row, which may not have been admitted; returns the response that says why."""
        if request := self._scheduler.requests.get(row.id):
            return self._finish(request, code)
        if row.id not in self._received:
            self._receive(row)
        self._metrics.failed(row.protocol)
        return self._fault(code, row.id)

    def _receive(self, row: Row) -> None:
        self._received.add(row.id)
        self._metrics.received(row.protocol)

    def _fail(self, failed: Mapping[ServiceRequest, str], responses: dict[str, Response]) -> None:
        """Remove failed requests, with their error codes, from the pipeline, and respond to them."""
        for request, code in failed.items():
            if request.phase is Phase.RUNNING:
                self._pipeline.discard([request])
            responses[request.id] = self._finish(request, code)

    def _finish(self, request: ServiceRequest, code: str) -> Response:
        """Forget a request; returns the response that says why."""
        self._forget(request)
        self._metrics.failed(request.protocol, self._clock() - request.received)
        return self._fault(code, request.id, is_chunk=request.stream is not None and request.stream.started)

    def _fault(self, code: str, request_id: str, *, is_chunk: bool = False) -> Response:
        retry_after = {OUT_OF_MEMORY: self._slot_seconds, DEVICE_FAILED: self._restart_seconds}.get(code)
        return fault_response(code, request_id, retry_after, is_chunk=is_chunk)

    def _forget(self, request: ServiceRequest) -> None:
        if request.face:
            request.face.cancel()
        self._scheduler.finish(request)

    def _drop_disconnected(self, present: set[str]) -> None:
        disconnected = [request for request in self._scheduler.requests.values() if request.id not in present]
        running = [request for request in disconnected if request.phase is Phase.RUNNING]
        for request in disconnected:
            self._forget(request)
            self._metrics.cancelled(request.protocol, self._clock() - request.received)
            log.info("request %s: client disconnected before completion", request.id)
        for request in running:  # after all are forgotten, because the device may fail here
            self._pipeline.remove(request)

    def _admit(self, rows: Sequence[Row], responses: dict[str, Response]) -> None:
        """Prepare new requests, and respond to those that are rejected or fail."""
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

    def _prepare_request(self, row: Row) -> Response | None:
        """Prepare and queue a new request; returns the response if it gets no face."""
        received = self._clock()
        self._receive(row)
        try:
            audio, options = parse_request(row, self._config.audio_bytes)
            prepared = self._pipeline.prepare(audio, Options.parse(options), row.id)
        except InputError as error:
            # Not the message: it may quote what the client sent.
            log.info("request %s: rejected, %d %s", row.id, error.status, error.code)
            self._metrics.refused(row.protocol, error.code, self._clock() - received)
            return error_response(error.code, error.message, row.id)
        if isinstance(prepared, str):
            self._metrics.failed(row.protocol, self._clock() - received)
            return self._fault(prepared, row.id)
        request = ServiceRequest.of(row.id, prepared, protocol=row.protocol, received=received)
        if request.previews:
            request.stream = PreviewStream(row.id, row.protocol, self._model, prepared.settings)
        self._scheduler.add(request)
        return None

    def _reject(self, row: Row, code: str, message: str) -> Response:
        log.info("request %s: rejected, 503 %s", row.id, code)
        self._receive(row)
        self._metrics.refused(row.protocol, code)
        return error_response(code, message, row.id, self._slot_seconds)

    @property
    def _slot_seconds(self) -> float:
        """How long it takes on average until a slot of a full batch is free."""
        return self._face_seconds / self._scheduler.capacity

    def _make_faces_without_steps(self, responses: dict[str, Response]) -> None:
        """Start waiting requests, render those without steps, and respond to those that fail."""
        failed = self._pipeline.start(self._scheduler.start_waiting())
        self._fail(failed, responses)
        rendered = 0
        while requests := self._scheduler.next_without_steps():
            unrendered = self._render(requests)
            self._fail(unrendered, responses)
            failed |= unrendered
            rendered += len(requests) - len(unrendered)
        if rendered:
            self._failed_without_steps = 0
        elif INTERNAL in failed.values():
            self._failed_without_steps += 1

    def _step(self, responses: dict[str, Response]) -> Mapping[str, Progress]:
        """Take the steps of this iteration; returns the progress of their requests, or responds if one fails."""
        plan = self._scheduler.plan()
        if not plan.steps:
            return {}
        began = self._clock()
        progress = self._pipeline.step(plan)  # waits for the device, so that the time is that of the steps
        seconds = self._clock() - began
        if isinstance(progress, str):
            self._failed_steps += progress == INTERNAL
            self._fail(dict.fromkeys(plan.requests, progress), responses)
            return {}
        self._scheduler.record_steps(plan, seconds)
        self._metrics.stepped(plan.batch, len(plan.steps), seconds)
        self._failed_steps = self._failed_without_steps = 0
        return progress

    def _collect_events(self, progress: Mapping[str, Progress], responses: dict[str, Response]) -> None:
        """Collect progress and previews for clients that asked for them, and respond to those that fail."""
        for request in self._scheduler.in_phase(Phase.RUNNING, Phase.RENDERING):
            if request.stream and request.id in progress:
                request.stream.add_progress(progress[request.id])
                if request.step in request.preview_steps:
                    preview = self._pipeline.preview(request)
                    if isinstance(preview, str):
                        self._fail({request: preview}, responses)
                    else:
                        request.stream.add_preview(progress[request.id], preview)

    def _render(self, requests: Sequence[ServiceRequest]) -> dict[ServiceRequest, str]:
        """Render requests that have no steps left, and encode their images in other threads.

        Returns the error codes of those that failed.
        """
        failed: dict[ServiceRequest, str] = {}
        for request, rendered in self._pipeline.render(requests):
            if isinstance(rendered, str):
                failed[request] = rendered
            else:
                request.face = self._encoders.submit(rendered.encode)
        return failed

    def _collect_faces(self, responses: dict[str, Response]) -> None:
        """Respond to requests whose image is encoded. Waits for one if nothing else is left to do."""
        encoding = {request.face: request for request in self._scheduler.in_phase(Phase.ENCODING) if request.face}
        if len(encoding) == len(self._scheduler.requests):
            wait(encoding, self._config.iteration_seconds, FIRST_COMPLETED)
        for future, request in encoding.items():
            if future.done():
                try:
                    responses[request.id] = self._respond(request, future.result())
                except Exception:
                    log.exception("request %s: the image could not be encoded", request.id)
                    self._fail({request: INTERNAL}, responses)

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
        summary = "request %s: %d steps in a batch of up to %d, %.0f ms"
        log.info(summary, request.id, request.steps, request.largest_batch, 1000 * seconds)
        return response
