"""What can come of a request instead of a face.

Each error knows whether asking again may help (`retryable`): the same voice and options give the same face, so asking
twice does no harm.
"""

# ruff: noqa: N818 - an `except Busy:` reads as what happened

from __future__ import annotations

from typing import Final

# The statuses of the service's own codes, for where none travels: inside a stream, and over gRPC.
STATUS: Final = {
    "bad_option": 400,
    "too_large": 413,
    "too_long": 413,
    "not_audio": 415,
    "no_speech": 422,
    "too_short": 422,
    "internal": 500,
    "overloaded": 503,
    "draining": 503,
}
BUSY_CODES: Final = frozenset({"overloaded", "draining"})


class ClientError(Exception):
    """A request that got no face; `message` says why, and `request_id` names it in the server's log if it got there."""

    retryable: bool = False

    def __init__(self, message: str, request_id: str | None = None) -> None:
        # All arguments, for unpickling calls the class with them.
        super().__init__(message, request_id)
        self.message = message
        self.request_id = request_id

    def __str__(self) -> str:
        return self.message


class Refused(ClientError):
    """The caller's mistake: the same request will be refused again.

    `code` is one of the service's (docs/service.md), or the name that TorchServe or a proxy gave; `status` is that of
    HTTP, also over gRPC.
    """

    def __init__(self, code: str, message: str, request_id: str | None = None, status: int = 400) -> None:
        super().__init__(message, request_id)
        self.args = (code, message, request_id, status)
        self.code = code
        self.status = status

    def __str__(self) -> str:
        return f"{self.code}: {self.message}"


class Busy(ClientError):
    """A full queue, a server that is about to stop, or one without a worker: 503. `retry_after` is in seconds."""

    retryable = True
    status: Final = 503

    def __init__(
        self, code: str, message: str, request_id: str | None = None, retry_after: float | None = None
    ) -> None:
        super().__init__(message, request_id)
        self.args = (code, message, request_id, retry_after)
        self.code = code
        self.retry_after = retry_after

    def __str__(self) -> str:
        return f"{self.code}: {self.message}"


class ServiceFailed(ClientError):
    """The service's fault: its own `internal`, an answer that cannot be read, or a worker that died (`retryable`)."""

    def __init__(self, code: str, message: str, request_id: str | None = None, retryable: bool = False) -> None:
        super().__init__(message, request_id)
        self.args = (code, message, request_id, retryable)
        self.code = code
        self.retryable = retryable

    def __str__(self) -> str:
        return f"{self.code}: {self.message}"


class Unreachable(ClientError):
    """No connection, one that broke before the answer was whole, or a gateway that found nobody behind it."""

    retryable = True


class TimedOut(ClientError):
    """No answer within the time of an attempt."""

    retryable = True
