"""Both HTTP clients against a real socket with scripted responses."""

import threading
from pathlib import Path

import pytest

from tests.support.client_responses import (
    FACE,
    IMAGE,
    RESULT,
    SMALL,
    STARTED,
    error,
    lines,
    preview,
    progress,
    torchserve_error,
)
from tests.support.scripted_http import CLOSE, RESET, SECONDS, SILENCE, STREAM_END, STREAM_HEAD, chunk, plain, stream
from voicestyle.client import (
    APIConnectionError,
    APITimeoutError,
    BadRequestError,
    Client,
    Face,
    OverloadedError,
    Preview,
    Progress,
    Retrying,
    ServerError,
    Started,
)
from voicestyle.options import OptionValues

GOOD = [plain(200, FACE)]
STORY = lines(STARTED, progress(2), preview(2), progress(4), preview(4), RESULT)


@pytest.mark.parametrize("path_type", [Path, str])
def test_generate_returns_all_fields_of_the_response(http, server, tmp_path, path_type):
    server.script = [GOOD]
    (tmp_path / "voice.wav").write_bytes(b"RIFF and so on")
    face = http.generate(path_type(tmp_path / "voice.wav"), steps=4, seed=3, size=256, format="png", preset=None)
    assert face == Face(
        **FACE | {"image": IMAGE, "trace": (0.25, 0.5, 0.625, 0.75), "prototypes": (7, 1, 4), "speech_seconds": 3.0}
    )
    request = server.requests[0]
    assert request.line == "POST /predictions/voicestyle HTTP/1.1"
    assert request.body == b"RIFF and so on"
    options = {name: value for name, value in request.headers.items() if name.startswith("x-voicestyle-")}
    assert options == {
        "x-voicestyle-steps": "4",
        "x-voicestyle-seed": "3",
        "x-voicestyle-size": "256",
        "x-voicestyle-format": "png",
        "x-voicestyle-output": "json",
    }
    assert request.headers["content-type"] == "application/octet-stream"


def test_every_option_is_sent_as_a_header(http, server):
    server.script = [GOOD]
    options = {name: "word" if name in ("format", "preset") else 2 for name in OptionValues.__annotations__}
    http.generate(b"voice", **options)
    headers = server.requests[0].headers
    assert {name: headers[f"x-voicestyle-{name}"] for name in options} == {key: str(options[key]) for key in options}


def test_model_and_headers_are_sent(http, server):
    server.script = [GOOD]
    http.generate(arguments={"model": "my faces", "headers": {"Authorization": "Bearer word"}})
    assert server.requests[0].line == "POST /predictions/my%20faces HTTP/1.1"
    assert server.requests[0].headers["authorization"] == "Bearer word"


def test_loopback_is_never_reached_through_a_proxy(http, server, monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    server.script = [GOOD]
    assert http.generate().image == IMAGE


def test_other_hosts_are_reached_through_the_proxy(http, server, monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", server.url)
    http.address = "http://faces.invalid"
    server.script = [GOOD]
    assert http.generate().image == IMAGE
    assert server.requests[0].line == "POST http://faces.invalid/predictions/voicestyle HTTP/1.1"


@pytest.mark.parametrize("size", [1, 7, 1000, None])
def test_stream_is_read_from_chunks_of_any_size(http, server, size):
    server.script = [[stream(STORY, size)]]
    started, two, small, four, _, face = http.events(previews=2)
    assert started == Started("r-1", "demo@1", 4, "default", 3, 256, "png")
    assert (two, four) == (Progress(2, 4, 0.5), Progress(4, 4, 0.75))
    assert small == Preview(2, 4, 0.5, "jpeg", 128, SMALL + b"\x02")
    assert face.image == IMAGE
    assert server.requests[0].headers["x-voicestyle-previews"] == "2"


def test_generate_collects_previews_of_the_last_attempt(http, server):
    broken = [STREAM_HEAD + chunk(lines(STARTED, preview(2))), RESET]
    server.script = [broken, [stream(STORY)]]
    face = http.generate(previews=2)
    assert [each.step for each in face.previews] == [2, 4]


def test_stream_without_previews_yields_the_face_only(http, server):
    server.script = [GOOD]
    assert [type(event) for event in http.events()] == [Face]


@pytest.mark.parametrize(
    "broken",
    [
        [RESET],
        [CLOSE],
        [STREAM_HEAD + chunk(lines(STARTED, progress(2))), RESET],
        [STREAM_HEAD + chunk(lines(STARTED, progress(2))), CLOSE],
        [STREAM_HEAD + chunk(lines(STARTED, progress(2))) + chunk(lines(RESULT)[:200]) + STREAM_END],
        [STREAM_HEAD + chunk(lines(STARTED)) + b"no length\r\n", CLOSE],
        [STREAM_HEAD + chunk(lines(STARTED)) + plain(500, torchserve_error(500)), CLOSE],
        [STREAM_HEAD + chunk(lines(STARTED, torchserve_error(507))) + STREAM_END],
        *(
            [STREAM_HEAD + chunk(lines(STARTED, {"event": "error"} | error(code))) + STREAM_END]
            for code in ("draining", "device_failed", "out_of_memory")
        ),
    ],
)
def test_broken_stream_restarts_with_a_retrying_event(http, server, clock, broken):
    server.script = [broken, [stream(STORY)]]
    events = http.events(previews=2)
    at = next(index for index, event in enumerate(events) if isinstance(event, Retrying))
    assert (events[at].attempt, events[at].delay) == (2, 0.5)
    assert events[at].error.retryable
    assert [type(event) for event in events[at + 1 :]] == [Started, Progress, Preview, Progress, Preview, Face]
    assert clock.pauses == [0.5]


@pytest.mark.parametrize(
    ("response", "kind"),
    [
        (plain(503, error("overloaded")), OverloadedError),
        (plain(503, error("draining")), OverloadedError),
        (plain(503, error("device_failed")), OverloadedError),
        (plain(503, error("out_of_memory")), OverloadedError),
        (plain(503, error("a_new_code")), OverloadedError),
        (plain(503, torchserve_error(503, "ServiceUnavailableException")), OverloadedError),
        (plain(503, b"<html>", "text/html"), OverloadedError),
        (plain(502, b"<html>", "text/html"), APIConnectionError),
        (plain(504, b""), APIConnectionError),
        (plain(500, torchserve_error(500)), ServerError),
        (plain(507, torchserve_error(507)), ServerError),
    ],
)
def test_retryable_responses_are_retried(http, server, clock, response, kind):
    server.script = [[response], [response], GOOD]
    events = http.events()
    assert [type(event) for event in events] == [Retrying, Retrying, Face]
    assert type(events[0].error) is kind
    assert clock.pauses == [0.5, 1.0]
    assert [request.body for request in server.requests] == [b"voice"] * 3


@pytest.mark.parametrize(
    ("response", "kind", "expected"),
    [
        (plain(400, error("bad_option")), BadRequestError, ("bad_option", "r-9", 400)),
        (plain(413, error("too_long")), BadRequestError, ("too_long", "r-9", 413)),
        (plain(415, error("not_audio")), BadRequestError, ("not_audio", "r-9", 415)),
        (plain(422, error("no_speech")), BadRequestError, ("no_speech", "r-9", 422)),
        (
            plain(404, torchserve_error(404, "ModelNotFoundException")),
            BadRequestError,
            ("ModelNotFoundException", None, 404),
        ),
        (plain(413, b""), BadRequestError, ("too_large", None, 413)),
        (plain(401, b"no", "text/plain", X_Request_Id="p-1"), BadRequestError, ("http_401", "p-1", 401)),
        (plain(429, {"error": {"code": 429, "message": "slow"}}), BadRequestError, ("http_429", None, 429)),
        (plain(500, error("internal")), ServerError, ("internal", "r-9", None)),
        (plain(302, b"", Location="http://127.0.0.1:9/"), ServerError, ("http_302", None, None)),
        (plain(200, b"<html>", "text/html"), ServerError, ("malformed", None, None)),
        (plain(200, {"image": 3}), ServerError, ("malformed", None, None)),
        (stream(b"no JSON\n"), ServerError, ("malformed", None, None)),
        (stream(b"[1]\n"), ServerError, ("malformed", None, None)),
        (stream(lines({"event": "error"} | error("internal"))), ServerError, ("internal", "r-9", None)),
        (stream(lines({"event": "error"} | error("no_speech"))), BadRequestError, ("no_speech", "r-9", 422)),
    ],
)
def test_final_responses_are_not_retried(http, server, clock, response, kind, expected):
    server.script = [[response]]
    with pytest.raises(kind) as caught:
        http.generate()
    assert type(caught.value) is kind
    assert (caught.value.code, caught.value.request_id, getattr(caught.value, "status", None)) == expected
    assert clock.pauses == []


@pytest.mark.parametrize("sent", [b"", b"HTTP/1.1 200 OK\r\nContent-Ty", plain(200, FACE)[:-5], plain(400, b"{}")[:-1]])
def test_truncated_responses_are_retried(http, server, clock, sent):
    server.script = [[sent, CLOSE], [sent, RESET], GOOD]
    events = http.events()
    assert [type(event) for event in events] == [Retrying, Retrying, Face]
    assert {type(event.error) for event in events[:2]} == {APIConnectionError}
    assert clock.pauses == [0.5, 1.0]


def test_retry_after_is_added_to_the_backoff(http, server, clock):
    server.script = [[plain(503, error("overloaded"), Retry_After=7)], GOOD]
    http.generate()
    assert clock.pauses == [7.5]


def test_last_error_is_raised_when_retries_are_used_up(http, server, clock):
    server.script = [[RESET], [RESET], [plain(503, error("overloaded", request_id="r-3"))]]
    with pytest.raises(OverloadedError) as caught:
        http.generate(arguments={"max_retries": 2})
    assert caught.value.request_id == "r-3"
    assert clock.pauses == [0.5, 1.0]


def test_no_retries_when_max_retries_is_0(http, server, clock):
    server.script = [[RESET]]
    with pytest.raises(APIConnectionError):
        http.generate(arguments={"max_retries": 0})
    assert clock.pauses == []


def test_no_pause_goes_past_the_deadline(http, server, clock):
    server.script = [[plain(503, error("draining"), Retry_After=30)]]
    with pytest.raises(OverloadedError) as caught:
        http.generate(arguments={"deadline": 20})
    assert caught.value.retry_after == 30
    assert clock.pauses == []


def test_silent_server_times_out_and_is_retried(http, server):
    server.script = [[SILENCE], [STREAM_HEAD + chunk(lines(STARTED)), SILENCE], [stream(STORY)]]
    events = http.events(previews=2, arguments={"timeout": 0.3})
    assert [type(event) for event in events[:4]] == [Retrying, Started, Retrying, Started]
    assert [type(event.error) for event in events if isinstance(event, Retrying)] == [APITimeoutError] * 2


def test_timeout_also_ends_a_response_that_trickles(server, clock):
    """Data that arrive in time do not extend the timeout of an attempt."""
    server.script = [[STREAM_HEAD + chunk(lines(STARTED)) + chunk(lines(progress(2))), SILENCE], [stream(STORY)]]
    with Client(server.url, timeout=50) as client:
        events = client.stream(b"voice", previews=2)
        assert isinstance(next(events), Started)
        clock.now += 60
        rest = list(events)
    error = next(event.error for event in rest if isinstance(event, Retrying))
    assert isinstance(error, APITimeoutError)
    assert isinstance(rest[-1], Face)


def test_refused_connections_are_retried(http, clock):
    http.address = "http://127.0.0.1:1"
    events = []
    with pytest.raises(APIConnectionError, match="refused|ConnectError"):
        http.events(into=events, arguments={"max_retries": 2})
    assert [event.attempt for event in events] == [2, 3]
    assert clock.pauses == [0.5, 1.0]


def test_leaving_a_stream_closes_its_connection(http, server):
    server.script = [[STREAM_HEAD + chunk(lines(STARTED, progress(2))), SILENCE]]
    events = http.events(previews=1, stop=lambda event: isinstance(event, Progress))
    assert isinstance(events[-1], Progress)
    assert server.disconnected.wait(SECONDS)


def test_face_ends_the_stream_before_the_connection(http, server):
    for end in (SILENCE, RESET):
        server.script = [[STREAM_HEAD + chunk(STORY), end]]
        assert isinstance(http.events(previews=2)[-1], Face)
    assert len(server.requests) == 2


def test_unknown_events_and_empty_lines_are_ignored(http, server):
    server.script = [[stream(b"\n\r\n" + lines({"event": "moved", "to": 3}, STARTED) + b"\r\n" + lines(RESULT))]]
    assert [type(event) for event in http.events(previews=1)] == [Started, Face]


def test_ping_and_readiness(http, server):
    server.script = [[plain(200, {"status": "Healthy"})]]
    assert http.call("ping") == "Healthy"
    server.script = [[plain(200, b"ready")], [plain(503, b"the canary is late")], [plain(404, b"")]]
    assert http.call("ready", server.url) is True
    assert http.call("ready", server.url + "/") is False
    with pytest.raises(BadRequestError):
        http.call("ready", server.url)
    assert [request.line.split()[1] for request in server.requests] == ["/ping", "/ready", "/ready", "/ready"]


def test_ping_raises_for_other_responses(http, server):
    server.script = [[plain(503, {"code": 503, "type": "X", "message": "Unhealthy"})]]
    with pytest.raises(OverloadedError, match="X: Unhealthy"):
        http.call("ping")
    for body in (b"<html>", {}, {"status": 1}, [1]):
        server.script = [[plain(200, body)]]
        with pytest.raises(ServerError, match="malformed"):
            http.call("ping")


@pytest.mark.parametrize(
    ("audio", "options", "message"),
    [
        (3, {}, r"audio must be the bytes of a file, or its path \(str or Path\), got int"),
        (bytearray(b"RIFF"), {}, "audio must be .*, got bytearray"),
        (b"", {"steps": "4"}, "steps must be int or None, got str"),
        (b"", {"seed": True}, "seed must be int or None, got bool"),
        (b"", {"format": 3}, "format must be str or None, got int"),
        (b"", {"format": "png\r\nX: y"}, "format must be a word such as png"),
        (b"", {"preset": 1}, "preset must be str or None, got int"),
        (b"", {"preset": "fast\r\nX: y"}, "preset must be a word such as default"),
        (b"", {"stepps": 4}, "unknown option 'stepps'; the options are steps, "),
        (b"", {"output": "json"}, "unknown option 'output'"),
    ],
)
def test_arguments_are_checked_before_sending(http, server, audio, options, message):
    with pytest.raises((TypeError, ValueError), match=message):
        http.generate(audio, **options)
    assert server.requests == []


@pytest.mark.parametrize("path", ["no such voice.wav", Path("no such voice.wav")])
def test_missing_audio_file_raises(http, path):
    with pytest.raises(FileNotFoundError):
        http.generate(path)


@pytest.mark.parametrize("url", ["127.0.0.1:8080", "ftp://here", "http://", "http://here/?a=b", ""])
def test_invalid_url_is_rejected(url):
    with pytest.raises(ValueError, match="the URL of a service must be"):
        Client(url)


def test_threads_share_a_client(server):
    server.script = [GOOD] * 8
    faces = []
    with Client(server.url) as client:
        threads = [threading.Thread(target=lambda: faces.append(client.generate(b"voice"))) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(SECONDS)
    assert len(faces) == 8
