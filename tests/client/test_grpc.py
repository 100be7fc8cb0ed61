"""Both gRPC clients against a server in this process that follows a script."""

import socket
import threading

import grpc
import pytest

from tests.support.client_responses import FACE, IMAGE, encode, error, preview
from voicestyle.client import Busy, GrpcClient, Refused, Retry, ServiceFailed, TimedOut, Unreachable

GOOD = encode(FACE)


def test_a_face_and_what_was_asked(grpc_asker, service):
    service.script = [GOOD]
    face = grpc_asker.generate(
        b"voice\xff", steps=4, size=256, format="png", settings={"headers": {"Authorization": "Bearer word"}}
    )
    assert (face.image, face.trace, face.request_id) == (IMAGE, (0.25, 0.5, 0.625, 0.75), "r-1")
    asked = service.asked[0]
    assert asked.model_name == "voicestyle"
    assert dict(asked.input) == {"audio": b"voice\xff", "steps": b"4", "size": b"256", "format": b"png"}
    assert service.metadata[0]["authorization"] == "Bearer word"


def test_previews_come_with_the_face(grpc_asker, service):
    service.script = [encode(FACE | {"previews": [preview(2), preview(4)]})]
    assert [each.step for each in grpc_asker.generate(previews=2).previews] == [2, 4]


def test_24_mib_both_ways(grpc_asker, service):
    import base64

    large = bytes(24 * 2**20)
    service.script = [encode(FACE | {"image": base64.b64encode(large).decode()})]
    assert len(grpc_asker.generate(large).image) == len(large)
    assert len(service.asked[0].input["audio"]) == len(large)


@pytest.mark.parametrize(
    "answer",
    [
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.INTERNAL,
        (grpc.StatusCode.RESOURCE_EXHAUSTED, "Worker died.\norg.pytorch.serve.http.InternalServerException"),
        encode(error("overloaded")),
        encode(error("draining")),
    ],
)
def test_what_is_asked_again(grpc_asker, service, clock, answer):
    service.script = [answer, answer, GOOD]
    assert grpc_asker.generate().image == IMAGE
    assert clock.pauses == [1.0, 2.0]
    assert len(service.asked) == 3


@pytest.mark.parametrize(
    ("answer", "kind", "said"),
    [
        (encode(error("no_speech")), Refused, ("no_speech", "r-9", 422)),
        (encode(error("too_large")), Refused, ("too_large", "r-9", 413)),
        (encode(error("unheard_of")), Refused, ("unheard_of", "r-9", 400)),
        (encode(error("internal")), ServiceFailed, ("internal", "r-9", None)),
        (b"no JSON", ServiceFailed, ("malformed", None, None)),
        (b"{}", ServiceFailed, ("malformed", None, None)),
        (grpc.StatusCode.NOT_FOUND, Refused, ("not_found", None, 404)),
        (grpc.StatusCode.UNAUTHENTICATED, Refused, ("unauthenticated", None, 401)),
        (
            (grpc.StatusCode.INTERNAL, "Model not found: m\norg.pytorch.serve.archive.model.ModelNotFoundException"),
            Refused,
            ("ModelNotFoundException", None, 404),
        ),
        (grpc.StatusCode.CANCELLED, ServiceFailed, ("cancelled", None, None)),
        (grpc.StatusCode.UNIMPLEMENTED, ServiceFailed, ("unimplemented", None, None)),
    ],
)
def test_what_is_never_asked_again(grpc_asker, service, clock, answer, kind, said):
    service.script = [answer]
    with pytest.raises(kind) as caught:
        grpc_asker.generate()
    assert (caught.value.code, caught.value.request_id, getattr(caught.value, "status", None)) == said
    assert clock.pauses == []


def test_attempts_are_counted(grpc_asker, service, clock):
    service.script = [grpc.StatusCode.INTERNAL] * 3
    with pytest.raises(ServiceFailed):
        grpc_asker.generate(settings={"retry": Retry(3, 1, 8)})
    assert clock.pauses == [1.0, 2.0]
    service.script = [encode(error("overloaded"))] * 2
    with pytest.raises(Busy):
        grpc_asker.generate(settings={"deadline_seconds": 2.5})
    assert clock.pauses == [1.0, 2.0, 1.0]


def test_a_server_that_never_answers(grpc_asker, service, clock):
    over = threading.Event()

    def silence():
        assert over.wait(20)
        return GOOD

    service.script = [silence, GOOD]
    assert grpc_asker.generate(settings={"attempt_seconds": 0.3}).image == IMAGE
    assert clock.pauses == [1.0]
    service.script = [silence]
    with pytest.raises(TimedOut):
        grpc_asker.generate(settings={"attempt_seconds": 0.3, "retry": Retry(1)})
    over.set()


def test_nobody_there(grpc_asker, clock):
    with socket.socket() as taken:  # bound, but nobody listens
        taken.bind(("127.0.0.1", 0))
        grpc_asker.address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(Unreachable):
            grpc_asker.generate(settings={"retry": Retry(2, 1, 8)})
    assert clock.pauses == [1.0]


def test_a_voice_over_the_limit_is_refused_before_it_is_sent(grpc_asker, service):
    with pytest.raises(Refused, match="too_large: .* larger than max"):
        grpc_asker.generate(bytes(65 * 2**20))
    assert service.asked == []


def test_ping(grpc_asker):
    assert grpc_asker.call("ping") == "Healthy"


def test_arguments_that_no_server_could_read(grpc_asker):
    with pytest.raises(TypeError, match="size must be int or None, got str"):
        grpc_asker.generate(size="256")
    with pytest.raises(FileNotFoundError):
        grpc_asker.generate(__import__("pathlib").Path("no such voice.wav"))


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
