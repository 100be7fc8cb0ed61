"""What the two gRPC clients share: the channel's options, the two calls, and what an RPC's failure means."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final, Protocol, cast

import grpc

from voicestyle.client.addresses import is_loopback, target_host
from voicestyle.client.ask import Ask
from voicestyle.client.errors import ClientError, Refused, ServiceFailed, TimedOut, Unreachable
from voicestyle.client.grpc_messages import SERVICE, PredictionResponse, PredictionsRequest, TorchServeHealthResponse
from voicestyle.client.retry import Settings

MESSAGE_BYTES: Final = 64 * 2**20  # grpc's default is 4 MB; a voice may have 24 MiB, a face with its previews as much
PING_SECONDS: Final = 5.0
RECONNECT_MS: Final = 1000  # grpc would wait up to two minutes, and our own pauses come on top

_NOT_AGAIN: Final = {
    grpc.StatusCode.INVALID_ARGUMENT: 400,
    grpc.StatusCode.UNAUTHENTICATED: 401,
    grpc.StatusCode.PERMISSION_DENIED: 403,
    grpc.StatusCode.NOT_FOUND: 404,
    grpc.StatusCode.RESOURCE_EXHAUSTED: 413,  # a message over a limit
}


@dataclass(frozen=True)
class Method:
    """A unary call: arguments for `channel.unary_unary`."""

    method: str
    request_serializer: Any
    response_deserializer: Any


PREDICTIONS: Final = Method(
    f"/{SERVICE}/Predictions", PredictionsRequest.SerializeToString, PredictionResponse.FromString
)
# Its request is google.protobuf.Empty, which is no bytes at all.
PING: Final = Method(f"/{SERVICE}/Ping", bytes, TorchServeHealthResponse.FromString)


class _Failure(Protocol):
    def code(self) -> grpc.StatusCode: ...
    def details(self) -> str | None: ...


def channel_options(target: str) -> list[tuple[str, int]]:
    """Of a channel to `target`: large messages, and nothing repeated or routed behind our back."""
    options = {
        "grpc.max_send_message_length": MESSAGE_BYTES,
        "grpc.max_receive_message_length": MESSAGE_BYTES,
        "grpc.enable_retries": 0,
        "grpc.initial_reconnect_backoff_ms": RECONNECT_MS,
        "grpc.min_reconnect_backoff_ms": RECONNECT_MS,
        "grpc.max_reconnect_backoff_ms": RECONNECT_MS,
    }
    if is_loopback(target_host(target)):
        options["grpc.enable_http_proxy"] = 0
    return list(options.items())


def request_message(ask: Ask, settings: Settings) -> Any:
    """The PredictionsRequest."""
    return PredictionsRequest(model_name=settings.model, input=ask.inputs())


def metadata(settings: Settings) -> tuple[tuple[str, str], ...]:
    """The settings' headers, whose names gRPC wants in lower case."""
    return tuple((name.lower(), value) for name, value in settings.headers.items())


@contextmanager
def translated() -> Generator[None]:
    """Raise this package's errors for those of grpc."""
    try:
        yield
    except grpc.RpcError as error:
        failure = cast("_Failure", error)
        raise read_failure(failure.code(), failure.details() or "") from error


def read_failure(code: grpc.StatusCode, details: str) -> ClientError:
    """What a status other than OK means: it never comes from the service itself, which answers OK to everything."""
    message = details or f"the call ended with {code.name}"
    if code is grpc.StatusCode.UNAVAILABLE:
        return Unreachable(message)
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return TimedOut(message)
    if code in _NOT_AGAIN:
        return Refused(code.name.lower(), message, None, _NOT_AGAIN[code])
    # TorchServe answers INTERNAL where the worker died under the request.
    return ServiceFailed(code.name.lower(), message, None, retryable=code is grpc.StatusCode.INTERNAL)
