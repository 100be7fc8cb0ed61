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

    status: of the HTTP response. retryable: whether the same request may succeed later. meaning: when it happens.
    """

    name: str
    status: HTTPStatus
    meaning: str
    retryable: bool = False

    @property
    def is_rejection(self) -> bool:
        """Whether it means a rejection: an invalid request, no capacity, or a server that is shutting down."""
        return self.status < HTTPStatus.INTERNAL_SERVER_ERROR or self.retryable


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
            ErrorCode("internal", HTTPStatus.INTERNAL_SERVER_ERROR, "a fault of the service; its log has the details"),
            ErrorCode("overloaded", HTTPStatus.SERVICE_UNAVAILABLE, "the batch and the queue are full", True),
            ErrorCode("draining", HTTPStatus.SERVICE_UNAVAILABLE, "the server is shutting down", True),
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
