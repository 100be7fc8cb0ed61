"""One running batch that many requests share: they join and leave between two calls of the handler.

Knows no TorchServe: a turn takes the rows of the requests that are there now and returns what is to be told to
whom. Whoever is told nothing is simply there again in the next turn, with all of its fields, so a turn may leave for
the next what does not fit into its time.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from voicestyle.errors import InputError
from voicestyle.options import Options
from voicestyle.worker.live_request import LiveRequest
from voicestyle.worker.metrics import Metrics
from voicestyle.worker.request_parser import Row, read_request
from voicestyle.worker.responses import Answer, failure, refusal, unavailable
from voicestyle.worker.service_config import ServiceConfig
from voicestyle.worker.step_budget import StepBudget

if TYPE_CHECKING:
    from voicestyle.engine import Progress
    from voicestyle.face import Face
    from voicestyle.pipeline import Pipeline

log = logging.getLogger("voicestyle.handler")

MOST_RETRY_SECONDS: Final = 60
ENCODERS: Final = 2  # threads; a PNG of 1024 pixels takes one some 50 ms, in which a GPU takes steps
BROKEN_AFTER: Final = 3  # failed steps in a row; a CUDA context that was poisoned never recovers


class ContinuousBatch:
    """Drives a pipeline in turns. `clock` counts seconds; `draining` tells whether newcomers are to be sent away."""

    def __init__(
        self,
        pipeline: Pipeline,
        limits: ServiceConfig | None = None,
        *,
        metrics: Metrics,
        draining: Callable[[], bool] = lambda: False,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._pipeline = pipeline
        self._limits = limits or ServiceConfig()
        self._metrics = metrics
        self._draining = draining
        self._clock = clock
        self._budget = StepBudget(self._limits.iteration_seconds)
        self._requests: dict[str, LiveRequest] = {}  # in the order in which they came
        self._encoders = ThreadPoolExecutor(ENCODERS, "encoder")
        self._encoding: dict[str, Future[Face]] = {}  # out of the pipeline, and not yet answered
        self._face_seconds = 1.0  # a running mean, for Retry-After
        self._failed_steps = 0
        self._model = f"{pipeline.manifest.name}@{pipeline.manifest.version}"

    @property
    def broken(self) -> bool:
        """Whether the last steps all failed, so that this process had better be replaced."""
        return self._failed_steps >= BROKEN_AFTER

    def turn(self, rows: Sequence[Row]) -> dict[str, Answer]:
        """Take newcomers in, let go of those not in `rows`, step all, and return what is to be told.

        Never raises for a request's sake: whatever goes wrong with one is that one's answer, and a step that
        fails is the answer of all that were in it.
        """
        deadline = self._clock() + self._limits.iteration_seconds
        self._let_go({row.id for row in rows})
        answers = self._admit(rows, deadline)
        try:
            self._fill()
            progress = self._step()
        except Exception:
            self._failed_steps += 1
            running = [key for key, each in self._requests.items() if each.in_batch and key not in self._encoding]
            log.exception("a step failed; requests %s get a 500", ", ".join(running))
            answers |= {key: self.fail(key) for key in running}
        else:
            answers |= self._tell(progress)
            answers |= self._render(progress, deadline)
        answers |= self._finish()
        for key, request in self._requests.items():
            if key not in answers and (chunk := request.chunk()):
                answers[key] = chunk
        running = self._pipeline.live + len(self._encoding)
        self._metrics.occupancy(running, len(self._requests) - running)
        return answers

    def fail(self, key: str, row: Row | None = None) -> Answer:
        """Forget a request wherever it stands and return the answer that says so."""
        request = self._requests.pop(key, None)
        if file := self._encoding.pop(key, None):
            file.cancel()
        with suppress(Exception):  # it may never have got into the pipeline
            self._pipeline.remove(key)
        if request is not None:
            self._metrics.failed(request.protocol, self._clock() - request.began)
            return request.fail()
        return failure(key).over(row.protocol if row else "http")

    def _let_go(self, present: set[str]) -> None:
        for key in self._requests.keys() - present:
            request = self._requests.pop(key)
            if key in self._encoding:
                self._encoding.pop(key).cancel()
            elif request.in_batch:
                self._pipeline.remove(key)
            self._metrics.left(request.protocol, self._clock() - request.began)
            log.info("request %s: its client left before the face was done", key)

    def _admit(self, rows: Sequence[Row], deadline: float) -> dict[str, Answer]:
        """Hear newcomers; those that cannot be taken are answered at once."""
        answers: dict[str, Answer] = {}
        places = self._limits.live_requests + self._limits.queue - len(self._requests)
        draining = self._draining()
        for row in rows:
            if row.id in self._requests:
                continue
            if draining:
                answers[row.id] = self._send_away(row, "draining", "this server is stopping; ask another")
            elif places <= 0:
                most = self._limits.live_requests + self._limits.queue
                answers[row.id] = self._send_away(row, "overloaded", f"{most} requests are here, no more may be")
            elif self._clock() < deadline:
                if answer := self._take_in(row):
                    answers[row.id] = answer
                else:
                    places -= 1
            else:
                places -= 1  # heard in the next turn: those who run must not wait for a crowd to be decoded
        return answers

    def _take_in(self, row: Row) -> Answer | None:
        """Hear one newcomer; its answer, if it gets no face."""
        began, protocol = self._clock(), row.protocol
        self._metrics.received(protocol)
        try:
            audio, words = read_request(row, self._limits.audio_bytes)
            prepared = self._pipeline.prepare(audio, Options.parse(words))
        except InputError as error:
            # Not the message: it may quote the caller.
            log.info("request %s: refused, %s %s", row.id, error.status, error.code)
            self._metrics.refused(protocol, error.code, self._clock() - began)
            answer = refusal(error, row.id)
        except Exception:
            log.exception("request %s: failed before its first step", row.id)
            self._metrics.failed(protocol, self._clock() - began)
            answer = failure(row.id)
        else:
            self._requests[row.id] = LiveRequest(row.id, protocol, began, self._model, prepared)
            return None
        return answer.over(protocol)

    def _send_away(self, row: Row, code: str, message: str) -> Answer:
        log.info("request %s: refused, 503 %s", row.id, code)
        self._metrics.received(row.protocol)
        self._metrics.refused(row.protocol, code)
        soonest = math.ceil(self._face_seconds / self._limits.live_requests)
        return unavailable(code, message, row.id, min(max(soonest, 1), MOST_RETRY_SECONDS)).over(row.protocol)

    def _fill(self) -> None:
        """Let those who wait join the batch, as far as there are places."""
        for request in self._requests.values():
            if self._pipeline.live >= self._pipeline.capacity:
                return
            if not request.in_batch:
                self._pipeline.join(request.id, request.prepared)
                request.in_batch = True

    def _step(self) -> dict[str, Progress]:
        """Step whoever is unfinished; return where all are."""
        progress = self._progress()
        marks = {
            key: min(p.steps, self._requests[key].next_preview or p.steps)
            for key, p in progress.items()
            if not p.finished
        }
        if not marks:
            return progress
        # No further than the first to finish or to be shown, so that its place is free in the next turn.
        together = self._pipeline.together
        batch = len(marks) if together else 1
        most = self._budget.steps(batch)
        if together:
            most = min(most, *(mark - progress[key].step for key, mark in marks.items()))
        began = self._clock()
        steps = 0
        while steps < most and (together or all(progress[key].step < mark for key, mark in marks.items())):
            self._pipeline.advance()
            steps += 1
            if not together or steps == most:
                progress = self._progress()  # waits for the device, so that the time below is the steps' own
        seconds = self._clock() - began
        self._budget.note(batch, steps, seconds)
        self._metrics.stepped(batch, steps, seconds)
        self._failed_steps = 0
        return progress

    def _progress(self) -> dict[str, Progress]:
        return self._pipeline.progress() if self._pipeline.live else {}

    def _tell(self, progress: dict[str, Progress]) -> dict[str, Answer]:
        """Note progress and previews for those who want to hear of them; the answers of those who cannot be shown."""
        answers: dict[str, Answer] = {}
        for key, at in progress.items():
            request = self._requests[key]
            request.note_progress(at)
            if at.step == request.next_preview:
                try:
                    request.note_preview(at, self._pipeline.preview(key))
                except Exception:
                    log.exception("request %s: no preview could be made", key)
                    answers[key] = self.fail(key)
        return answers

    def _render(self, progress: dict[str, Progress], deadline: float) -> dict[str, Answer]:
        """Render who is finished, and give the pixels to a thread that makes a file of them."""
        answers: dict[str, Answer] = {}
        finished = [key for key in self._requests if key in progress and progress[key].finished]
        for number, key in enumerate(finished):
            if number and self._clock() >= deadline:
                break  # rendering takes its time too; the rest is rendered in the next turns
            try:
                self._encoding[key] = self._encoders.submit(self._pipeline.render(key).encoded)
            except Exception:
                log.exception("request %s: its face could not be rendered", key)
                answers[key] = self.fail(key)
        return answers

    def _finish(self) -> dict[str, Answer]:
        """The answers of those whose files are done. Waits for one where there is nothing to step."""
        answers: dict[str, Answer] = {}
        if len(self._encoding) == len(self._requests):
            wait(self._encoding.values(), self._limits.iteration_seconds, FIRST_COMPLETED)
        for key in [key for key, file in self._encoding.items() if file.done()]:
            try:
                face = self._encoding.pop(key).result()
            except Exception:
                log.exception("request %s: its face could not be encoded", key)
                answers[key] = self.fail(key)
                continue
            request = self._requests.pop(key)
            answers[key] = request.finish(face)
            seconds = self._clock() - request.began
            self._face_seconds += 0.2 * (seconds - self._face_seconds)
            self._metrics.finished(request.protocol, face, seconds)
            shared = face.largest_batch
            log.info("request %s: %d steps in a batch of up to %d, %.0f ms", key, face.steps, shared, 1000 * seconds)
        return answers
