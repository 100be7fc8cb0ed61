"""The calls of a pipeline, with each error assigned to the requests that cause it.

Every call can find that the device failed, also one that has nothing to do with the cause. No later call can succeed
then, so `DeviceFailedError` is not caught where the errors of single requests are.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Final, ParamSpec, TypeVar

from voicestyle.errors import InputError
from voicestyle.pipeline import FaceRequest

if TYPE_CHECKING:
    from voicestyle.face import Preview, Rendered
    from voicestyle.options import Options
    from voicestyle.pipeline import Pipeline, Prepared, Progress
    from voicestyle.scheduling.scheduler import Plan

log = logging.getLogger("voicestyle.handler")

INTERNAL: Final = "internal"
OUT_OF_MEMORY: Final = "out_of_memory"
DEVICE_FAILED: Final = "device_failed"

P = ParamSpec("P")
T = TypeVar("T")
R = TypeVar("R", bound=FaceRequest)


class DeviceFailedError(BaseException):
    """The pipeline can do nothing more; its cause is the error that showed it.

    A BaseException, so that `except Exception` around the work for one request does not catch it.
    """


class PipelineCalls:
    """A pipeline whose methods log an error and return its code of `ERROR_CODES`, `INTERNAL` or `OUT_OF_MEMORY`.

    All of them raise DeviceFailedError when the device failed.
    """

    def __init__(self, pipeline: Pipeline) -> None:
        self._pipeline = pipeline

    def prepare(self, audio: bytes, options: Options, request_id: str) -> Prepared | str:
        """Run all stages before the optimisation. Raises InputError."""
        try:
            return self._call(self._pipeline.prepare, audio, options)
        except InputError:
            raise
        except Exception as error:
            return self._code(error, "request %s: failed before its first step", request_id)

    def start(self, requests: Sequence[R]) -> dict[R, str]:
        """Add requests to the batch; returns the codes of those that failed."""
        try:
            self._call(self._pipeline.start, requests)
            return {}
        except Exception as error:
            if len(requests) == 1:
                return {requests[0]: self._code(error, "request %s: could not be started", requests[0].id)}
        # One by one, so that an error is only that of the request which causes it; and not inside the handler, whose
        # error holds the frames of the failed call, and these hold their tensors.
        self.discard(requests)
        return {failed: code for request in requests for failed, code in self.start([request]).items()}

    def step(self, plan: Plan[R]) -> Mapping[str, Progress] | str:
        """Take the steps of a plan, and wait for them; returns the progress of its requests by id."""
        try:
            for requests in plan.steps:
                self._call(self._pipeline.step, requests)
            return self._call(self._pipeline.progress, plan.requests)
        except Exception as error:
            ids = ", ".join(request.id for request in plan.requests)
            return self._code(error, "a step failed; requests %s get an error", ids)

    def preview(self, request: FaceRequest) -> Preview | str:
        """Render a running request as it is now."""
        try:
            return self._call(self._pipeline.preview, request)
        except Exception as error:
            return self._code(error, "request %s: the preview failed", request.id)

    def render(self, requests: Sequence[R]) -> Iterator[tuple[R, Rendered | str]]:
        """Render requests that have no steps left."""
        rendered: list[Rendered | str] = []
        try:
            rendered += self._call(self._pipeline.render_all, requests)
        except Exception as error:
            if len(requests) == 1:
                rendered = [self._code(error, "request %s: the image could not be rendered", requests[0].id)]
        if rendered:
            yield from zip(requests, rendered, strict=True)
        else:  # for the same reasons as in `start`
            for request in requests:
                yield from self.render([request])

    def remove(self, request: FaceRequest) -> None:
        """Remove a running request from the batch; an error of it is logged alone."""
        try:
            self._call(self._pipeline.remove, request)
        except Exception as error:
            self._code(error, "request %s: could not be removed", request.id)

    def discard(self, requests: Iterable[FaceRequest]) -> None:
        """Remove those of the requests that are in the batch, which is unknown after an error."""
        for request in requests:
            with suppress(Exception):
                self._call(self._pipeline.remove, request)

    def _call(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return call(*args, **kwargs)
        except InputError:
            raise
        except Exception as error:
            if self._pipeline.device_failed(error):
                raise DeviceFailedError from error
            raise

    def _code(self, error: Exception, message: str, ids: str) -> str:
        log.error(message, ids, exc_info=error)
        return OUT_OF_MEMORY if self._pipeline.is_out_of_memory(error) else INTERNAL
