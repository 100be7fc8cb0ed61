"""The service over gRPC: `GrpcClient`, and `AsyncGrpcClient` for asyncio."""

from __future__ import annotations

import asyncio
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, Self, Unpack

import grpc
import grpc.aio

from voicestyle.client import retry
from voicestyle.client.addresses import is_loopback
from voicestyle.client.errors import APIConnectionError, APIError, APITimeoutError, BadRequestError, ServerError
from voicestyle.client.grpc_messages import SERVICE, PredictionResponse, PredictionsRequest, TorchServeHealthResponse
from voicestyle.client.models import Face, Request
from voicestyle.client.responses import TOO_LARGE, parse_face, parse_health
from voicestyle.client.retry import Attempts, Limits
from voicestyle.options import OptionValues

MESSAGE_BYTES: Final = 64 * 2**20  # grpc's default is 4 MB; a voice may have 24 MiB, a face with its previews as much
PING_SECONDS: Final = 5.0
RECONNECT_MS: Final = 1000  # grpc would wait up to two minutes, in addition to the pauses of the retries

_BAD_REQUESTS: Final = {
    grpc.StatusCode.INVALID_ARGUMENT: 400,
    grpc.StatusCode.UNAUTHENTICATED: 401,
    grpc.StatusCode.PERMISSION_DENIED: 403,
    grpc.StatusCode.NOT_FOUND: 404,
}
# Exceptions that TorchServe sends as INTERNAL.
_JAVA_BAD_REQUESTS: Final = {
    "BadRequestException": 400,
    "ModelNotFoundException": 404,
    "ModelVersionNotFoundException": 404,
}
# TorchServe's responses where the worker died during the request.
_WORKER_DIED: Final = (grpc.StatusCode.INTERNAL, grpc.StatusCode.RESOURCE_EXHAUSTED)


class _BaseClient:
    """What `GrpcClient` and `AsyncGrpcClient` share."""

    _grpc: Any  # the module that makes channels: grpc or grpc.aio

    def __init__(
        self,
        target: str,
        *,
        timeout: float = 600.0,
        connect_timeout: float = 5.0,
        deadline: float = 1800.0,
        max_retries: int = 7,
        headers: Mapping[str, str] | None = None,
        model: str = "voicestyle",
        credentials: grpc.ChannelCredentials | None = None,
    ) -> None:
        self._limits = Limits(timeout, connect_timeout, deadline, max_retries)
        self._model = model
        # Metadata keys must be in lower case.
        self._metadata = tuple((name.lower(), value) for name, value in (headers or {}).items())
        options = _channel_options(target, connect_timeout)
        if credentials is None:
            self._channel = self._grpc.insecure_channel(target, options)
        else:
            self._channel = self._grpc.secure_channel(target, credentials, options)
        self._predictions = self._channel.unary_unary(
            f"/{SERVICE}/Predictions",
            request_serializer=PredictionsRequest.SerializeToString,
            response_deserializer=PredictionResponse.FromString,
        )
        # Its request is google.protobuf.Empty, which has no bytes.
        self._ping = self._channel.unary_unary(
            f"/{SERVICE}/Ping", request_serializer=bytes, response_deserializer=TorchServeHealthResponse.FromString
        )

    def _call(self, request: Request, seconds: float) -> Any:
        """Begin one attempt; returns the response, or an awaitable of it."""
        message = PredictionsRequest(model_name=self._model, input=request.inputs())
        return self._predictions(message, timeout=seconds, metadata=self._metadata)

    def _call_ping(self) -> Any:
        return self._ping(b"", timeout=PING_SECONDS, metadata=self._metadata)


class GrpcClient(_BaseClient):
    """A client of the service over gRPC. Threads may share one. Close it, or use it as a context manager.

    target: `host:port`, such as `127.0.0.1:7070`. headers: sent as metadata. credentials: for TLS; without them the
    connection is not encrypted. The other arguments, the retries and the errors are those of `Client`. Timeouts are
    always kept.
    """

    _grpc = grpc

    def generate(self, audio: bytes | str | Path, **options: Unpack[OptionValues]) -> Face:
        """Return the face for a voice: the bytes of an audio file, or its path.

        options: as in docs/service.md; what is None or left out is the service's choice. Raises APIError, OSError for
        the file, TypeError or ValueError for the arguments.
        """
        request = Request.read(audio, options)
        attempts = Attempts(self._limits)
        while True:
            try:
                with _translated_errors():
                    return parse_face(self._call(request, attempts.begin()).prediction)
            except APIError as error:
                delay = attempts.failed(error).delay
            retry.sleep(delay)

    def ping(self) -> str:
        """Return TorchServe's own status without retries; Healthy even if no model is loaded. Raises APIError."""
        with _translated_errors():
            return parse_health(self._call_ping().health.encode())

    def close(self) -> None:
        """Close the channel."""
        self._channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class AsyncGrpcClient(_BaseClient):
    """`GrpcClient` for asyncio: the same arguments, methods and errors. Create and use it in one running event loop."""

    _grpc = grpc.aio

    async def generate(self, audio: bytes | str | Path, **options: Unpack[OptionValues]) -> Face:
        """As GrpcClient.generate."""
        request = await asyncio.to_thread(Request.read, audio, options)
        attempts = Attempts(self._limits)
        while True:
            try:
                with _translated_errors():
                    return parse_face((await self._call(request, attempts.begin())).prediction)
            except APIError as error:
                delay = attempts.failed(error).delay
            await retry.sleep_async(delay)

    async def ping(self) -> str:
        """As GrpcClient.ping."""
        with _translated_errors():
            return parse_health((await self._call_ping()).health.encode())

    async def close(self) -> None:
        """Close the channel."""
        await self._channel.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


@contextmanager
def _translated_errors() -> Generator[None]:
    """Raise this package's errors for those of grpc."""
    try:
        yield
    except grpc.RpcError as error:
        call: Any = error  # of grpc and of grpc.aio: both have a code and details
        raise _status_error(call.code(), call.details() or "") from error


def _status_error(status: grpc.StatusCode, details: str) -> APIError:
    """The error for a gRPC status other than OK. The service itself always responds with OK."""
    code, message = status.name.lower(), details or f"the call ended with {status.name}"
    first, _, last = details.rpartition("\n")
    if first and last.startswith("org.pytorch.serve."):
        code, message = last.rpartition(".")[2], first
    if status is grpc.StatusCode.UNAVAILABLE:
        return APIConnectionError(message, code=code)
    if status is grpc.StatusCode.DEADLINE_EXCEEDED:
        return APITimeoutError(message)
    if status is grpc.StatusCode.RESOURCE_EXHAUSTED and "larger than max" in details:  # grpc's own limits
        return BadRequestError(message, code=TOO_LARGE.name, status=int(TOO_LARGE.status))
    if http_status := _BAD_REQUESTS.get(status) or _JAVA_BAD_REQUESTS.get(code):
        return BadRequestError(message, code=code, status=http_status)
    if status is grpc.StatusCode.CANCELLED:
        message += "; TorchServe cancels a request that is larger than its max_request_size"
    return ServerError(message, code=code, retryable=status in _WORKER_DIED)


def _channel_options(target: str, connect_timeout: float) -> list[tuple[str, int]]:
    """Options of a channel: large messages, no hidden retries, and no proxy in front of this machine."""
    options = {
        "grpc.max_send_message_length": MESSAGE_BYTES,
        "grpc.max_receive_message_length": MESSAGE_BYTES,
        "grpc.enable_retries": 0,
        "grpc.initial_reconnect_backoff_ms": RECONNECT_MS,
        "grpc.max_reconnect_backoff_ms": RECONNECT_MS,
        "grpc.min_reconnect_backoff_ms": round(1000 * min(connect_timeout, 3600)),  # grpc's name of the connect timeout
    }
    if is_loopback(f"//{target}"):
        options["grpc.enable_http_proxy"] = 0
    return list(options.items())
