"""Wrong or hostile gRPC calls to a real TorchServe; after each one the server works as before."""

import base64
import json
import os
import threading

import grpc
import pytest

from tests.support.raw_http import exchange, head
from tests.support.tiny_service import UNRENDERABLE, message

pytestmark = [pytest.mark.serving, pytest.mark.usefixtures("unharmed")]

SECONDS = 60
PACKAGE = "org.pytorch.serve.grpc"


@pytest.fixture
def calls(service):
    with service.grpc() as calls:
        yield calls


@pytest.fixture(params=["unary", "stream"])
def ask(request, calls):
    """Call Predictions or StreamPredictions; returns the one JSON message of the reply."""

    def ask(inputs, **model):
        if request.param == "unary":
            return json.loads(calls.unary(message(inputs, **model), timeout=SECONDS).prediction)
        replies = list(calls.stream(message(inputs, **model), timeout=SECONDS))
        assert len(replies) == 1
        return json.loads(replies[0].prediction)

    return ask


def code(reply):
    assert set(reply) == {"error"}
    assert reply["error"]["message"]
    return reply["error"]["code"]


def test_faces_equal_those_over_http(ask, service):
    face = ask(service.inputs(steps=3, seed=5))
    assert base64.b64decode(face["image"]) == service.post(steps=3, seed=5).content
    assert "previews" not in face


@pytest.mark.parametrize("steps", [6, 200])
def test_previews_come_with_the_face(ask, service, steps):
    face = ask(service.inputs(steps=steps, previews=5, output="image"))
    assert [preview["step"] for preview in face["previews"]] == [-(-n * steps // 6) for n in range(1, 6)]
    assert len(face["trace"]) == steps
    assert base64.b64decode(face["image"])[:4] == b"\x89PNG"


def test_rejections(ask, service):
    voice = service.voice
    for inputs, expected in (
        ({}, "not_audio"),
        ({"data": voice}, "not_audio"),
        (service.inputs(b"text"), "not_audio"),
        (service.inputs(bytes(13 * 2**20)), "too_large"),
        (service.inputs(steps=0), "bad_option"),
        (service.inputs(previews=17), "bad_option"),
        (service.inputs(url_path="/predictions/voicestyle"), "bad_option"),
        (service.inputs(host="here"), "bad_option"),
        (service.inputs() | {"steps": b"\xff\xfe"}, "bad_option"),
        (service.inputs() | {f"f{number}": b"" for number in range(5000)}, "bad_option"),
        ({"body": voice, "steps": b"3"}, "not_audio"),
    ):
        assert code(ask(inputs)) == expected


@pytest.mark.parametrize("previews", [0, 2])
def test_internal_errors(ask, service, previews):
    assert code(ask(service.inputs(size=UNRENDERABLE, previews=previews))) == "internal"


def test_a_full_queue_rejects(ask, service):
    with service.full_queue():
        assert code(ask(service.inputs())) == "overloaded"


@pytest.mark.parametrize(
    ("model", "details"),
    [
        ({"model": "unknown"}, "Model not found: unknown"),
        ({"model": ""}, "Parameter model_name is required"),
        ({"version": "9"}, "Model version: 9 does not exist"),
    ],
)
def test_unknown_models_are_torchserve_s_internal_error(ask, service, model, details):
    with pytest.raises(grpc.RpcError) as caught:
        ask(service.inputs(), **model)
    assert caught.value.code() is grpc.StatusCode.INTERNAL
    assert caught.value.details().startswith(details)


def test_messages_beyond_torchserve_s_limit_are_reset(ask, service):
    with pytest.raises(grpc.RpcError) as caught:
        ask(service.inputs(bytes(20_000_000)))
    assert caught.value.code() is grpc.StatusCode.CANCELLED


@pytest.mark.parametrize("seconds", [0.001, 0.02, 0.1])
def test_a_deadline_ends_the_call_and_not_the_batch(ask, calls, service, seconds):
    with pytest.raises(grpc.RpcError) as caught:
        list(calls.stream(message(service.inputs(steps=200)), timeout=seconds))
    # TorchServe can reset the call just before the client's own timer ends it.
    assert caught.value.code() in (grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.CANCELLED)
    with pytest.raises(grpc.RpcError):
        calls.unary(message(service.inputs(steps=200)), timeout=seconds)
    # The worker finishes the requests that timed out, in the same batch as this one.
    assert len(ask(service.inputs(steps=20))["trace"]) == 20


def test_calls_cancelled_before_and_after_admission(calls, service):
    request = message(service.inputs(steps=200, previews=2))
    for start in (calls.unary.future, calls.stream):
        start(request, timeout=SECONDS).cancel()
        with service.admitting():
            call = start(request, timeout=SECONDS)
        call.cancel()
        assert call.cancelled()


def test_a_channel_closed_during_its_calls(service):
    with service.grpc() as calls, service.admitting(4):
        request = message(service.inputs(steps=100))
        # In a list, because grpc cancels calls without a reference.
        running = [start(request, timeout=SECONDS) for start in (calls.unary.future, calls.stream) * 2]
    assert all(call.done() for call in running)


def test_many_concurrent_resets(service):
    def cancel_calls():
        with service.grpc() as calls:
            for _ in range(50):
                calls.unary.future(message(service.inputs(b"x" * 1000)), timeout=SECONDS).cancel()

    threads = [threading.Thread(target=cancel_calls) for _ in range(4)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()


def test_bidirectional_streaming_is_not_supported(calls, service):
    replies = list(calls.both_ways(iter([message(service.inputs())]), timeout=SECONDS))
    assert [reply.prediction[:1] for reply in replies] != [b"{"]
    assert not list(calls.both_ways(iter([]), timeout=SECONDS))


def call_bare(port, method, body=b""):
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        return channel.unary_unary(method)(body, timeout=SECONDS)


@pytest.mark.parametrize(
    "method",
    [
        "inference.GRPCInferenceService/ModelInfer",  # KServe v2: it can kill the worker
        "inference.GRPCInferenceService/ServerLive",
        f"{PACKAGE}.management.ManagementAPIsService/UnregisterModel",
        "grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
    ],
)
def test_the_inference_port_offers_nothing_else(service, method):
    with pytest.raises(grpc.RpcError) as caught:
        call_bare(service.server.ports.grpc_inference, f"/{method}")
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


@pytest.mark.parametrize("method", ["RegisterModel", "UnregisterModel"])
def test_the_management_port_loads_no_model(service, method):
    method = f"/{PACKAGE}.management.ManagementAPIsService/{method}"
    with pytest.raises(grpc.RpcError) as caught:
        call_bare(service.server.ports.grpc_management, method, b"\x0a\x0avoicestyle")
    assert caught.value.code() is grpc.StatusCode.PERMISSION_DENIED


def test_bytes_that_are_no_message(service):
    port = service.server.ports.grpc_inference
    method = f"/{PACKAGE}.inference.InferenceAPIsService/Predictions"
    with pytest.raises(grpc.RpcError) as caught:
        call_bare(port, method, b"\x1a\xff\xff\xff")
    assert caught.value.code() is grpc.StatusCode.UNKNOWN
    before = len(service.log)
    assert exchange(port, os.urandom(1000)) is None
    assert exchange(port, head(service.path, "X-Name: Ada")) is None
    assert service.post(steps=1).status_code == 200
    written = service.log[before:]
    assert "Ada" not in written
    assert b"Ada".hex() not in written
    assert "Exception" not in written
