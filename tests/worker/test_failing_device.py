"""The device fails in each stage: every request has one response, nothing more is tried, and the worker ends."""

import logging
import threading

import pytest

from handlers import voicestyle_handler
from tests.support.failing_pipeline import (
    LONG,
    STAGES,
    FailingPipeline,
    call_until_raised,
    codes,
    fail_in_stage,
    fill,
    illegal_access,
)
from tests.support.recorded_exit import Exited

ERRORS = {
    "by type": illegal_access,
    "by text": lambda: RuntimeError("failed in the TorchScript interpreter.\nRuntimeError: CUDA error: unknown error"),
    "by the probe": lambda: RuntimeError("GET was unable to find an engine to execute this computation"),
}


@pytest.fixture
def pipeline():
    pipeline = FailingPipeline()
    yield pipeline
    pipeline.may_encode.set()


@pytest.mark.parametrize("kind", ERRORS)
@pytest.mark.parametrize("stage", STAGES)
def test_everyone_has_one_response_and_the_worker_ends(frontend, pipeline, exits, counted, caplog, stage, kind):
    fill(frontend, pipeline)
    threading.Timer(0.01, pipeline.may_encode.set).start()
    fail_in_stage(frontend, pipeline, stage, ERRORS[kind]())
    assert not frontend.jobs
    assert not frontend.waiting
    failed = {"stream", "grpc"} | (set() if stage == "remove" else {"new"})
    assert codes(frontend.responses) == {"encoded": None} | dict.fromkeys(failed, "device_failed")
    cancelled = {"cancelled http": 1} if stage == "remove" else {}
    assert counted() == cancelled | {"face http": 1, "failed grpc": 1, "failed http": len(failed) - 1}
    critical = [record for record in caplog.records if record.levelno == logging.CRITICAL]
    assert [record.exc_info[1] for record in critical] == [pipeline.raised]
    assert pipeline.probes == (kind == "by the probe")
    assert len(exits.timers) == 1

    frontend.post("later")
    with pytest.raises(Exited):
        frontend.call()
    assert "later" not in frontend.responses
    assert pipeline.calls_after == 0


@pytest.mark.parametrize("protocol", ["http", "grpc"])
@pytest.mark.parametrize("stage", [stage for stage in STAGES if stage != "remove"])
def test_a_request_alone_has_a_response(frontend, pipeline, exits, counted, stage, protocol):
    pipeline.may_encode.set()
    fail_in_stage(frontend, pipeline, stage, illegal_access(), protocol=protocol)
    assert codes(frontend.responses) == {"new": "device_failed"}
    response = frontend.responses["new"]
    assert response.status == 503
    assert 1 <= int(response.headers["Retry-After"]) <= 60
    assert counted() == {f"failed {protocol}": 1}
    assert len(exits.timers) == 1


def test_a_client_that_disconnects_alone_may_find_the_failure(frontend, pipeline, exits, counted):
    fail_in_stage(frontend, pipeline, "remove", illegal_access())
    assert not frontend.responses
    assert counted() == {"cancelled http": 1}
    assert len(exits.timers) == 1


def test_several_clients_that_disconnect_are_all_counted(frontend, pipeline, counted):
    pipeline.fail("remove", illegal_access())
    for key in "abc":
        frontend.post(key, **LONG)
        frontend.disconnect(key)
    frontend.call()  # TorchServe notices when it sends the first chunks
    frontend.call()
    assert pipeline.raised
    assert counted() == {"cancelled http": 3}


def test_requests_that_were_not_looked_at_have_a_response_too(frontend, pipeline, counted):
    pipeline.fail("prepare", illegal_access())
    frontend.post("bad", b"voice", X_VoiceStyle_Steps="many")
    for key in "abc":
        frontend.post(key)
    frontend.call()
    assert codes(frontend.responses) == {"bad": "bad_option"} | dict.fromkeys("abc", "device_failed")
    assert counted() == {"refused http": 1, "failed http": 3}
    assert pipeline.prepared == 0


def test_the_failure_may_show_itself_while_another_error_is_handled(frontend, pipeline, exits):
    """A kernel's error is reported by a later call: here by the removal of a request whose preview failed."""
    fill(frontend, pipeline)
    pipeline.may_encode.set()
    pipeline.fail("remove", illegal_access())
    frontend.post("new", b"no preview", X_VoiceStyle_Steps=4, X_VoiceStyle_Previews=3)
    call_until_raised(frontend, pipeline)
    assert codes(frontend.responses) == {"encoded": None} | dict.fromkeys(["new", "stream", "grpc"], "device_failed")
    assert len(exits.timers) == 1


def test_an_image_that_is_not_encoded_in_time_ends_as_an_error(frontend, pipeline, exits, monkeypatch):
    monkeypatch.setattr("voicestyle.worker.continuous_batch.LAST_ENCODING_SECONDS", 0.01)
    fill(frontend, pipeline)
    fail_in_stage(frontend, pipeline, "step", illegal_access())
    assert codes(frontend.responses) == dict.fromkeys(["encoded", "new", "stream", "grpc"], "device_failed")
    assert len(exits.timers) == 1


def test_retry_after_is_how_long_the_start_of_this_worker_took(pipeline, monkeypatch, request):
    created = voicestyle_handler.psutil.Process().create_time()
    monkeypatch.setattr(voicestyle_handler.time, "time", lambda: created + 31.5)
    frontend = request.getfixturevalue("frontend")  # starts now
    fail_in_stage(frontend, pipeline, "step", illegal_access())
    assert frontend.responses["new"].headers["Retry-After"] == "32"
