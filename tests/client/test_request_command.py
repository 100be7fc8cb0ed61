"""`voicestyle request` against scripted servers."""

import click
import pytest
from click.testing import CliRunner

from tests.support.client_responses import FACE, IMAGE, RESULT, SMALL, STARTED, encode, error, lines, preview, progress
from tests.support.scripted_http import RESET, STREAM_HEAD, chunk, plain, stream
from voicestyle.cli import main
from voicestyle.cli.options import option_flags
from voicestyle.options import OPTIONS

STORY = lines(STARTED, progress(2), preview(2), progress(4), preview(4), RESULT)


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "voice.wav").write_bytes(b"voice")
    return lambda *arguments: CliRunner().invoke(main, ["request", "voice.wav", *map(str, arguments)])


def test_writes_a_face_over_http(run, server, tmp_path):
    server.script = [[stream(STORY)]]
    result = run("--url", server.url, "--steps", 4, "--seed", 3, "--size", 256)
    assert result.exit_code == 0, result.output
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"voice.wav": b"voice", "face.png": IMAGE}
    assert "similarity 0.250 -> 0.750" in result.stdout
    assert "demo@1, 4 steps, seed 3, 256 pixels a side, request r-1" in result.stdout
    assert "4/4" in result.stderr
    request = server.requests[0]
    assert request.body == b"voice"
    assert [request.headers[f"x-voicestyle-{name}"] for name in ("steps", "seed", "size", "format", "previews")] == [
        "4", "3", "256", "png", "1",
    ]  # fmt: skip


def test_a_single_step_has_no_preview(run, server):
    server.script = [[plain(200, FACE)]]
    assert run("--url", server.url, "--steps", 1).exit_code == 0
    assert server.requests[0].headers["x-voicestyle-previews"] == "0"


@pytest.mark.parametrize("options", [["--preset", "instant"], ["--preset", "instant", "--steps", 0]])
def test_a_face_without_steps_has_no_preview(run, server, options):
    face = FACE | {"steps": 0, "preset": "instant", "trace": [0.75], "first_similarity": 0.75}
    server.script = [[plain(200, face)]]
    result = run("--url", server.url, *options)
    assert result.exit_code == 0, result.output
    assert server.requests[0].headers["x-voicestyle-previews"] == "0"
    assert server.requests[0].headers["x-voicestyle-preset"] == "instant"
    assert "face.png  similarity 0.750\n" in result.stdout
    assert "0 steps" in result.stdout


def test_steps_after_the_mapper_have_progress(run, server):
    server.script = [[stream(STORY)]]
    assert run("--url", server.url, "--preset", "instant", "--steps", 4).exit_code == 0
    assert server.requests[0].headers["x-voicestyle-previews"] == "1"


def test_writes_previews_into_their_folder(run, server, tmp_path):
    server.script = [[stream(STORY)]]
    result = run("--url", server.url, "-o", "out/made.webp", "--preview-dir", "previews")
    assert result.exit_code == 0, result.output
    assert (tmp_path / "out" / "made.webp").read_bytes() == IMAGE
    assert [path.name for path in sorted((tmp_path / "previews").iterdir())] == ["made-2.jpg", "made-4.jpg"]
    assert (tmp_path / "previews" / "made-2.jpg").read_bytes() == SMALL + b"\x02"
    headers = server.requests[0].headers
    assert (headers["x-voicestyle-previews"], headers["x-voicestyle-format"]) == ("4", "webp")


def test_writes_a_face_over_grpc(run, service, tmp_path):
    service.script = [encode(FACE | {"previews": [preview(2)]})]
    result = run("--grpc", service.target, "--previews", 1, "--preset", "fast", "-o", "made.jpg")
    assert result.exit_code == 0, result.output
    assert (tmp_path / "made.jpg").read_bytes() == IMAGE
    assert (tmp_path / "made-2.jpg").is_file()
    assert dict(service.requests[0].input) == {
        "audio": b"voice", "format": b"jpeg", "previews": b"1", "preset": b"fast",
    }  # fmt: skip


def test_reports_and_retries_a_broken_stream(run, server, tmp_path):
    server.script = [[STREAM_HEAD + chunk(lines(STARTED, progress(2))), RESET], [stream(STORY)]]
    result = run("--url", server.url)
    assert result.exit_code == 0, result.output
    assert "trying again in 0.5 s" in result.stderr
    assert (tmp_path / "face.png").read_bytes() == IMAGE


@pytest.mark.parametrize(
    ("response", "code", "message"),
    [
        (plain(422, error("no_speech", "there must\nbe speech, got none")), 2, "no_speech: there must be speech, got"),
        (plain(500, error("internal", "a fault")), 1, "internal: a fault"),
    ],
)
def test_error_is_one_line_and_keeps_the_old_face(run, server, tmp_path, response, code, message):
    (tmp_path / "face.png").write_bytes(b"older")
    server.script = [[response]]
    result = run("--url", server.url)
    assert result.exit_code == code
    assert f"voicestyle: {message}" in result.stderr.splitlines()[-1]
    assert (tmp_path / "face.png").read_bytes() == b"older"


def test_refused_connection_ends_with_exit_code_1(run):
    result = run("--url", "http://127.0.0.1:1", "--timeout", 2)
    assert result.exit_code == 1
    assert "Connection refused" in result.stderr.splitlines()[-1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-o", "face.gif"], "a face is written as .png, .jpg, .jpeg, .webp, got face.gif"),
        (["-o", "face"], "a face is written as .png, .jpg, .jpeg, .webp, got face"),
        (["-o", "face.png", "--format", "webp"], "the suffix of face.png stands for png, got --format webp"),
        (["--url", "here"], "the URL of a service must be http://host:port or https://host, got 'here'"),
        (["--timeout", "0"], "0"),
        (["--preset", "a b"], "'a b' is not one of"),
        (["-o", "voice.wav/face.png"], "voice.wav"),
    ],
)
def test_arguments_are_checked_before_sending(run, server, arguments, message):
    result = run(*(arguments if "--url" in arguments else ["--url", server.url, *arguments]))
    assert result.exit_code == 2
    assert message in result.stderr
    assert server.requests == []


@pytest.mark.parametrize(("local", "left_out"), [(False, {"output"}), (True, {"output", "format", "previews"})])
def test_each_option_of_the_table_has_a_flag(local, left_out):
    @click.command()
    @option_flags(local=local, steps="three")
    def command(**options):
        click.echo(options)

    flags = {parameter.name: parameter for parameter in command.params}
    assert list(flags) == [name for name in OPTIONS if name not in left_out]
    for name, flag in flags.items():
        assert OPTIONS[name].help.lower() in flag.help.lower()
        assert flag.help.endswith(f"[default: {'three' if name == 'steps' else OPTIONS[name].default}]")
        given = OPTIONS[name].choices[-1] if OPTIONS[name].choices else 7
        assert f"{name!r}: {given!r}" in CliRunner().invoke(command, [f"--{name}", given]).output
    assert CliRunner().invoke(command, ["--seed", "-1"]).exit_code == 2
    assert CliRunner().invoke(command).output == f"{dict.fromkeys(flags)}\n"
