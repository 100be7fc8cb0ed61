"""One running batch that many requests share: they join and leave between two calls of the handler.

Knows no TorchServe: a turn takes the rows of the requests that are live now and returns the answers of those
that are done. Whoever gets no answer is simply there again in the next turn, with all of its fields, so a
turn may leave for the next what does not fit into its time.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from handlers.answers import Answer, failure, picture, refusal
from handlers.pace import Pace
from handlers.requests import Row, read_request
from voicestyle.errors import CallerError
from voicestyle.options import Options

if TYPE_CHECKING:
    from voicestyle.pipeline import Pipeline

log = logging.getLogger("voicestyle.handler")

TURN_SECONDS: Final = 0.15  # a newcomer waits about this long; TorchServe itself costs 5 to 10 ms a call


class ContinuousBatch:
    """Drives a pipeline in turns; `clock` counts seconds."""

    def __init__(self, pipeline: Pipeline, clock: Callable[[], float] = time.perf_counter) -> None:
        self._pipeline = pipeline
        self._clock = clock
        self._pace = Pace(TURN_SECONDS)
        self._began: dict[str, float] = {}  # when each live request was taken in, oldest first
        self._model = f"{pipeline.manifest.name}@{pipeline.manifest.version}"

    def turn(self, rows: Sequence[Row]) -> dict[str, Answer]:
        """Take newcomers in, let go of those not in `rows`, step all, and return the answers that are ready.

        Never raises for a request's sake: whatever goes wrong with one is that one's answer, and a step that
        fails is the answer of all that were in it.
        """
        deadline = self._clock() + TURN_SECONDS
        self._let_go({row.id for row in rows})
        answers = self._admit(rows, deadline)
        try:
            finished = self._step()
        except Exception:
            log.exception("a step failed; requests %s get a 500", ", ".join(self._began))
            return answers | {key: self._fail(key) for key in list(self._began)}
        return answers | self._finish(finished, deadline)

    def discard(self, key: str) -> None:
        """Forget a request wherever it stands; no error if it is unknown."""
        self._began.pop(key, None)
        with suppress(Exception):  # it may never have got into the pipeline
            self._pipeline.remove(key)

    def _let_go(self, present: set[str]) -> None:
        for key in self._began.keys() - present:
            log.info("request %s: left before its face was done", key)
            self.discard(key)

    def _admit(self, rows: Sequence[Row], deadline: float) -> dict[str, Answer]:
        answers: dict[str, Answer] = {}
        for row in rows:
            if row.id in self._began:
                continue
            if self._pipeline.live >= self._pipeline.capacity:
                break
            began = self._clock()
            try:
                audio, words = read_request(row)
                self._pipeline.submit(row.id, audio, Options.parse(words))
                self._began[row.id] = began
            except CallerError as error:
                # Not the message: it may quote the caller.
                log.info("request %s: refused, %s %s", row.id, error.status, error.code)
                answers[row.id] = refusal(error, row.id)
            except Exception:
                log.exception("request %s: failed before its first step", row.id)
                answers[row.id] = self._fail(row.id)
            if self._clock() >= deadline:
                break  # those who run must not wait for a crowd of newcomers to be decoded
        return answers

    def _step(self) -> list[str]:
        """Step whoever is unfinished; return the ids of the finished, the longest waiting first."""
        left = self._steps_left()
        if left:
            # No further than the first to finish, so that its place is free in the next turn.
            steps = min(self._pace.steps(len(left)), *left.values())
            began = self._clock()
            self._pipeline.step(steps)
            still_left = self._steps_left()  # waits for the device, so that the time below is the steps' own
            self._pace.note(len(left), steps, self._clock() - began)
            left = still_left
        return [key for key in self._began if key not in left]

    def _steps_left(self) -> dict[str, int]:
        """The steps to go of each request that is not finished."""
        if not self._began:
            return {}
        return {key: p.steps - p.step for key, p in self._pipeline.progress().items() if not p.finished}

    def _finish(self, finished: Sequence[str], deadline: float) -> dict[str, Answer]:
        answers: dict[str, Answer] = {}
        for key in finished:
            if answers and self._clock() >= deadline:
                break  # rendering takes its time too; the rest is rendered in the next turns
            try:
                answers[key] = self._picture(key)
            except Exception:
                log.exception("request %s: its face could not be rendered", key)
                answers[key] = self._fail(key)
        return answers

    def _picture(self, key: str) -> Answer:
        face = self._pipeline.finish(key)
        ms = 1000 * (self._clock() - self._began.pop(key))
        shared = face.largest_batch
        log.info("request %s: %d steps in a batch of up to %d, %.0f ms", key, face.steps, shared, ms)
        return picture(face, self._model)

    def _fail(self, key: str) -> Answer:
        self.discard(key)
        return failure(key)
