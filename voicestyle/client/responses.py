"""From the bytes of a response to results and errors; the same over HTTP and gRPC, without any input or output."""

from __future__ import annotations

import time
from collections.abc import Generator, Mapping
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import Final, TypeVar

import msgspec

from voicestyle.client.errors import APIConnectionError, APIError, BadRequestError, OverloadedError, ServerError
from voicestyle.client.models import Event, Face, Preview, Progress, Started
from voicestyle.error_codes import ERROR_CODES

JSON_LINES: Final = "application/x-ndjson"
MAX_QUOTED: Final = 200  # bytes of an unexpected response that an error message repeats
TOO_LARGE: Final = ERROR_CODES["too_large"]
EVENTS: Final[Mapping[str, type[Event]]] = {
    "started": Started,
    "progress": Progress,
    "preview": Preview,
    "result": Face,
}

T = TypeVar("T")


class _ErrorFields(msgspec.Struct):
    code: str
    message: str
    request_id: str | None = None


class _ServiceError(msgspec.Struct):
    """The service's own form of an error."""

    error: _ErrorFields


class _TorchServeError(msgspec.Struct):
    """TorchServe's form of an error."""

    type: str
    message: str
    code: int = 500


class _Line(msgspec.Struct):
    event: str | None = None


class _Health(msgspec.Struct):
    status: str


def decode(body: bytes, kind: type[T]) -> T:
    """JSON as a value of type `kind`; unknown keys are ignored. Raises ServerError (malformed) if it is none."""
    try:
        return msgspec.json.decode(body, type=kind)
    except (ValueError, RecursionError) as error:  # no JSON, no UTF-8, wrong types; nested too deeply
        raise ServerError(
            f"the response does not have the expected form ({error}): {_quote(body)}", code="malformed"
        ) from error


def _decode_or_none(body: bytes, kind: type[T]) -> T | None:
    try:
        return decode(body, kind)
    except ServerError:
        return None


def parse_face(body: bytes) -> Face:
    """The face in a complete response. Raises APIError: the error it holds, or ServerError if it is malformed."""
    if failed := _decode_or_none(body, _ServiceError):  # over gRPC, errors have the status OK too
        raise _service_error(failed)
    return decode(body, Face)


def parse_health(body: bytes) -> str:
    """The status in TorchServe's response to a ping, such as Healthy. Raises ServerError if it is malformed."""
    return decode(body, _Health).status


def parse_event(line: bytes) -> Event | None:
    """The event in one line of a stream; None for an event that this version of the client does not know.

    Raises APIError: the error that the line holds, or ServerError if it is malformed.
    """
    event = decode(line, _Line).event
    if event is None:  # TorchServe adds its own error where a worker dies
        failed = _decode_or_none(line, _TorchServeError)
        raise parse_error(failed.code if failed else 500, {}, line)
    if event == "error":
        raise _service_error(decode(line, _ServiceError))
    return decode(line, EVENTS[event]) if event in EVENTS else None


def parse_error(status: int, headers: Mapping[str, str], body: bytes) -> APIError:
    """The error in an HTTP response that is not 200. The body may be the service's, TorchServe's or a proxy's.

    headers: with names in lower case, or a mapping that ignores case.
    """
    retry_after = parse_retry_after(headers.get("retry-after"), time.time())
    if failed := _decode_or_none(body, _ServiceError):
        return _service_error(failed, status, retry_after)
    request_id = headers.get("x-request-id")
    # TorchServe's response to a body over its limit is empty.
    code = TOO_LARGE.name if status == TOO_LARGE.status else f"http_{status}"
    message = f"the server responded with {_describe(status)}: {_quote(body)}"
    if other := _decode_or_none(body, _TorchServeError):
        code, message = other.type, other.message
    if status == HTTPStatus.SERVICE_UNAVAILABLE:
        return OverloadedError(message, code=code, request_id=request_id, retry_after=retry_after)
    if status in (HTTPStatus.BAD_GATEWAY, HTTPStatus.GATEWAY_TIMEOUT):
        return APIConnectionError(message, code=code, request_id=request_id)
    if 400 <= status < 500:
        return BadRequestError(message, code=code, status=status, request_id=request_id)
    # TorchServe's own 500 and 507 mean that the worker died during the request.
    return ServerError(message, code=code, request_id=request_id, retryable=status in (500, 507))


def parse_retry_after(text: str | None, now: float) -> float | None:
    """The seconds to wait in a Retry-After header, a number or a date; None if it has neither.

    now: Unix time in seconds.
    """
    if text is None:
        return None
    if text.strip().isdecimal():
        return float(text)
    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - now)
    except ValueError:
        return None


class ResponseParser:
    """Turns the body of an HTTP response, in chunks of any size, into events; a face is always the last one.

    `feed` and `end` raise APIError where the response holds an error, and `end` raises APIConnectionError where a
    stream ends before its result.
    """

    def __init__(self, status: int, headers: Mapping[str, str]) -> None:
        self._status = status
        self._headers = headers
        content_type = headers.get("content-type", "").partition(";")[0].strip().lower()
        self._is_stream = status == HTTPStatus.OK and content_type == JSON_LINES
        self._parts: list[bytes] = []  # of the current line, or of the whole body if it is not a stream

    def feed(self, chunk: bytes) -> Generator[Event]:
        """Yield the events that `chunk` completes."""
        if not self._is_stream:
            self._parts.append(chunk)
            return
        *lines, rest = chunk.split(b"\n")
        for line in lines:
            self._parts.append(line)
            yield from self._end_line()
        self._parts.append(rest)

    def end(self) -> Generator[Event]:
        """Yield the events that the end of the body completes."""
        body = b"".join(self._parts)
        if self._is_stream:
            if _decode_or_none(body, _Line):  # else it is the beginning of a line
                yield from self._end_line()
            raise APIConnectionError("the stream ended before its result")
        if self._status != HTTPStatus.OK:
            raise parse_error(self._status, self._headers, body)
        yield parse_face(body)

    def _end_line(self) -> Generator[Event]:
        line = b"".join(self._parts).strip()
        self._parts.clear()
        if line and (event := parse_event(line)) is not None:
            yield event


def _service_error(failed: _ServiceError, status: int | None = None, retry_after: float | None = None) -> APIError:
    error = failed.error
    known = ERROR_CODES.get(error.code)
    if status is None:  # inside a stream and over gRPC, none is sent
        status = known.status if known else HTTPStatus.BAD_REQUEST
    if status == HTTPStatus.SERVICE_UNAVAILABLE or (known and known.retryable):
        return OverloadedError(error.message, code=error.code, request_id=error.request_id, retry_after=retry_after)
    if status >= 500:
        return ServerError(error.message, code=error.code, request_id=error.request_id)
    return BadRequestError(error.message, code=error.code, status=int(status), request_id=error.request_id)


def _describe(status: int) -> str:
    try:
        return f"{status} {HTTPStatus(status).phrase}"
    except ValueError:
        return str(status)


def _quote(body: bytes) -> str:
    text = body[:MAX_QUOTED].decode("utf-8", errors="replace")
    return repr(text) + ("…" if len(body) > MAX_QUOTED else "") if text else "empty body"
