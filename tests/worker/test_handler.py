"""The handler in TorchServe's continuous batching: who joins, who leaves, who is refused, who fails."""

import json
import logging
import re

import pytest
import yaml

from tests.support.fake_torchserve import BATCH_SIZE
from voicestyle.archive import MODEL_CONFIG, ROOT
from voicestyle.serving.server import CONFIG, read_properties
from voicestyle.worker.service_config import ServiceConfig


def error(response):
    assert response.headers["content-type"] == "application/json"
    return json.loads(response.body)["error"]


def test_face_comes_with_what_is_known_about_it(frontend):
    frontend.post("a", b"voice", X_VoiceStyle_Steps=5, X_VoiceStyle_Seed=7, X_VoiceStyle_Size=1024)
    response = frontend.run()["a"]
    assert (response.status, response.body) == (200, b"png of voice")
    assert response.headers == {
        "content-type": "image/png",
        "X-VoiceStyle-Similarity": "0.750000",
        "X-VoiceStyle-First-Similarity": "0.250000",
        "X-VoiceStyle-Seed": "7",
        "X-VoiceStyle-Steps": "5",
        "X-VoiceStyle-Preset": "default",
        "X-VoiceStyle-Size": "1024",
        "X-VoiceStyle-Batch": "1",
        "X-VoiceStyle-Model": "fake@3",
    }


def test_nothing_is_sent_before_the_end(frontend, pipeline):
    frontend.post("a", X_VoiceStyle_Steps=3)
    frontend.call()
    assert pipeline.requests["a"].step == 1
    assert not frontend.responses
    assert frontend.jobs  # TorchServe hands it over again


@pytest.mark.parametrize("name", ["X-VoiceStyle-Steps", "x-voicestyle-steps", "X-VOICESTYLE-STEPS"])
def test_option_headers_in_any_spelling(frontend, pipeline, name):
    frontend.post("a", **{name: " 2 "})
    assert frontend.run()["a"].headers["X-VoiceStyle-Steps"] == "2"


def test_form_with_audio_and_options(frontend):
    frontend.post("a", form={"audio": b"voice", "steps": b"2", "Seed": b"9"}, X_VoiceStyle_Size=1024)
    response = frontend.run()["a"]
    assert response.body == b"png of voice"
    assert [response.headers[f"X-VoiceStyle-{name}"] for name in ("Steps", "Seed", "Size")] == ["2", "9", "1024"]


@pytest.mark.parametrize(
    ("form", "headers", "status", "code"),
    [
        ({"body": b"voice"}, {"X-VoiceStyle-Stepps": "3"}, 400, "bad_option"),
        ({"body": b"voice"}, {"X-VoiceStyle-Steps": "many"}, 400, "bad_option"),
        ({"audio": b"voice", "steps": b"2"}, {"X-VoiceStyle-Steps": "3"}, 400, "bad_option"),
        ({"audio": b"voice", "steps": b"\xff"}, {}, 400, "bad_option"),
        ({"voice": b"voice"}, {}, 415, "not_audio"),
        ({}, {}, 415, "not_audio"),
        ({"body": b"text"}, {}, 415, "not_audio"),
    ],
)
def test_mistakes_of_the_caller(frontend, pipeline, form, headers, status, code):
    frontend.post("a", form=form, **headers)
    frontend.call()
    response = frontend.responses["a"]
    assert response.status == status
    assert (error(response)["code"], error(response)["request_id"]) == (code, "a")
    assert pipeline.live == 0


def test_requests_join_a_running_batch(frontend, pipeline):
    frontend.post("a", b"one", X_VoiceStyle_Steps=6)
    frontend.call()
    frontend.post("b", b"two", X_VoiceStyle_Steps=6)
    frontend.post("c", b"three", X_VoiceStyle_Steps=1)
    responses = frontend.run()
    assert [responses[key].body for key in "abc"] == [b"png of one", b"png of two", b"png of three"]
    assert [responses[key].headers["X-VoiceStyle-Batch"] for key in "abc"] == ["3", "3", "3"]


def test_one_that_is_gone_frees_its_place(frontend, pipeline):
    frontend.post("a", X_VoiceStyle_Steps=50, X_VoiceStyle_Previews=1)
    frontend.post("b", X_VoiceStyle_Steps=9)
    frontend.call()
    assert sorted(pipeline.requests) == ["a", "b"]
    frontend.leave("a")
    assert list(frontend.run()) == ["b"]
    assert "a" not in frontend.jobs
    frontend.post("c")
    frontend.run()
    assert not pipeline.requests


def test_a_full_batch_lets_others_wait(frontend, pipeline):
    pipeline.capacity = 2
    for key in "abcd":
        frontend.post(key)
    responses = frontend.run()
    assert sorted(responses) == list("abcd")
    assert max(pipeline.calls) == 2


def test_bad_ones_among_good_ones(frontend, pipeline):
    for key, audio in {"a": b"one", "b": b"text", "c": b"bug", "d": b"unrenderable"}.items():
        frontend.post(key, audio)
    responses = frontend.run()
    assert [responses[key].status for key in "abcd"] == [200, 415, 500, 500]
    assert responses["a"].body == b"png of one"
    for key in "cd":
        assert error(responses[key])["code"] == "internal"
        assert error(responses[key])["request_id"] == key
    assert pipeline.live == 0


def test_a_bug_is_logged_with_its_request(frontend, caplog):
    frontend.post("the-id", b"bug")
    frontend.run()
    (record,) = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert "the-id" in record.getMessage()
    assert record.exc_info is not None


def test_a_failing_step_fails_who_was_in_it_and_no_more(frontend, pipeline):
    frontend.post("a", X_VoiceStyle_Steps=9)
    frontend.post("b", X_VoiceStyle_Steps=9)
    frontend.call()
    pipeline.breaks_at_step = True
    frontend.call()
    assert [frontend.responses[key].status for key in "ab"] == [500, 500]
    assert pipeline.live == 0
    pipeline.breaks_at_step = False
    frontend.post("c")
    assert frontend.run()["c"].status == 200


def test_handle_never_raises(frontend, pipeline, monkeypatch):
    frontend.post("a", X_VoiceStyle_Steps=9)
    frontend.call()
    monkeypatch.setattr("voicestyle.worker.continuous_batch.ContinuousBatch._admit", lambda *_: 1 / 0)
    frontend.call()
    assert frontend.responses["a"].status == 500
    assert pipeline.live == 0


def test_one_line_a_request_and_nothing_personal(frontend, caplog):
    caplog.set_level(logging.INFO)
    frontend.post("a", b"secret voice", X_VoiceStyle_Steps=3)
    frontend.post("b", b"text", X_VoiceStyle_Steps="my name")
    frontend.post("c", b"bug")
    frontend.run()
    lines = [record.getMessage() for record in caplog.records if record.name == "voicestyle.handler"]
    assert [line for line in lines if line.startswith("request a: ")] == [line for line in lines if "3 steps" in line]
    assert "request b: refused, 400 bad_option" in lines
    assert not any(word in caplog.text for word in ("secret", "my name", "text"))


def test_initialise_takes_the_bundle_of_the_archive_and_the_batch_of_the_yaml(frontend, pipeline, tmp_path):
    assert (pipeline.folder, pipeline.device) == (tmp_path / "bundle", "cpu")
    assert pipeline.capacity == BATCH_SIZE
    config = yaml.safe_load((ROOT / MODEL_CONFIG).read_text())
    assert config["continuousBatching"] is True
    assert config["minWorkers"] == config["maxWorkers"] == 1
    limits = ServiceConfig.parse(config["handler"])
    assert limits == ServiceConfig()
    assert config["batchSize"] > limits.live_requests + limits.queue
    properties = read_properties(CONFIG)
    largest = int(properties["max_request_size"])
    assert largest > limits.audio_bytes * 4 / 3  # base64
    heap = int(re.search(r"-Xmx(\d+)g", properties["vmargs"])[1]) * 2**30
    assert (config["batchSize"] + config["jobQueueSize"]) * largest < 0.6 * heap


def test_initialise_says_what_is_wrong_with_the_bundle(quiet_logging, tmp_path, caplog):
    from handlers.voicestyle_handler import VoiceStyleHandler
    from tests.support.fake_torchserve import Frontend
    from voicestyle.errors import BundleError

    with pytest.raises(BundleError, match=r"bundle\.json is missing"):
        Frontend(VoiceStyleHandler(), tmp_path)
    assert "cannot serve the bundle" in caplog.text


def test_torchserve_finds_one_class(frontend):
    from ts.utils.util import list_classes_from_module

    from handlers import voicestyle_handler

    assert list_classes_from_module(voicestyle_handler) == [voicestyle_handler.VoiceStyleHandler]


def test_real_pipeline_gives_alone_and_together_the_same_face(tiny_bundle, samples, quiet_logging, tmp_path):
    from handlers.voicestyle_handler import VoiceStyleHandler
    from tests.support.fake_torchserve import Frontend

    (tmp_path / "bundle").symlink_to(tiny_bundle)
    frontend = Frontend(VoiceStyleHandler(), tmp_path, iteration_seconds=5)  # all are heard in one call
    voice = (samples / "slt.wav").read_bytes()
    frontend.post("alone", voice, X_VoiceStyle_Seed=5, X_VoiceStyle_Steps=40)
    frontend.run()
    for key, seed in {"a": 4, "b": 5, "c": 6}.items():
        frontend.post(key, voice, X_VoiceStyle_Seed=seed, X_VoiceStyle_Steps=40)
    responses = frontend.run()
    assert responses["b"].headers["X-VoiceStyle-Batch"] == "3"
    similarity = [float(responses[key].headers["X-VoiceStyle-Similarity"]) for key in ("alone", "b")]
    assert similarity[0] == pytest.approx(similarity[1], abs=1e-3)
