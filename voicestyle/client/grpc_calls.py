"""What the two gRPC clients share: the channel's options, the two calls, and what an RPC's failure means."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final, Protocol, cast

import grpc

from voicestyle.client.addresses import is_loopback, target_host
from voicestyle.client.ask import Ask
from voicestyle.client.errors import STATUS, ClientError, Refused, ServiceFailed, TimedOut, Unreachable
from voicestyle.client.grpc_messages import SERVICE, PredictionResponse, PredictionsRequest, TorchServeHealthResponse
from voicestyle.client.records import Record
from voicestyle.client.retry import Settings

MESSAGE_BYTES: Final = 64 * 2**20  # grpc's default is 4 MB; a voice may have 24 MiB, a face with its previews as much
PING_SECONDS: Final = 5.0
RECONNECT_MS: Final = 1000  # grpc would wait up to two minutes, and our own pauses come on top

_REFUSALS: Final = {
    grpc.StatusCode.INVALID_ARGUMENT: 400,
    grpc.StatusCode.UNAUTHENTICATED: 401,
    grpc.StatusCode.PERMISSION_DENIED: 403,
    grpc.StatusCode.NOT_FOUND: 404,
}
# TorchServe sends them as INTERNAL.
_JAVA_REFUSALS: Final = {
    "BadRequestException": 400,
    "ModelNotFoundException": 404,
    "ModelVersionNotFoundException": 404,
}
# What TorchServe answers where the worker died under the request.
_WORKER_DIED: Final = (grpc.StatusCode.INTERNAL, grpc.StatusCode.RESOURCE_EXHAUSTED)


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
    name, message = code.name.lower(), details or f"the call ended with {code.name}"
    first, _, last = details.rpartition("\n")
    if first and last.startswith("org.pytorch.serve."):
        name, message = last.rpartition(".")[2], first
    if code is grpc.StatusCode.UNAVAILABLE:
        return Unreachable(message)
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return TimedOut(message)
    if code is grpc.StatusCode.RESOURCE_EXHAUSTED and "larger than max" in details:  # grpc's own limits
        return Refused("too_large", message, None, STATUS["too_large"])
    if status := _REFUSALS.get(code) or _JAVA_REFUSALS.get(name):
        return Refused(name, message, None, status)
    if code is grpc.StatusCode.CANCELLED:
        message += "; TorchServe does this to a request of more bytes than it takes"
    return ServiceFailed(name, message, None, retryable=code in _WORKER_DIED)


def read_health(text: str) -> str:
    """TorchServe's word about itself, which it sends as JSON. Raises ServiceFailed if it sends anything else."""
    record = Record.parse(text.encode())
    if record is None:
        raise ServiceFailed("malformed", f"the answer to a ping must be a JSON object, got {text[:80]!r}")
    return record.text("status")
