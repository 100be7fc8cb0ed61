"""The handler in TorchServe's continuous batching: requests that join, disconnect, are rejected, or fail."""

import json
import logging
import re
from types import SimpleNamespace

import pytest
import torch
import yaml
from prometheus_client import REGISTRY

from handlers import voicestyle_handler
from tests.support.fake_gpus import FakeMachine
from tests.support.fake_torchserve import BATCH_SIZE, Frontend
from voicestyle.archive import model_config
from voicestyle.devices import DeviceError, choice
from voicestyle.engine.capacity import CPU_CAPACITY, SIZES
from voicestyle.errors import BundleError
from voicestyle.serving.server import CONFIG, read_properties
from voicestyle.worker.service_config import ServiceConfig


def error(response):
    assert response.headers["content-type"] == "application/json"
    return json.loads(response.body)["error"]


def test_an_image_has_what_is_known_in_its_headers(frontend):
    frontend.post("a", b"voice", X_VoiceStyle_Steps=5, X_VoiceStyle_Seed=7, X_VoiceStyle_Size=1024)
    response = frontend.run()["a"]
    assert (response.status, response.body) == (200, b"png of voice")
    assert response.headers == {
        "content-type": "image/png",
        "X-VoiceStyle-Similarity": "0.750000",
        "X-VoiceStyle-First-Similarity": "0.250000",
        "X-VoiceStyle-Seed": "7",
        "X-VoiceStyle-Format": "png",
        "X-VoiceStyle-Steps": "5",
        "X-VoiceStyle-Preset": "default",
        "X-VoiceStyle-Size": "1024",
        "X-VoiceStyle-Batch": "1",
        "X-VoiceStyle-Dtype": "float32",
        "X-VoiceStyle-Model": "fake@3",
    }


def test_nothing_is_sent_before_the_end(frontend, pipeline):
    frontend.post("a", X_VoiceStyle_Steps=3)
    frontend.call()
    assert pipeline.steps["a"] == 1
    assert not frontend.responses
    assert frontend.jobs  # TorchServe passes it again


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
def test_invalid_requests_get_a_4xx(frontend, pipeline, form, headers, status, code):
    frontend.post("a", form=form, **headers)
    frontend.call()
    response = frontend.responses["a"]
    assert response.status == status
    assert (error(response)["code"], error(response)["request_id"]) == (code, "a")
    assert not pipeline.steps


def test_requests_join_a_running_batch(frontend, pipeline):
    frontend.post("a", b"one", X_VoiceStyle_Steps=6)
    frontend.call()
    frontend.post("b", b"two", X_VoiceStyle_Steps=6)
    frontend.post("c", b"three", X_VoiceStyle_Steps=1)
    responses = frontend.run()
    assert [responses[key].body for key in "abc"] == [b"png of one", b"png of two", b"png of three"]
    assert [responses[key].headers["X-VoiceStyle-Batch"] for key in "abc"] == ["3", "3", "3"]


def test_a_disconnected_client_frees_its_slot(frontend, pipeline):
    frontend.post("a", X_VoiceStyle_Steps=50, X_VoiceStyle_Previews=1)
    frontend.post("b", X_VoiceStyle_Steps=9)
    frontend.call()
    assert sorted(pipeline.steps) == ["a", "b"]
    frontend.disconnect("a")
    assert list(frontend.run()) == ["b"]
    assert "a" not in frontend.jobs
    frontend.post("c")
    frontend.run()
    assert not pipeline.steps


def test_a_full_batch_makes_others_wait(pipeline, monkeypatch, quiet_logging, tmp_path):
    monkeypatch.setattr(voicestyle_handler.Pipeline, "load", pipeline.loaded)
    frontend = Frontend(voicestyle_handler.VoiceStyleHandler(), tmp_path, live_requests=2)
    for key in "abcd":
        frontend.post(key)
    responses = frontend.run()
    assert sorted(responses) == list("abcd")
    assert max(pipeline.calls) == 2


def test_failures_concern_one_request_alone(frontend, pipeline):
    for key, audio in {"a": b"one", "b": b"text", "c": b"bug", "d": b"no image"}.items():
        frontend.post(key, audio)
    responses = frontend.run()
    assert [responses[key].status for key in "abcd"] == [200, 415, 500, 500]
    assert responses["a"].body == b"png of one"
    for key in "cd":
        assert error(responses[key])["code"] == "internal"
        assert error(responses[key])["request_id"] == key
    assert not pipeline.steps


def test_faces_without_steps_are_rendered_before_the_running_ones(frontend, pipeline):
    for key in "abcd":
        frontend.post(key, X_VoiceStyle_Steps=40)
    frontend.call()
    for key in "ef":
        frontend.post(key, b"short", X_VoiceStyle_Preset="instant", X_VoiceStyle_Steps=0)
    responses = frontend.run()
    assert sorted(responses) == list("abcdef")
    assert pipeline.render_calls[0] == ["e", "f"]
    headers = responses["e"].headers
    names = ("Steps", "Preset", "Batch")
    assert [headers[f"X-VoiceStyle-{name}"] for name in names] == ["0", "instant", "2"]


def test_a_failure_of_one_face_without_steps_is_its_own(frontend, pipeline):
    for key, audio in {"a": b"one", "b": b"no image", "c": b"three"}.items():
        frontend.post(key, audio, X_VoiceStyle_Preset="instant", X_VoiceStyle_Steps=0)
    responses = frontend.run()
    assert pipeline.render_calls == [["a", "b", "c"], ["a"], ["b"], ["c"]]
    assert [responses[key].status for key in "abc"] == [200, 500, 200]
    assert error(responses["b"])["code"] == "internal"


def test_a_face_without_steps_over_grpc(frontend):
    frontend.call_grpc("a", audio=b"voice", preset=b"instant", steps=b"0")
    face = json.loads(frontend.run()["a"].body)
    assert (face["steps"], face["preset"]) == (0, "instant")


def test_a_bug_is_logged_with_its_request(frontend, caplog):
    frontend.post("the-id", b"bug")
    frontend.run()
    (record,) = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert "the-id" in record.getMessage()
    assert record.exc_info is not None


def test_a_failed_step_fails_the_requests_in_it(frontend, pipeline):
    frontend.post("a", X_VoiceStyle_Steps=9)
    frontend.post("b", X_VoiceStyle_Steps=9)
    frontend.call()
    pipeline.fails_at_step = True
    frontend.call()
    assert [frontend.responses[key].status for key in "ab"] == [500, 500]
    assert not pipeline.steps
    pipeline.fails_at_step = False
    frontend.post("c")
    assert frontend.run()["c"].status == 200


def test_handle_never_raises(frontend, pipeline, monkeypatch):
    frontend.post("a", X_VoiceStyle_Steps=9)
    frontend.call()
    monkeypatch.setattr("voicestyle.worker.continuous_batch.ContinuousBatch._admit", lambda *_: 1 / 0)
    frontend.call()
    assert frontend.responses["a"].status == 500
    assert not pipeline.steps


def test_the_log_has_a_line_per_request_and_no_content(frontend, caplog):
    caplog.set_level(logging.INFO)
    frontend.post("a", b"secret voice", X_VoiceStyle_Steps=3)
    frontend.post("b", b"text", X_VoiceStyle_Steps="my name")
    frontend.post("c", b"bug")
    frontend.run()
    lines = [record.getMessage() for record in caplog.records if record.name == "voicestyle.handler"]
    assert [line for line in lines if line.startswith("request a: ")] == [line for line in lines if "3 steps" in line]
    assert "request b: rejected, 400 bad_option" in lines
    assert not any(word in caplog.text for word in ("secret", "my name", "text"))


def test_initialise_reads_archive_and_configuration(frontend, pipeline, tmp_path):
    assert (pipeline.folder, pipeline.device) == (tmp_path / "bundle", "cpu")
    assert pipeline.capacity == BATCH_SIZE
    config = yaml.safe_load(model_config())
    assert config["continuousBatching"] is True
    assert config["minWorkers"] == config["maxWorkers"] == 1
    service = ServiceConfig.parse(config["handler"])
    assert service == ServiceConfig()
    assert pipeline.iteration_seconds == service.iteration_seconds
    assert config["batchSize"] > max(SIZES) + service.queue_of(max(SIZES))
    properties = read_properties(CONFIG)
    largest = int(properties["max_request_size"])
    assert largest > service.audio_bytes * 4 / 3  # base64
    heap = int(re.search(r"-Xmx(\d+)g", properties["vmargs"])[1]) * 2**30
    on_a_cpu = ServiceConfig(device="cpu")
    assert on_a_cpu.most_admitted == CPU_CAPACITY + on_a_cpu.queue_of(CPU_CAPACITY)
    assert (on_a_cpu.batch_size + config["jobQueueSize"]) * largest < 0.6 * heap


def test_slots_that_are_measured_have_a_queue_of_their_own(pipeline, monkeypatch, quiet_logging, tmp_path):
    monkeypatch.setattr(voicestyle_handler.Pipeline, "load", pipeline.loaded)
    limits = {"live_requests": "auto", "iteration_seconds": 0.4}
    frontend = Frontend(voicestyle_handler.VoiceStyleHandler(), tmp_path, **limits)
    assert (pipeline.asked_capacity, pipeline.iteration_seconds, pipeline.capacity) == (None, 0.4, 2)
    for number in range(7):
        frontend.post(str(number))
    frontend.call()
    assert [key for key, response in frontend.responses.items() if response.status == 503] == ["6"]
    assert error(frontend.responses["6"])["message"] == "the queue is full (6 requests)"
    assert max(pipeline.calls) == 2


def test_initialise_logs_what_is_wrong_with_the_bundle(quiet_logging, tmp_path, caplog):
    with pytest.raises(BundleError, match=r"bundle\.json is missing"):
        Frontend(voicestyle_handler.VoiceStyleHandler(), tmp_path)
    assert "the model could not be loaded" in caplog.text


@pytest.mark.parametrize(
    ("variable", "section", "message"),
    [("cuda", "cpu", "a CUDA device was asked for, but torch can use none"), (None, "cuda", "a CUDA device was asked")],
)
def test_initialise_refuses_without_the_device_that_was_asked_for(
    pipeline, monkeypatch, quiet_logging, tmp_path, caplog, variable, section, message
):
    monkeypatch.setattr(choice, "Machine", lambda: FakeMachine(environment={"PATH": ""}))
    monkeypatch.setattr(voicestyle_handler.Pipeline, "load", pipeline.loaded)
    monkeypatch.delenv("VOICESTYLE_DEVICE", raising=False)
    if variable:
        monkeypatch.setenv("VOICESTYLE_DEVICE", variable)
    with pytest.raises(DeviceError, match=f"^{message}"):
        Frontend(voicestyle_handler.VoiceStyleHandler(), tmp_path, device=section)
    assert f"the model could not be loaded: {message}" in caplog.text
    monkeypatch.setenv("VOICESTYLE_DEVICE", "cpu")
    Frontend(voicestyle_handler.VoiceStyleHandler(), tmp_path, device=section)
    assert pipeline.device == "cpu"


def test_a_worker_takes_and_prepares_the_gpu_that_torchserve_gave_it(pipeline, monkeypatch, quiet_logging, tmp_path):
    prepared = []
    monkeypatch.setattr(choice, "Machine", lambda: FakeMachine(count=4))
    monkeypatch.setattr(voicestyle_handler.Pipeline, "load", pipeline.loaded)
    monkeypatch.setattr(voicestyle_handler, "prepare_device", prepared.append)
    monkeypatch.setattr(voicestyle_handler, "choose_dtype", lambda *_: torch.float32)
    handler = voicestyle_handler.VoiceStyleHandler()
    section = {"device": "cuda", "live_requests": BATCH_SIZE}

    def initialise(gpu, workers):
        properties = {"model_dir": str(tmp_path), "gpu_id": gpu}
        config = {"minWorkers": workers, "handler": section}
        handler.initialize(SimpleNamespace(system_properties=properties, model_yaml_config=config))

    initialise(3, 4)
    assert (prepared, pipeline.device) == (["cuda:3"], "cuda:3")
    with pytest.raises(DeviceError, match="TorchServe gave 4 workers none"):
        initialise(None, 4)


def test_torchserve_finds_one_class(frontend):
    from ts.utils.util import list_classes_from_module

    assert list_classes_from_module(voicestyle_handler) == [voicestyle_handler.VoiceStyleHandler]


def test_a_real_bundle_with_a_mapper(mapper_bundle, samples, quiet_logging, tmp_path):
    (tmp_path / "bundle").symlink_to(mapper_bundle)
    frontend = Frontend(voicestyle_handler.VoiceStyleHandler(), tmp_path, iteration_seconds=5)
    voice = (samples / "slt.wav").read_bytes()
    instant = {"X_VoiceStyle_Preset": "instant", "X_VoiceStyle_Seed": 5}
    frontend.post("alone", voice, **instant)
    frontend.run()
    frontend.post("long", voice, X_VoiceStyle_Steps=40)
    frontend.post("a", voice, **instant)
    frontend.post("b", voice, **instant, X_VoiceStyle_Steps=3, X_VoiceStyle_Output="json")
    frontend.post("c", voice, X_VoiceStyle_Steps=0)
    frontend.post("d", voice, **instant, X_VoiceStyle_Previews=1)
    responses = frontend.run()
    assert [responses[key].status for key in ("long", "a", "b", "c", "d")] == [200, 200, 200, 400, 400]
    assert responses["a"].body == responses["alone"].body
    assert responses["a"].headers == responses["alone"].headers
    face = json.loads(responses["b"].body)
    assert (face["steps"], len(face["trace"])) == (3, 3)
    first = float(responses["a"].headers["X-VoiceStyle-First-Similarity"])
    assert face["first_similarity"] == pytest.approx(first, abs=1e-5)
    assert error(responses["c"])["message"] == "steps must be 1 to 40, or 0 with the preset instant, got 0"
    assert error(responses["d"])["message"] == "previews must be 0 with 0 steps, got 1"


def test_a_face_does_not_depend_on_its_batch(tiny_bundle, samples, quiet_logging, tmp_path):
    (tmp_path / "bundle").symlink_to(tiny_bundle)
    frontend = Frontend(
        voicestyle_handler.VoiceStyleHandler(), tmp_path, iteration_seconds=5
    )  # all are prepared in one call
    voice = (samples / "slt.wav").read_bytes()
    frontend.post("alone", voice, X_VoiceStyle_Seed=5, X_VoiceStyle_Steps=40)
    frontend.run()
    for key, seed in {"a": 4, "b": 5, "c": 6}.items():
        frontend.post(key, voice, X_VoiceStyle_Seed=seed, X_VoiceStyle_Steps=40)
    responses = frontend.run()
    assert responses["b"].headers["X-VoiceStyle-Batch"] == "3"
    similarity = [float(responses[key].headers["X-VoiceStyle-Similarity"]) for key in ("alone", "b")]
    assert similarity[0] == pytest.approx(similarity[1], abs=1e-3)


def test_a_request_counts_as_received_before_it_is_prepared(frontend, pipeline, monkeypatch):
    """A shutdown waits for all that was received, and preparing may take long."""

    def received():
        return REGISTRY.get_sample_value("voicestyle_received_total", {"protocol": "http"})

    before, prepare, counted = received(), pipeline.prepare, []
    monkeypatch.setattr(pipeline, "prepare", lambda *given: counted.append(received()) or prepare(*given))
    frontend.post("a")
    frontend.run()
    assert counted == [before + 1]
    assert received() == before + 1
