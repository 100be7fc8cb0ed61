"""`make demo` with a scripted service in place of TorchServe: what it prints, what it writes, what it returns."""

from types import SimpleNamespace
from urllib.parse import urlsplit

import pytest
from click.testing import CliRunner

from scripts import demo
from tests.support.client_responses import FACE, IMAGE, error
from tests.support.scripted_http import RESET, plain
from voicestyle.errors import ServerError


class FakeTorchServe:
    starts = True
    stopped = False

    def __init__(self, url):
        self.ports = SimpleNamespace(inference=urlsplit(url).port)

    def __enter__(self):
        if not self.starts:
            raise ServerError("the model was not ready after 300 s; the end of its log:\na line")
        return self

    def __exit__(self, *_):
        self.stopped = True

    def tail(self):
        return "; the end of its log:\na line"


@pytest.fixture
def torchserve(server, monkeypatch):
    torchserve = FakeTorchServe(server.url)
    monkeypatch.setattr(demo, "TorchServe", lambda archive: torchserve)
    monkeypatch.setattr(demo, "build", lambda bundle: None)
    return torchserve


@pytest.fixture
def face(tmp_path):
    return tmp_path / "face.png"


@pytest.fixture
def run(torchserve, server, face, tmp_path):
    """Run the demo against a service that sends one response."""
    voice = tmp_path / "voice.wav"
    voice.write_bytes(b"RIFF")

    def run(response, *arguments):
        server.script = [[response]]
        return CliRunner().invoke(demo.main, ["--voice", str(voice), "--face", str(face), *arguments])

    return run


def test_writes_the_face_and_prints_its_similarity(run, server, torchserve, face):
    result = run(plain(200, FACE), "--seed", "3")
    assert result.exit_code == 0, result.output
    assert face.read_bytes() == IMAGE
    assert str(face) in result.output
    assert "0.250 -> 0.750 in 4 steps" in result.output
    assert "demo@1, 256 pixels a side, seed 3" in result.output
    request = server.requests[0]
    assert request.body == b"RIFF"
    assert request.headers["x-voicestyle-seed"] == "3"
    assert "x-voicestyle-steps" not in request.headers
    assert torchserve.stopped


def test_rejection_prints_status_code_and_message(run, torchserve, face):
    result = run(plain(422, error("no_speech", "the audio must hold speech")))
    assert result.exit_code == 1
    assert "422, no_speech: the audio must hold speech" in result.output
    assert not face.exists()
    assert torchserve.stopped


def test_service_failure_prints_the_log(run, torchserve, face):
    result = run(plain(503, b"no slot", "text/plain"))
    assert result.exit_code == 1
    assert "no slot'; the end of its log:\na line" in result.output
    assert not face.exists()
    assert torchserve.stopped


def test_broken_connection_is_an_error(run, server, torchserve):
    result = run(RESET)
    assert (result.exit_code, torchserve.stopped) == (1, True)
    assert "the connection failed" in result.output
    assert len(server.requests) == 1


def test_server_that_does_not_start_is_an_error(run, server, torchserve):
    torchserve.starts = False
    result = run(plain(200, FACE))
    assert result.exit_code == 1
    assert "not ready after 300 s" in result.output
    assert server.requests == []


def test_missing_voice_is_an_error_before_the_start(run, server, tmp_path):
    result = run(plain(200, FACE), "--voice", str(tmp_path / "none.wav"))
    assert result.exit_code == 2
    assert "none.wav" in result.output
    assert server.requests == []


def test_missing_folder_of_the_face_is_an_error(run, server, tmp_path):
    result = run(plain(200, FACE), "--face", str(tmp_path / "none" / "face.png"))
    assert result.exit_code == 1
    assert "is not a folder" in result.output
    assert server.requests == []
