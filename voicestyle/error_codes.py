"""The error codes of the service: the one table that server, client, metrics and documentation take them from.

Imports the standard library alone, so that the client can use it without torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from types import MappingProxyType
from typing import Final


@dataclass(frozen=True)
class ErrorCode:
    """A stable, machine-readable name of what went wrong, the same over HTTP and gRPC.

    status: of the HTTP response. meaning: when it happens. retryable: whether the same request may succeed later.
    is_fault: whether the service failed; otherwise it rejected the request, which is invalid or comes when the queue
    is full or the server is shutting down.
    """

    name: str
    status: HTTPStatus
    meaning: str
    retryable: bool = False
    is_fault: bool = False


ERROR_CODES: Final[Mapping[str, ErrorCode]] = MappingProxyType(
    {
        code.name: code
        for code in (
            ErrorCode(
                "bad_option",
                HTTPStatus.BAD_REQUEST,
                "an option is unknown, given twice, of the wrong kind or out of range; or more than 32 fields",
            ),
            ErrorCode("too_large", HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "the audio file has more bytes than allowed"),
            ErrorCode(
                "too_long",
                HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
                "more seconds of audio than allowed, found in the file's header before it is decoded",
            ),
            ErrorCode(
                "not_audio",
                HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
                "no audio in the request, or audio that is unreadable, empty, or has samples that are not finite",
            ),
            ErrorCode("no_speech", HTTPStatus.UNPROCESSABLE_ENTITY, "the audio contains no speech"),
            ErrorCode("too_short", HTTPStatus.UNPROCESSABLE_ENTITY, "less speech than the bundle requires"),
            ErrorCode(
                "internal",
                HTTPStatus.INTERNAL_SERVER_ERROR,
                "a fault of the service; its log has the details",
                is_fault=True,
            ),
            ErrorCode("overloaded", HTTPStatus.SERVICE_UNAVAILABLE, "the batch and the queue are full", True),
            ErrorCode("draining", HTTPStatus.SERVICE_UNAVAILABLE, "the server is shutting down", True),
            ErrorCode(
                "out_of_memory",
                HTTPStatus.SERVICE_UNAVAILABLE,
                "the device has too little free memory for this request now",
                retryable=True,
                is_fault=True,
            ),
            ErrorCode(
                "device_failed",
                HTTPStatus.SERVICE_UNAVAILABLE,
                "the device failed while the request was in the worker, and the worker is replaced",
                retryable=True,
                is_fault=True,
            ),
        )
    }
)


class InputError(ValueError):
    """A request that cannot be fulfilled as it is: a client error, not a fault of the service.

    code: a key of `ERROR_CODES`. message: states the rule and what was received; safe to show to the client.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(code, message)  # all arguments, so that pickling works
        self.code = code
        self.message = message

    def __str__(self) -> str:
        return self.message

    @property
    def status(self) -> HTTPStatus:
        """The HTTP status of the code."""
        return ERROR_CODES[self.code].status
