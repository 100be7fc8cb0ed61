"""The exceptions of the client. All of them are `APIError`, and all of them can be pickled."""

from __future__ import annotations


class APIError(Exception):
    """A request that produced no face.

    message: what went wrong. code: its machine-readable name: a code of the service (docs/service.md), or the name
    that TorchServe, gRPC or this client uses. request_id: the request's id in the server's log, where it is known.
    retryable: whether the same request may succeed later. Repeating it is safe: the same voice and options give the
    same face.
    """

    # All parameters but the message have defaults: unpickling passes the message alone, then restores the attributes.
    def __init__(
        self, message: str, *, code: str = "unknown", request_id: str | None = None, retryable: bool = False
    ) -> None:
        super().__init__(message)
        self.message = message
        self.code = code
        self.request_id = request_id
        self.retryable = retryable

    def __str__(self) -> str:
        return f"{self.code}: {self.message}"


class BadRequestError(APIError):
    """A client error: the request cannot succeed as it is. `status` is the HTTP status (4xx), also over gRPC."""

    def __init__(
        self, message: str, *, code: str = "bad_request", status: int = 400, request_id: str | None = None
    ) -> None:
        super().__init__(message, code=code, request_id=request_id)
        self.status = status


class OverloadedError(APIError):
    """503: the queue is full, the server is shutting down, its GPU fails or lacks memory, or it has no worker.

    retry_after: the seconds to wait that the server asks for; None where it does not say.
    """

    def __init__(
        self,
        message: str,
        *,
        code: str = "overloaded",
        request_id: str | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message, code=code, request_id=request_id, retryable=True)
        self.retry_after = retry_after


class ServerError(APIError):
    """A fault of the service: its code `internal`, a malformed response, or a worker that died (`retryable`)."""


class APIConnectionError(APIError):
    """No connection, a connection that broke before the response was complete, or a gateway without a server."""

    def __init__(self, message: str, *, code: str = "connection_error", request_id: str | None = None) -> None:
        super().__init__(message, code=code, request_id=request_id, retryable=True)


class APITimeoutError(APIConnectionError):
    """No complete response within the timeout of an attempt."""

    def __init__(self, message: str, *, code: str = "timeout", request_id: str | None = None) -> None:
        super().__init__(message, code=code, request_id=request_id)
