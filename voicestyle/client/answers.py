"""From the service's JSON to results and errors; the same over HTTP and gRPC."""

from __future__ import annotations

import time
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import Final

from voicestyle.client.errors import BUSY_CODES, STATUS, Busy, ClientError, Refused, ServiceFailed, Unreachable
from voicestyle.client.records import Record
from voicestyle.client.results import Event, Face, Preview, Progress, Started

QUOTED: Final = 200  # characters of an answer that nobody knows how to read


def read_face(record: Record) -> Face:
    """The face in a JSON answer. Raises ServiceFailed if it is malformed."""
    return Face(
        request_id=record.text("request_id"),
        model=record.text("model"),
        seed=record.whole("seed"),
        steps=record.whole("steps"),
        preset=record.text("preset"),
        size=record.whole("size"),
        format=record.text("format"),
        image=record.decoded("image"),
        similarity=record.number("similarity"),
        first_similarity=record.number("first_similarity"),
        trace=record.numbers("trace"),
        batch=record.whole("batch"),
        prototypes=record.wholes("prototypes"),
        audio_seconds=record.number("audio_seconds"),
        speech_seconds=record.number("speech_seconds"),
        timings=record.named_numbers("timings"),
        digital_source_type=record.text("digital_source_type"),
        previews=tuple(read_preview(each) for each in record.records("previews")),
    )


def read_preview(record: Record) -> Preview:
    """One of the pictures on the way. Raises ServiceFailed if it is malformed."""
    return Preview(
        step=record.whole("step"),
        steps=record.whole("steps"),
        similarity=record.number("similarity"),
        format=record.text("format"),
        size=record.whole("size"),
        image=record.decoded("image"),
    )


def read_event(line: bytes) -> Event | None:
    """What one line of a stream says; None for an event of a kind that this client does not know.

    Raises ClientError: the line's error, or ServiceFailed if it is malformed.
    """
    record = Record.parse(line)
    if record is None:
        raise ServiceFailed("malformed", f"a line of the service's stream must be a JSON object, got {_quote(line)}")
    if "event" not in record:  # TorchServe breaks in where a worker dies
        raise read_error(record.whole("code") if "code" in record else 500, {}, line)
    match record.text("event"):
        case "started":
            return Started(
                request_id=record.text("request_id"),
                model=record.text("model"),
                steps=record.whole("steps"),
                preset=record.text("preset"),
                seed=record.whole("seed"),
                size=record.whole("size"),
                format=record.text("format"),
            )
        case "progress":
            return Progress(record.whole("step"), record.whole("steps"), record.number("similarity"))
        case "preview":
            return read_preview(record)
        case "result":
            return read_face(record)
        case "error":
            raise _own_error(_own(record) or record)
        case _:
            return None


def read_prediction(body: bytes) -> Face:
    """The face in a gRPC answer, whose status is OK whatever it holds. Raises ClientError: what it holds instead."""
    record = Record.parse(body)
    if record is None:
        raise ServiceFailed("malformed", f"the service's answer must be a JSON object, got {_quote(body)}")
    if error := _own(record):
        raise _own_error(error)
    return read_face(record)


def read_error(status: int, headers: Mapping[str, str], body: bytes) -> ClientError:
    """The error that an HTTP answer other than 200 tells; its body may be ours, TorchServe's or a proxy's.

    headers: their names in lower case, or a mapping that does not mind.
    """
    record = Record.parse(body)
    retry_after = read_retry_after(headers.get("retry-after"), time.time())
    if record is not None and (error := _own(record)):
        return _own_error(error, status, retry_after)
    request_id = headers.get("x-request-id")
    # TorchServe says nothing more where a body is too large for it.
    code = "too_large" if status == STATUS["too_large"] else f"http_{status}"
    message = f"the server answered {_phrase(status)}, {_quote(body)}"
    if record is not None and record.has_texts("type", "message"):  # TorchServe's own
        code, message = record.text("type"), record.text("message")
    if status == 503:
        return Busy(code, message, request_id, retry_after)
    if status in (502, 504):
        return Unreachable(message, request_id)
    if 400 <= status < 500:
        return Refused(code, message, request_id, status)
    # Without our own words: the worker died under the request.
    return ServiceFailed(code, message, request_id, retryable=status in (500, 507))


def read_retry_after(text: str | None, now: float) -> float | None:
    """The seconds to wait that a Retry-After header asks for, from a number or a date; None if it has neither.

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


def _own(record: Record) -> Record | None:
    """The service's own error, not one that a proxy or TorchServe itself tells under the same key."""
    error = record.record("error")
    return error if error is not None and error.has_texts("code", "message") else None


def _own_error(error: Record, status: int | None = None, retry_after: float | None = None) -> ClientError:
    code, message = error.text("code"), error.text("message")
    request_id = error.text("request_id") if "request_id" in error else None
    status = STATUS.get(code, 400) if status is None else status
    if code in BUSY_CODES or status == 503:
        return Busy(code, message, request_id, retry_after)
    if status >= 500:
        return ServiceFailed(code, message, request_id)
    return Refused(code, message, request_id, status)


def _phrase(status: int) -> str:
    try:
        return f"{status} {HTTPStatus(status).phrase}"
    except ValueError:
        return str(status)


def _quote(body: bytes) -> str:
    text = body[:QUOTED].decode("utf-8", errors="replace")
    return repr(text) + ("…" if len(body) > QUOTED else "") if text else "without a word"
