"""Both gRPC clients against a server in this process with scripted responses."""

import base64
import socket
import threading
import time
from pathlib import Path

import grpc
import pytest

from tests.support.client_responses import FACE, IMAGE, encode, error, preview
from voicestyle.client import (
    APIConnectionError,
    APITimeoutError,
    BadRequestError,
    GrpcClient,
    OverloadedError,
    ServerError,
)

GOOD = encode(FACE)


@pytest.mark.parametrize("path_type", [Path, str])
def test_generate_sends_options_and_returns_the_face(grpc_runner, service, tmp_path, path_type):
    service.script = [GOOD]
    (tmp_path / "voice.wav").write_bytes(b"voice\xff")
    face = grpc_runner.generate(
        path_type(tmp_path / "voice.wav"),
        steps=4,
        size=256,
        format="png",
        arguments={"headers": {"Authorization": "Bearer word"}},
    )
    assert (face.image, face.trace, face.request_id) == (IMAGE, (0.25, 0.5, 0.625, 0.75), "r-1")
    request = service.requests[0]
    assert request.model_name == "voicestyle"
    assert dict(request.input) == {"audio": b"voice\xff", "steps": b"4", "size": b"256", "format": b"png"}
    assert service.metadata[0]["authorization"] == "Bearer word"


def test_previews_come_with_the_face(grpc_runner, service):
    service.script = [encode(FACE | {"previews": [preview(2), preview(4)]})]
    assert [each.step for each in grpc_runner.generate(previews=2).previews] == [2, 4]


def test_24_mib_both_ways(grpc_runner, service):
    large = bytes(24 * 2**20)
    service.script = [encode(FACE | {"image": base64.b64encode(large).decode()})]
    assert len(grpc_runner.generate(large).image) == len(large)
    assert len(service.requests[0].input["audio"]) == len(large)


@pytest.mark.parametrize(
    "response",
    [
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.INTERNAL,
        (grpc.StatusCode.RESOURCE_EXHAUSTED, "Worker died.\norg.pytorch.serve.http.InternalServerException"),
        encode(error("overloaded")),
        encode(error("draining")),
        encode(error("device_failed")),
        encode(error("out_of_memory")),
    ],
)
def test_retryable_responses_are_retried(grpc_runner, service, clock, response):
    service.script = [response, response, GOOD]
    assert grpc_runner.generate().image == IMAGE
    assert clock.pauses == [0.5, 1.0]
    assert len(service.requests) == 3


@pytest.mark.parametrize(
    ("response", "kind", "expected"),
    [
        (encode(error("no_speech")), BadRequestError, ("no_speech", "r-9", 422)),
        (encode(error("too_large")), BadRequestError, ("too_large", "r-9", 413)),
        (encode(error("unheard_of")), BadRequestError, ("unheard_of", "r-9", 400)),
        (encode(error("internal")), ServerError, ("internal", "r-9", None)),
        (b"no JSON", ServerError, ("malformed", None, None)),
        (b"{}", ServerError, ("malformed", None, None)),
        (grpc.StatusCode.NOT_FOUND, BadRequestError, ("not_found", None, 404)),
        (grpc.StatusCode.UNAUTHENTICATED, BadRequestError, ("unauthenticated", None, 401)),
        (
            (grpc.StatusCode.INTERNAL, "Model not found: m\norg.pytorch.serve.archive.model.ModelNotFoundException"),
            BadRequestError,
            ("ModelNotFoundException", None, 404),
        ),
        (grpc.StatusCode.CANCELLED, ServerError, ("cancelled", None, None)),
        (grpc.StatusCode.UNIMPLEMENTED, ServerError, ("unimplemented", None, None)),
    ],
)
def test_final_responses_are_not_retried(grpc_runner, service, clock, response, kind, expected):
    service.script = [response]
    with pytest.raises(kind) as caught:
        grpc_runner.generate()
    assert (caught.value.code, caught.value.request_id, getattr(caught.value, "status", None)) == expected
    assert clock.pauses == []


def test_last_error_is_raised_when_retries_are_used_up(grpc_runner, service, clock):
    service.script = [grpc.StatusCode.INTERNAL] * 3
    with pytest.raises(ServerError):
        grpc_runner.generate(arguments={"max_retries": 2})
    assert clock.pauses == [0.5, 1.0]


def test_no_pause_goes_past_the_deadline(grpc_runner, service, clock):
    service.script = [encode(error("overloaded"))] * 2
    with pytest.raises(OverloadedError):
        grpc_runner.generate(arguments={"deadline": 1.2})
    assert clock.pauses == [0.5]


def test_silent_server_times_out_and_is_retried(grpc_runner, service, clock):
    over = threading.Event()

    def silence():
        assert over.wait(20)
        return GOOD

    service.script = [silence, GOOD]
    assert grpc_runner.generate(arguments={"timeout": 0.3}).image == IMAGE
    assert clock.pauses == [0.5]
    service.script = [silence]
    with pytest.raises(APITimeoutError):
        grpc_runner.generate(arguments={"timeout": 0.3, "max_retries": 0})
    over.set()


def test_refused_connections_are_retried(grpc_runner, clock):
    with socket.socket() as bound:  # without listening
        bound.bind(("127.0.0.1", 0))
        grpc_runner.address = f"127.0.0.1:{bound.getsockname()[1]}"
        with pytest.raises(APIConnectionError):
            grpc_runner.generate(arguments={"max_retries": 1})
    assert clock.pauses == [0.5]


def test_connect_timeout_ends_a_silent_handshake(grpc_runner):
    with socket.create_server(("127.0.0.1", 0)) as listening:  # connects, but sends no HTTP/2 settings
        grpc_runner.address = f"127.0.0.1:{listening.getsockname()[1]}"
        began = time.monotonic()
        with pytest.raises(APIConnectionError):
            grpc_runner.generate(arguments={"connect_timeout": 0.3, "timeout": 15, "max_retries": 0})
    assert time.monotonic() - began < 10


def test_audio_over_the_message_limit_is_rejected(grpc_runner, service):
    with pytest.raises(BadRequestError, match="too_large: .* larger than max") as caught:
        grpc_runner.generate(bytes(65 * 2**20))
    assert caught.value.status == 413
    assert service.requests == []


def test_ping(grpc_runner):
    assert grpc_runner.call("ping") == "Healthy"


def test_arguments_are_checked_before_sending(grpc_runner, service):
    with pytest.raises(TypeError, match="size must be int or None, got str"):
        grpc_runner.generate(size="256")
    with pytest.raises(FileNotFoundError):
        grpc_runner.generate("no such voice.wav")
    assert service.requests == []


def test_threads_share_a_client(service):
    service.script = [GOOD] * 8
    with GrpcClient(service.target) as client:
        faces = []
        threads = [threading.Thread(target=lambda: faces.append(client.generate(b"voice"))) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(20)
    assert len(faces) == 8
