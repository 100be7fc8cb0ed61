"""Both HTTP clients against a real socket whose other end follows a script."""

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
    own_error_of_torchserve,
    preview,
    progress,
)
from tests.support.scripted_http import CLOSE, RESET, SECONDS, SILENCE, STREAM_END, STREAM_HEAD, chunk, plain, stream
from voicestyle.client import (
    Busy,
    Client,
    Face,
    Preview,
    Progress,
    Refused,
    Retry,
    Retrying,
    ServiceFailed,
    Settings,
    Started,
    TimedOut,
    Unreachable,
)

GOOD = [plain(200, FACE)]
STORY = lines(STARTED, progress(2), preview(2), progress(4), preview(4), RESULT)


def test_a_face_with_all_that_is_known_about_it(http, server, tmp_path):
    server.script = [GOOD]
    (tmp_path / "voice.wav").write_bytes(b"RIFF and so on")
    face = http.generate(tmp_path / "voice.wav", steps=4, seed=3, size=256, format="png")
    assert face == Face(
        **FACE | {"image": IMAGE, "trace": (0.25, 0.5, 0.625, 0.75), "prototypes": (7, 1, 4), "speech_seconds": 3.0}
    )
    asked = server.asked[0]
    assert asked.line == "POST /predictions/voicestyle HTTP/1.1"
    assert asked.body == b"RIFF and so on"
    said = {name: value for name, value in asked.headers.items() if name.startswith("x-voicestyle-")}
    assert said == {
        "x-voicestyle-steps": "4",
        "x-voicestyle-seed": "3",
        "x-voicestyle-size": "256",
        "x-voicestyle-format": "png",
        "x-voicestyle-output": "json",
    }
    assert asked.headers["content-type"] == "application/octet-stream"


def test_model_and_headers_of_the_settings(http, server):
    server.script = [GOOD]
    http.generate(settings={"model": "my faces", "headers": {"Authorization": "Bearer word"}})
    assert server.asked[0].line == "POST /predictions/my%20faces HTTP/1.1"
    assert server.asked[0].headers["authorization"] == "Bearer word"


@pytest.mark.parametrize("size", [1, 7, 1000, None])
def test_a_stream_in_chunks_of_any_size(http, server, size):
    server.script = [[stream(STORY, size)]]
    started, two, small, four, _, face = http.events(previews=2)
    assert started == Started("r-1", "demo@1", 4, "default", 3, 256, "png")
    assert (two, four) == (Progress(2, 4, 0.5), Progress(4, 4, 0.75))
    assert small == Preview(2, 4, 0.5, "jpeg", 128, SMALL + b"\x02")
    assert face.image == IMAGE
    assert server.asked[0].headers["x-voicestyle-previews"] == "2"


def test_generate_gathers_previews_of_the_attempt_that_made_the_face(http, server):
    broken = [STREAM_HEAD + chunk(lines(STARTED, preview(2))), RESET]
    server.script = [broken, [stream(STORY)]]
    face = http.generate(previews=2)
    assert [each.step for each in face.previews] == [2, 4]


def test_a_stream_without_previews_is_its_face(http, server):
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
        [STREAM_HEAD + chunk(lines(STARTED)) + plain(500, own_error_of_torchserve(500)), CLOSE],
        [STREAM_HEAD + chunk(lines(STARTED, own_error_of_torchserve(507))) + STREAM_END],
        [STREAM_HEAD + chunk(lines(STARTED, {"event": "error"} | error("draining"))) + STREAM_END],
    ],
)
def test_a_stream_that_breaks_begins_anew_and_says_so(http, server, clock, broken):
    server.script = [broken, [stream(STORY)]]
    events = http.events(previews=2)
    at = next(index for index, event in enumerate(events) if isinstance(event, Retrying))
    assert (events[at].attempt, events[at].delay) == (2, 1.0)
    assert events[at].error.retryable
    assert [type(event) for event in events[at + 1 :]] == [Started, Progress, Preview, Progress, Preview, Face]
    assert clock.pauses == [1.0]


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (plain(503, error("overloaded")), Busy),
        (plain(503, error("draining")), Busy),
        (plain(503, own_error_of_torchserve(503, "ServiceUnavailableException")), Busy),
        (plain(503, b"<html>", "text/html"), Busy),
        (plain(502, b"<html>", "text/html"), Unreachable),
        (plain(504, b""), Unreachable),
        (plain(500, own_error_of_torchserve(500)), ServiceFailed),
        (plain(507, own_error_of_torchserve(507)), ServiceFailed),
    ],
)
def test_what_is_asked_again(http, server, clock, answer, kind):
    server.script = [[answer], [answer], GOOD]
    events = http.events()
    assert [type(event) for event in events] == [Retrying, Retrying, Face]
    assert type(events[0].error) is kind
    assert clock.pauses == [1.0, 2.0]
    assert [asked.body for asked in server.asked] == [b"voice"] * 3


@pytest.mark.parametrize(
    ("answer", "kind", "said"),
    [
        (plain(400, error("bad_option")), Refused, ("bad_option", "r-9", 400)),
        (plain(413, error("too_long")), Refused, ("too_long", "r-9", 413)),
        (plain(415, error("not_audio")), Refused, ("not_audio", "r-9", 415)),
        (plain(422, error("no_speech")), Refused, ("no_speech", "r-9", 422)),
        (
            plain(404, own_error_of_torchserve(404, "ModelNotFoundException")),
            Refused,
            ("ModelNotFoundException", None, 404),
        ),
        (plain(413, b""), Refused, ("too_large", None, 413)),
        (plain(401, b"no", "text/plain", X_Request_Id="p-1"), Refused, ("http_401", "p-1", 401)),
        (plain(429, {"error": {"code": 429, "message": "slow"}}), Refused, ("http_429", None, 429)),
        (plain(500, error("internal")), ServiceFailed, ("internal", "r-9", None)),
        (plain(302, b"", Location="http://127.0.0.1:9/"), ServiceFailed, ("http_302", None, None)),
        (plain(200, b"<html>", "text/html"), ServiceFailed, ("malformed", None, None)),
        (plain(200, {"image": 3}), ServiceFailed, ("malformed", None, None)),
        (stream(b"no JSON\n"), ServiceFailed, ("malformed", None, None)),
        (stream(b"[1]\n"), ServiceFailed, ("malformed", None, None)),
        (stream(lines({"event": "error"} | error("internal"))), ServiceFailed, ("internal", "r-9", None)),
        (stream(lines({"event": "error"} | error("no_speech"))), Refused, ("no_speech", "r-9", 422)),
    ],
)
def test_what_is_never_asked_again(http, server, clock, answer, kind, said):
    server.script = [[answer]]
    with pytest.raises(kind) as caught:
        http.generate()
    assert type(caught.value) is kind
    assert (caught.value.code, caught.value.request_id, getattr(caught.value, "status", None)) == said
    assert clock.pauses == []


@pytest.mark.parametrize("sent", [b"", b"HTTP/1.1 200 OK\r\nContent-Ty", plain(200, FACE)[:-5], plain(400, b"{}")[:-1]])
def test_an_answer_cut_in_the_middle_is_asked_for_again(http, server, clock, sent):
    server.script = [[sent, CLOSE], [sent, RESET], GOOD]
    events = http.events()
    assert [type(event) for event in events] == [Retrying, Retrying, Face]
    assert {type(event.error) for event in events[:2]} == {Unreachable}
    assert clock.pauses == [1.0, 2.0]


def test_retry_after_comes_on_top_of_the_backoff(http, server, clock):
    server.script = [[plain(503, error("overloaded"), Retry_After=7)], GOOD]
    http.generate()
    assert clock.pauses == [8.0]


def test_attempts_are_counted_and_the_last_error_is_raised(http, server, clock):
    server.script = [[RESET], [RESET], [plain(503, error("overloaded", request_id="r-3"))]]
    with pytest.raises(Busy) as caught:
        http.generate(settings={"retry": Retry(3, 1, 8)})
    assert caught.value.request_id == "r-3"
    assert clock.pauses == [1.0, 2.0]


def test_no_pause_that_the_deadline_would_interrupt(http, server, clock):
    server.script = [[plain(503, error("draining"), Retry_After=30)]]
    with pytest.raises(Busy) as caught:
        http.generate(settings={"deadline_seconds": 20})
    assert caught.value.retry_after == 30
    assert clock.pauses == []


def test_a_server_that_never_answers(http, server, clock):
    server.script = [[SILENCE], [STREAM_HEAD + chunk(lines(STARTED)), SILENCE], [stream(STORY)]]
    events = http.events(previews=2, settings={"attempt_seconds": 0.3})
    assert [type(event) for event in events[:4]] == [Retrying, Started, Retrying, Started]
    assert [type(event.error) for event in events if isinstance(event, Retrying)] == [TimedOut, TimedOut]


def test_an_answer_that_drips_has_the_time_of_an_attempt(server, clock):
    """The clock goes on while events come: what arrives in time does not count once the attempt's time is over."""
    server.script = [[STREAM_HEAD + chunk(lines(STARTED)) + chunk(lines(progress(2))), SILENCE], [stream(STORY)]]
    settings = Settings(clock=clock, draw=clock.draw, retry=Retry(4, 1, 8), attempt_seconds=50)
    with Client(server.url, settings, sleep=clock.sleep) as client:
        events = client.stream(b"voice", previews=2)
        assert isinstance(next(events), Started)
        clock.now += 60
        rest = list(events)
    error = next(event.error for event in rest if isinstance(event, Retrying))
    assert isinstance(error, TimedOut)
    assert isinstance(rest[-1], Face)


def test_nobody_there(http, server, clock):
    http.address = "http://127.0.0.1:1"
    events = []
    with pytest.raises(Unreachable, match="refused|ConnectError"):
        http.events(into=events, settings={"retry": Retry(3, 1, 8)})
    assert [event.attempt for event in events] == [2, 3]
    assert clock.pauses == [1.0, 2.0]


def test_leaving_a_stream_closes_its_connection(http, server):
    server.script = [[STREAM_HEAD + chunk(lines(STARTED, progress(2))), SILENCE]]
    events = http.events(previews=1, stop=lambda event: isinstance(event, Progress))
    assert isinstance(events[-1], Progress)
    assert server.left.wait(SECONDS)


def test_a_result_is_taken_even_if_the_connection_stays_open_or_breaks(http, server):
    for end in (SILENCE, RESET):
        server.script = [[STREAM_HEAD + chunk(STORY), end]]
        assert isinstance(http.events(previews=2)[-1], Face)
    assert len(server.asked) == 2


def test_events_of_unknown_kinds_and_empty_lines_are_passed_over(http, server):
    server.script = [[stream(b"\n\r\n" + lines({"event": "moved", "to": 3}, STARTED) + b"\r\n" + lines(RESULT))]]
    assert [type(event) for event in http.events(previews=1)] == [Started, Face]


def test_ping_and_readiness(http, server):
    server.script = [[plain(200, {"status": "Healthy"})]]
    assert http.call("ping") == "Healthy"
    server.script = [[plain(200, b"ready")], [plain(503, b"the canary is late")], [plain(404, b"")]]
    assert http.call("ready", server.url) is True
    assert http.call("ready", server.url + "/") is False
    with pytest.raises(Refused):
        http.call("ready", server.url)
    assert [asked.line.split()[1] for asked in server.asked] == ["/ping", "/ready", "/ready", "/ready"]
    server.script = [[plain(503, {"code": 503, "type": "X", "message": "Unhealthy"})]]
    with pytest.raises(Busy):
        http.call("ping")


@pytest.mark.parametrize(
    ("audio", "options", "message"),
    [
        ("voice.wav", {}, "audio must be the bytes of a file, or its Path, got str"),
        (b"", {"steps": "4"}, "steps must be int or None, got str"),
        (b"", {"seed": True}, "seed must be int or None, got bool"),
        (b"", {"format": 3}, "format must be str or None, got int"),
        (b"", {"format": "png\r\nX: y"}, "format must be a word such as png"),
        (b"", {"preset": 1}, "preset must be str or None, got int"),
        (b"", {"preset": "fast\r\nX: y"}, "preset must be a word such as default or fast"),
        (b"", {"stepps": 4}, "unexpected keyword argument 'stepps'"),
    ],
)
def test_arguments_that_no_server_could_read(http, audio, options, message):
    with pytest.raises((TypeError, ValueError), match=message):
        http.generate(audio, **options)


def test_a_file_that_is_not_there(http):
    with pytest.raises(FileNotFoundError):
        http.generate(Path("no such voice.wav"))


@pytest.mark.parametrize("url", ["127.0.0.1:8080", "ftp://here", "http://", "http://here/?a=b", ""])
def test_an_url_that_is_none(url):
    with pytest.raises(ValueError, match="a service's URL is"):
        Client(url)


def test_threads_share_a_client(server, clock):
    server.script = [GOOD] * 8
    faces = []
    with Client(server.url) as client:
        threads = [threading.Thread(target=lambda: faces.append(client.generate(b"voice"))) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(SECONDS)
    assert len(faces) == 8
