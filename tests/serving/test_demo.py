"""`make demo` around a server of pretence: what it prints, what it writes, what it returns."""

import httpx
import pytest
from click.testing import CliRunner

from scripts import demo
from voicestyle.errors import ServerError

SAID = {
    "X-VoiceStyle-First-Similarity": "0.125",
    "X-VoiceStyle-Similarity": "0.5",
    "X-VoiceStyle-Model": "demo@1",
    "X-VoiceStyle-Steps": "16",
    "X-VoiceStyle-Seed": "9",
    "X-VoiceStyle-Size": "1024",
}


class FakeServer:
    url = "http://127.0.0.1:9/predictions/voicestyle"
    starts = True

    def __init__(self):
        self.stopped = False

    def __enter__(self):
        if not self.starts:
            raise ServerError("the model was not ready after 300 s; the end of its log:\na line")
        return self

    def __exit__(self, *_):
        self.stopped = True

    def tail(self):
        return "; the end of its log:\na line"


@pytest.fixture
def server(monkeypatch):
    server = FakeServer()
    monkeypatch.setattr(demo, "TorchServe", lambda: server)
    monkeypatch.setattr(demo, "build", lambda: None)
    return server


@pytest.fixture
def run(server, monkeypatch, tmp_path):
    """Run the demo on a service that gives one answer; returns click's result, the request and the face's path."""
    voice, face, asked = tmp_path / "voice.wav", tmp_path / "face.png", {}
    voice.write_bytes(b"RIFF")

    def run(answer, *arguments):
        def post(url, **request):
            asked.update(request, url=url)
            if isinstance(answer, Exception):
                raise answer
            return answer

        monkeypatch.setattr(demo.httpx, "post", post)
        arguments = ["--voice", str(voice), "--face", str(face), *arguments]
        return CliRunner().invoke(demo.main, arguments), asked, face

    return run


def test_writes_the_face_and_says_where_and_how_similar(run, server):
    result, asked, face = run(httpx.Response(200, content=b"PNG", headers=SAID), "--seed", "9")
    assert result.exit_code == 0, result.output
    assert face.read_bytes() == b"PNG"
    assert str(face) in result.output
    assert "0.125 -> 0.500 in 16 steps" in result.output
    assert asked["content"] == b"RIFF"
    assert asked["headers"]["X-VoiceStyle-seed"] == "9"
    assert "X-VoiceStyle-steps" not in asked["headers"]
    assert server.stopped


def test_names_code_and_message_of_a_refusal(run, server):
    error = {"code": "no_speech", "message": "the audio must hold speech", "request_id": "1"}
    result, _, face = run(httpx.Response(422, json={"error": error}))
    assert result.exit_code == 1
    assert "422, no_speech: the audio must hold speech" in result.output
    assert not face.exists()
    assert server.stopped


def test_shows_the_log_when_the_service_fails(run, server):
    result, _, face = run(httpx.Response(503, text="no place"))
    assert result.exit_code == 1
    assert "no place; the end of its log:\na line" in result.output
    assert not face.exists()
    assert server.stopped


def test_a_broken_connection_is_an_error(run, server):
    result, _, _ = run(httpx.ReadError("gone"))
    assert (result.exit_code, server.stopped) == (1, True)
    assert "gone" in result.output


def test_a_server_that_does_not_start_is_an_error(run, server):
    server.starts = False
    result, asked, _ = run(httpx.Response(200))
    assert result.exit_code == 1
    assert "not ready after 300 s" in result.output
    assert not asked


def test_a_missing_voice_is_an_error_before_anything_starts(run, tmp_path):
    result, asked, _ = run(httpx.Response(200), "--voice", str(tmp_path / "none.wav"))
    assert result.exit_code == 2
    assert "none.wav" in result.output
    assert not asked


def test_a_face_needs_a_folder(run, tmp_path):
    result, asked, _ = run(httpx.Response(200), "--face", str(tmp_path / "none" / "face.png"))
    assert result.exit_code == 1
    assert "is not a folder" in result.output
    assert not asked
