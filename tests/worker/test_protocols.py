"""What a client gets, by what it asks for: image, JSON, lines with previews, one gRPC message; and rejections."""

import base64
import json

import pytest

from handlers.voicestyle_handler import VoiceStyleHandler
from tests.support.fake_torchserve import Frontend
from tests.support.recorded_exit import Exited
from voicestyle.pipeline import Pipeline
from voicestyle.worker.service_config import ServiceConfig

KEYS = {
    *("request_id", "model", "seed", "steps", "preset", "size", "format", "image", "similarity", "first_similarity"),
    *("trace", "batch", "dtype", "prototypes", "audio_seconds", "speech_seconds", "timings", "digital_source_type"),
}


def lines(response):
    assert response.headers["content-type"] == "application/x-ndjson"
    assert response.body.endswith(b"\n")
    return [json.loads(line) for line in response.body.splitlines()]


def error(response):
    return json.loads(response.body)["error"]


def test_json_has_all_that_is_known(frontend):
    frontend.post("a", X_VoiceStyle_Output="json", X_VoiceStyle_Format="webp")
    response = frontend.run()["a"]
    answer = json.loads(response.body)
    assert response.headers["content-type"] == "application/json"
    assert set(answer) == KEYS
    assert (answer["request_id"], answer["model"], answer["format"]) == ("a", "fake@3", "webp")
    assert base64.b64decode(answer["image"]) == b"webp of voice"


@pytest.mark.parametrize("content_type", ["application/json", "Application/JSON; charset=utf-8"])
def test_a_json_body_makes_a_face(frontend, content_type):
    body = {"audio": base64.b64encode(b"voice").decode(), "steps": 3, "seed": "8", "format": "jpeg"}
    frontend.post("a", json.dumps(body).encode(), Content_Type=content_type)
    response = frontend.run()["a"]
    assert (response.body, response.headers["content-type"]) == (b"jpeg of voice", "image/jpeg")
    assert [response.headers[f"X-VoiceStyle-{name}"] for name in ("Steps", "Seed")] == ["3", "8"]


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"RIFF", "not_audio"),
        (b"", "not_audio"),
        (b"[1]", "not_audio"),
        (b"[" * 100_000, "not_audio"),
        (b'{"audio": "***"}', "not_audio"),
        (b'{"audio": 7}', "not_audio"),
        (b'{"steps": 7}', "not_audio"),
        (b'{"audio": "AAAA", "steps": 1e3}', "bad_option"),
        (b'{"audio": "AAAA", "steps": true}', "bad_option"),
        (b'{"audio": "AAAA", "steps": null}', "bad_option"),
        (b'{"audio": "AAAA", "steps": ' + b"9" * 5000 + b"}", "not_audio"),
        (b'{"audio": "AAAA", "steps": 1, "steps": 2}', "bad_option"),
        (b'{"audio": "AAAA", "stepps": 1}', "bad_option"),
        (b"\xff\xfe{}", "not_audio"),
    ],
)
def test_invalid_json_bodies_are_rejected(frontend, body, code):
    frontend.post("a", body, Content_Type="application/json")
    response = frontend.run()["a"]
    assert error(response)["code"] == code
    assert response.status == {"not_audio": 415, "bad_option": 400}[code]


def test_previews_at_even_steps_then_the_face(frontend):
    frontend.post("a", X_VoiceStyle_Steps=40, X_VoiceStyle_Previews=3)
    response = frontend.run()["a"]
    events = lines(response)
    assert response.status == 200
    assert events[0] == {
        "event": "started", "request_id": "a", "model": "fake@3", "steps": 40, "preset": "default", "seed": 0,
        "size": 256, "format": "png",
    }  # fmt: skip
    previews = [event for event in events if event["event"] == "preview"]
    assert [preview["step"] for preview in previews] == [10, 20, 30]
    assert [base64.b64decode(preview["image"]) for preview in previews] == [b"JPEG at %d" % n for n in (10, 20, 30)]
    steps = [event["step"] for event in events if event["event"] == "progress"]
    assert steps == sorted(set(steps))
    assert steps[-1] == 40
    assert set(events[-1]) == KEYS | {"event"}
    assert base64.b64decode(events[-1]["image"]) == b"png of voice"


def test_a_stream_starts_in_the_first_call(frontend):
    frontend.post("a", X_VoiceStyle_Steps=40, X_VoiceStyle_Previews=1)
    frontend.call()
    assert lines(frontend.streams["a"])[0]["event"] == "started"
    assert not frontend.responses


def test_a_rejection_is_no_stream(frontend):
    frontend.post("a", b"text", X_VoiceStyle_Previews=2)
    response = frontend.run()["a"]
    assert (response.status, response.headers["content-type"]) == (415, "application/json")


@pytest.mark.parametrize("audio", [b"no preview", b"no image"])
def test_an_error_after_the_first_line_is_a_line(frontend, pipeline, audio):
    frontend.post("a", audio, X_VoiceStyle_Steps=9, X_VoiceStyle_Previews=2)
    frontend.post("b", X_VoiceStyle_Steps=9)
    responses = frontend.run()
    events = lines(responses["a"])
    assert events[0]["event"] == "started"
    assert events[-1]["event"] == "error"
    assert (events[-1]["error"]["code"], events[-1]["error"]["request_id"]) == ("internal", "a")
    assert responses["b"].status == 200
    assert not pipeline.steps


def test_a_failed_step_is_the_last_line_of_a_stream(frontend, pipeline):
    frontend.post("a", X_VoiceStyle_Steps=400, X_VoiceStyle_Previews=15)
    frontend.call()
    pipeline.fails_at_step = True
    frontend.call()
    assert lines(frontend.responses["a"])[-1]["error"]["code"] == "internal"


def test_grpc_gets_one_json_message(frontend):
    frontend.call_grpc("a", audio=b"voice", steps=b"6", output=b"image", previews=b"2")
    frontend.call_grpc("b", audio=b"voice", Format=b"webp")
    frontend.call_grpc("c", body=b"voice")
    responses = frontend.run()
    answers = {key: json.loads(response.body) for key, response in responses.items()}
    assert set(answers["a"]) == KEYS | {"previews"}
    assert [preview["step"] for preview in answers["a"]["previews"]] == [2, 4]
    assert set(answers["b"]) == set(answers["c"]) == KEYS
    assert answers["b"]["format"] == "webp"


def test_grpc_and_http_share_a_batch(frontend):
    frontend.call_grpc("a", audio=b"voice", steps=b"400")
    frontend.post("b", X_VoiceStyle_Steps=400)
    frontend.call()
    frontend.post("c", X_VoiceStyle_Steps=400)
    responses = frontend.run()
    assert json.loads(responses["a"].body)["batch"] == 3
    assert responses["b"].headers["X-VoiceStyle-Batch"] == responses["c"].headers["X-VoiceStyle-Batch"] == "3"


@pytest.mark.parametrize(
    ("inputs", "code"),
    [
        ({}, "not_audio"),
        ({"voice": b"voice"}, "not_audio"),
        ({"audio": b"text"}, "not_audio"),
        ({"audio": b"voice", "stepps": b"1"}, "bad_option"),
        ({"audio": b"voice", "steps": b"\xff"}, "bad_option"),
        ({"audio": b"voice", "url_path": b"here"}, "bad_option"),
        ({"audio": b"bug"}, "internal"),
        ({"audio": b"no image"}, "internal"),
    ],
)
def test_grpc_has_the_same_codes(frontend, inputs, code):
    frontend.call_grpc("a", **inputs)
    message = error(frontend.run()["a"])
    assert (message["code"], message["request_id"]) == (code, "a")


def limited(pipeline, monkeypatch, tmp_path, **limits):
    monkeypatch.setattr(Pipeline, "load", pipeline.loaded)
    return Frontend(VoiceStyleHandler(), tmp_path, **limits)


@pytest.mark.usefixtures("quiet_logging")
def test_requests_beyond_the_queue_are_rejected(pipeline, monkeypatch, tmp_path):
    frontend = limited(pipeline, monkeypatch, tmp_path, live_requests=2, queue=3)
    for number in range(8):
        frontend.post(f"h{number}", X_VoiceStyle_Steps=400)
    frontend.call_grpc("g", audio=b"voice")
    frontend.call()
    rejected = [*(f"h{number}" for number in range(5, 8)), "g"]
    assert sorted(frontend.responses) == sorted(rejected)
    for key in rejected:
        response = frontend.responses[key]
        assert error(response)["code"] == "overloaded"
        assert "the queue is full (5 requests)" in error(response)["message"]
        assert response.status == 503
        assert int(response.headers["Retry-After"]) >= 1
    assert pipeline.prepared == 5
    responses = frontend.run()
    assert [responses[f"h{number}"].status for number in range(5)] == [200] * 5
    assert max(pipeline.calls) == 2


@pytest.mark.usefixtures("quiet_logging")
def test_draining_finishes_admitted_requests(pipeline, monkeypatch, tmp_path):
    monkeypatch.setenv("VOICESTYLE_RUN", str(tmp_path))
    frontend = limited(pipeline, monkeypatch, tmp_path, live_requests=1, queue=3)
    frontend.post("live", X_VoiceStyle_Steps=400)
    frontend.post("waiting", X_VoiceStyle_Steps=400)
    frontend.call()
    (tmp_path / "drain").touch()
    frontend.post("late")
    responses = frontend.run()
    assert [responses[key].status for key in ("live", "waiting", "late")] == [200, 200, 503]
    assert error(responses["late"])["code"] == "draining"


@pytest.mark.usefixtures("quiet_logging")
def test_a_file_beyond_the_limit_is_rejected(pipeline, monkeypatch, tmp_path):
    frontend = limited(pipeline, monkeypatch, tmp_path, audio_bytes=4)
    frontend.post("a", b"voice")
    frontend.post(
        "b", json.dumps({"audio": base64.b64encode(b"voice").decode()}).encode(), Content_Type="application/json"
    )
    frontend.post("c", b"four")
    responses = frontend.run()
    for key in "ab":
        assert (responses[key].status, error(responses[key])["code"]) == (413, "too_large")
        assert error(responses[key])["message"] == "the audio may have at most 4 bytes, got 5"
    assert responses["c"].status == 200


def test_the_service_caps_the_bundle(frontend, pipeline):
    assert pipeline.caps == ServiceConfig().caps


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"live_request": 3}, "handler: unknown key 'live_request'; the nearest known one is 'live_requests'"),
        ({"queue": -1}, "handler: Expected `int` >= 0 - at `$.queue`, got -1"),
        ({"steps": 2.5}, "handler: Expected `int`, got `float` - at `$.steps`, got 2.5"),
        ({"iteration_seconds": 0}, "handler: Expected `float` > 0.0 - at `$.iteration_seconds`, got 0"),
        (5, "handler: must be a mapping of names to values, got 5"),
        (
            {"iteration_seconds": float("inf")},
            "handler: Expected `float` <= 86400.0 - at `$.iteration_seconds`, got inf",
        ),
        ({"dtype": "half"}, "handler: dtype must be one of auto, float32, bfloat16, got 'half'"),
        ({"size": "big"}, "handler: Expected `int`, got `str` - at `$.size`, got 'big'"),
    ],
)
def test_an_invalid_configuration_is_one_clear_error(section, message):
    with pytest.raises(ValueError, match="handler") as caught:
        ServiceConfig.parse(section)
    assert str(caught.value) == message


def test_a_worker_exits_after_repeated_step_failures(frontend, pipeline, exits):
    pipeline.fails_at_step = True
    for key in "abc":
        assert not exits.timers
        frontend.post(key)
        frontend.call()
        assert frontend.responses[key].status == 500
    assert not exits.statuses  # TorchServe is yet to read the last response
    ((seconds, end),) = exits.timers
    assert 0 < seconds < 1
    for ending in (end, lambda: frontend.post("d") or frontend.call()):  # the first of the two ends it
        with pytest.raises(Exited):
            ending()
    assert exits.statuses == [1, 1]


def test_a_successful_step_resets_the_failure_count(frontend, pipeline, exits):
    for key, breaks in zip("abcdefg", [True, True, False, True, True, False, True], strict=True):
        pipeline.fails_at_step = breaks
        frontend.post(key, X_VoiceStyle_Steps=1)
        frontend.run()
    assert not exits.timers
