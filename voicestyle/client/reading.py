"""The body of an HTTP answer, in chunks cut anywhere, to events; does no reading of its own."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from typing import Final

from voicestyle.client.answers import read_error, read_event, read_prediction
from voicestyle.client.errors import Unreachable
from voicestyle.client.records import Record
from voicestyle.client.results import Event

LINES: Final = "application/x-ndjson"


class Reading:
    """Takes chunks as they come and yields the events that are complete.

    `feed` and `end` raise ClientError where the answer tells an error, and `end` Unreachable where it ends too early.
    A face is always the last event.
    """

    def __init__(self, status: int, headers: Mapping[str, str]) -> None:
        self._status = status
        self._headers = headers
        kind = headers.get("content-type", "").partition(";")[0].strip().lower()
        self._is_stream = status == 200 and kind == LINES
        self._parts: list[bytes] = []  # of the line, or of the whole body if this is no stream

    def feed(self, chunk: bytes) -> Generator[Event]:
        """Take a chunk."""
        if not self._is_stream:
            self._parts.append(chunk)
            return
        *lines, rest = chunk.split(b"\n")
        for line in lines:
            self._parts.append(line)
            yield from self._line()
        self._parts.append(rest)

    def end(self) -> Generator[Event]:
        """Take the end of the body."""
        if self._is_stream:
            if Record.parse(b"".join(self._parts)) is not None:  # else it is the beginning of a line
                yield from self._line()
            raise Unreachable("the stream ended before its result")
        body = b"".join(self._parts)
        if self._status != 200:
            raise read_error(self._status, self._headers, body)
        yield read_prediction(body)

    def _line(self) -> Generator[Event]:
        line = b"".join(self._parts).strip()
        self._parts.clear()
        if line and (event := read_event(line)) is not None:
            yield event
