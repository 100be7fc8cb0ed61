"""`voicestyle request` against scripted servers."""

import pytest
from click.testing import CliRunner

from tests.support.client_responses import FACE, IMAGE, RESULT, SMALL, STARTED, encode, error, lines, preview, progress
from tests.support.scripted_http import RESET, STREAM_HEAD, chunk, plain, stream
from voicestyle.cli import main
from voicestyle.client import Retry, Settings

STORY = lines(STARTED, progress(2), preview(2), progress(4), preview(4), RESULT)


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    # No pause; the rest is as the command makes it.
    monkeypatch.setattr(Retry, "delay", lambda self, failures, error, draw: 0.0 if error.retryable else None)
    (tmp_path / "voice.wav").write_bytes(b"voice")
    return lambda *arguments: CliRunner().invoke(main, ["request", "voice.wav", *map(str, arguments)])


def test_a_face_over_http(run, server, tmp_path):
    server.script = [[stream(STORY)]]
    result = run("--url", server.url, "--steps", 4, "--seed", 3, "--size", 256)
    assert result.exit_code == 0, result.output
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"voice.wav": b"voice", "face.png": IMAGE}
    assert "similarity 0.250 -> 0.750" in result.stdout
    assert "demo@1, 4 steps, seed 3, 256 pixels a side, request r-1" in result.stdout
    assert "4/4" in result.stderr
    asked = server.asked[0]
    assert asked.body == b"voice"
    assert [asked.headers[f"x-voicestyle-{name}"] for name in ("steps", "seed", "size", "format", "previews")] == [
        "4", "3", "256", "png", "1",
    ]  # fmt: skip


def test_previews_go_into_their_folder(run, server, tmp_path):
    server.script = [[stream(STORY)]]
    result = run("--url", server.url, "-o", "out/made.webp", "--preview-dir", "way")
    assert result.exit_code == 0, result.output
    assert (tmp_path / "out" / "made.webp").read_bytes() == IMAGE
    assert [path.name for path in sorted((tmp_path / "way").iterdir())] == ["made-2.jpg", "made-4.jpg"]
    assert (tmp_path / "way" / "made-2.jpg").read_bytes() == SMALL + b"\x02"
    headers = server.asked[0].headers
    assert (headers["x-voicestyle-previews"], headers["x-voicestyle-format"]) == ("4", "webp")


def test_a_face_over_grpc(run, service, tmp_path):
    service.script = [encode(FACE | {"previews": [preview(2)]})]
    result = run("--grpc", service.target, "--previews", 1, "--preset", "fast", "-o", "made.jpg")
    assert result.exit_code == 0, result.output
    assert (tmp_path / "made.jpg").read_bytes() == IMAGE
    assert (tmp_path / "made-2.jpg").is_file()
    assert dict(service.asked[0].input) == {
        "audio": b"voice", "format": b"jpeg", "previews": b"1", "preset": b"fast",
    }  # fmt: skip


def test_a_broken_stream_is_told_and_begun_anew(run, server, tmp_path):
    server.script = [[STREAM_HEAD + chunk(lines(STARTED, progress(2))), RESET], [stream(STORY)]]
    result = run("--url", server.url)
    assert result.exit_code == 0, result.output
    assert "asking again in 0.0 s" in result.stderr
    assert (tmp_path / "face.png").read_bytes() == IMAGE


@pytest.mark.parametrize(
    ("answer", "code", "message"),
    [
        (plain(422, error("no_speech", "there must\nbe speech, got none")), 2, "no_speech: there must be speech, got"),
        (plain(500, error("internal", "our fault")), 1, "internal: our fault"),
    ],
)
def test_an_error_is_one_line_and_leaves_the_old_face(run, server, tmp_path, answer, code, message):
    (tmp_path / "face.png").write_bytes(b"older")
    server.script = [[answer]]
    result = run("--url", server.url)
    assert result.exit_code == code
    assert f"voicestyle: {message}" in result.stderr.splitlines()[-1]
    assert (tmp_path / "face.png").read_bytes() == b"older"


def test_a_service_that_is_not_there(run, monkeypatch):
    monkeypatch.setattr(Settings, "retry", Retry(1), raising=False)
    monkeypatch.setattr(Retry, "delay", lambda self, failures, error, draw: None)
    result = run("--url", "http://127.0.0.1:1")
    assert result.exit_code == 1
    assert "Connection refused" in result.stderr.splitlines()[-1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-o", "face.gif"], "a face is written as .png, .jpg, .jpeg, .webp, got face.gif"),
        (["-o", "face"], "a face is written as .png, .jpg, .jpeg, .webp, got face"),
        (["-o", "face.png", "--format", "webp"], "face.png is a file of png, got --format webp"),
        (["--url", "here"], "a service's URL is http://host:port or https://host, got 'here'"),
        (["--timeout", "0"], "0"),
        (["-o", "voice.wav/face.png"], "voice.wav"),
    ],
)
def test_mistakes_end_before_anything_is_asked(run, server, arguments, message):
    result = run(*(arguments if "--url" in arguments else ["--url", server.url, *arguments]))
    assert result.exit_code == 2
    assert message in result.stderr
    assert server.asked == []
