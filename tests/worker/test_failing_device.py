"""The device fails, or lacks memory, in each stage: who gets which response, and whether the worker goes on."""

import json
import logging
import threading

import pytest
import torch
from prometheus_client import REGISTRY

from handlers import voicestyle_handler
from tests.support.fake_torchserve import FakePipeline, Frontend
from tests.support.recorded_exit import Exited
from voicestyle.worker.metrics import OUTCOMES

METHODS = ("prepare", "start", "step", "progress", "preview", "render_all", "remove")
POISON = {
    "by type": lambda: torch.AcceleratorError("CUDA error: an illegal memory access was encountered", 700),
    "by text": lambda: RuntimeError("The following operation failed in the TorchScript interpreter.\nCUDA error: x"),
}
MEMORY = lambda: RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB")  # noqa: E731
LONG = 480  # steps
QUICK = {"X_VoiceStyle_Preset": "instant", "X_VoiceStyle_Steps": 0}

# The stages: what the request `new` asks for so that the stage is reached with it, and the method that fails there.
STAGES = {
    "prepare": ({}, "prepare"),
    "start": ({}, "start"),
    "start without steps": (QUICK, "start"),
    "render without steps": (QUICK, "render_all"),
    "step": ({}, "step"),
    "progress": ({}, "progress"),
    "preview": ({"X_VoiceStyle_Steps": 4, "X_VoiceStyle_Previews": 3}, "preview"),
    "render": ({"X_VoiceStyle_Steps": 1}, "render_all"),
    "remove": ({"X_VoiceStyle_Steps": LONG, "X_VoiceStyle_Previews": 15}, "remove"),
}


class FailingPipeline(FakePipeline):
    """Raises once in the method `fails_in`; an error of the device is raised by every later call too."""

    fails_in = None
    error = staticmethod(MEMORY)
    failed = None  # the error that was raised
    calls_after = 0

    def __init__(self):
        super().__init__()
        self.may_encode = threading.Event()

    def check(self, method):
        if self.failed and self.error is not MEMORY:
            self.calls_after += 1
            raise torch.AcceleratorError("CUDA error: unspecified launch failure", 719)
        if method == self.fails_in and not self.failed:
            self.failed = self.error()
            raise self.failed

    def encode(self, face):
        assert self.may_encode.wait(timeout=60)
        return face


def checked(method):
    def call(self, requests, *more):
        if method == "remove":  # the engine forgets an item before it touches the device
            FakePipeline.remove(self, requests)
            return self.check(method)
        if method != "start" or requests:  # it is called in every iteration
            self.check(method)
        return getattr(FakePipeline, method)(self, requests, *more)

    return call


for name in METHODS:
    setattr(FailingPipeline, name, checked(name))


@pytest.fixture
def pipeline():
    pipeline = FailingPipeline()
    yield pipeline
    pipeline.may_encode.set()


@pytest.fixture
def counted():
    """Returns what was counted since the last call, by outcome and protocol; zeros are left out."""
    outcomes = [{"outcome": outcome, "protocol": protocol} for outcome in OUTCOMES for protocol in ("http", "grpc")]

    def value(name, labels):
        return REGISTRY.get_sample_value(f"voicestyle_{name}_total", labels) or 0

    def received():
        return sum(value("received", {"protocol": protocol}) for protocol in ("http", "grpc"))

    def read():
        return [value("requests", labels) for labels in outcomes]

    before, received_before = read(), received()

    def since():
        nonlocal before, received_before
        now, received_now = read(), received()
        assert received_now - received_before == sum(now) - sum(before)  # each has one outcome
        received_before = received_now
        found = {" ".join(labels.values()): new - old for labels, new, old in zip(outcomes, now, before, strict=True)}
        before = now
        return {name: count for name, count in found.items() if count}

    return since


def codes(responses):
    """The error code of each response, also in the last line of a stream; None of a face."""
    return {
        key: json.loads(response.body.splitlines()[-1]).get("error", {}).get("code")
        if response.headers["content-type"] != "image/png"
        else None
        for key, response in responses.items()
    }


def fill(frontend, pipeline):
    """A request that is being encoded, one with previews, and one over gRPC; both of these are running."""
    frontend.post("encoded", X_VoiceStyle_Steps=1)
    frontend.post("stream", X_VoiceStyle_Steps=LONG, X_VoiceStyle_Previews=15)
    frontend.call_grpc("grpc", audio=b"voice", steps=b"480")
    frontend.call()
    assert sorted(pipeline.steps) == ["grpc", "stream"]
    assert pipeline.rendered == 1
    assert not frontend.responses


def fail(frontend, pipeline, stage, error, protocol="http"):
    """Fail in a stage with the request `new` in it."""
    options, method = STAGES[stage]
    if protocol == "http":
        frontend.post("new", **options)
    else:
        inputs = {name.rpartition("_")[2].lower(): str(value).encode() for name, value in options.items()}
        frontend.call_grpc("new", audio=b"voice", **inputs)
    if stage == "remove":
        frontend.call()
        frontend.disconnect("new")
    pipeline.error, pipeline.fails_in = error, method
    for _ in range(40):
        frontend.call()
        if pipeline.failed:
            return
    pytest.fail("the stage was not reached")


@pytest.mark.parametrize("error", POISON.values(), ids=POISON.keys())
@pytest.mark.parametrize("stage", STAGES)
def test_a_failed_device_ends_the_worker_and_everyone_has_a_response(
    frontend, pipeline, exits, counted, caplog, stage, error
):
    fill(frontend, pipeline)
    threading.Timer(0.1, pipeline.may_encode.set).start()
    fail(frontend, pipeline, stage, error)
    assert not frontend.jobs
    assert not frontend.waiting
    failed = {"stream", "grpc"} | ({"new"} if stage != "remove" else set())
    assert codes(frontend.responses) == {"encoded": None} | dict.fromkeys(failed, "device_failed")
    assert frontend.responses["encoded"].status == 200
    assert pipeline.calls_after == 0  # nothing more is tried on the device
    cancelled = {"cancelled http": 1} if stage == "remove" else {}
    assert counted() == cancelled | {"face http": 1, "failed grpc": 1, "failed http": len(failed) - 1}
    critical = [record for record in caplog.records if record.levelno == logging.CRITICAL]
    assert [record.exc_info[1] for record in critical] == [pipeline.failed]

    assert len(exits.timers) == 1
    frontend.post("later")
    with pytest.raises(Exited):
        frontend.call()
    assert "later" not in frontend.responses
    assert pipeline.calls_after == 0


@pytest.mark.parametrize("protocol", ["http", "grpc"])
@pytest.mark.parametrize("stage", [stage for stage in STAGES if stage != "remove"])
def test_a_request_alone_on_a_failed_device_has_a_response(frontend, pipeline, exits, counted, stage, protocol):
    pipeline.may_encode.set()
    fail(frontend, pipeline, stage, POISON["by type"], protocol)
    assert codes(frontend.responses) == {"new": "device_failed"}
    response = frontend.responses["new"]
    assert response.status == 503
    assert 1 <= int(response.headers["Retry-After"]) <= 60
    assert counted() == {f"failed {protocol}": 1}
    assert len(exits.timers) == 1


def test_a_client_that_disconnects_alone_may_find_the_failure(frontend, pipeline, exits, counted):
    fail(frontend, pipeline, "remove", POISON["by type"])
    assert not frontend.responses
    assert counted() == {"cancelled http": 1}
    assert len(exits.timers) == 1


def test_several_clients_that_disconnect_are_all_counted(frontend, pipeline, counted):
    pipeline.error, pipeline.fails_in = POISON["by type"], "remove"
    for key in "abc":
        frontend.post(key, X_VoiceStyle_Steps=LONG, X_VoiceStyle_Previews=15)
        frontend.disconnect(key)
    frontend.call()  # TorchServe notices when it sends the first chunks
    frontend.call()
    assert pipeline.failed
    assert counted() == {"cancelled http": 3}


def test_rows_that_were_not_looked_at_have_a_response_too(frontend, pipeline, counted):
    pipeline.error, pipeline.fails_in = POISON["by type"], "prepare"
    frontend.post("bad", b"voice", X_VoiceStyle_Steps="many")
    for key in "abc":
        frontend.post(key)
    frontend.call()
    assert codes(frontend.responses) == {"bad": "bad_option"} | dict.fromkeys("abc", "device_failed")
    assert counted() == {"refused http": 1, "failed http": 3}
    assert pipeline.prepared == 0


def test_a_failure_that_shows_itself_while_another_error_is_handled(frontend, pipeline, exits):
    """A kernel's error is reported by a later call: here by the removal of a request whose preview failed."""
    fill(frontend, pipeline)
    pipeline.may_encode.set()
    pipeline.error, pipeline.fails_in = POISON["by type"], "remove"
    frontend.post("new", b"no preview", X_VoiceStyle_Steps=4, X_VoiceStyle_Previews=3)
    while not pipeline.failed:
        frontend.call()
    assert codes(frontend.responses) == {"encoded": None} | dict.fromkeys(["new", "stream", "grpc"], "device_failed")
    assert len(exits.timers) == 1


def test_an_image_that_is_never_encoded_ends_as_an_error(frontend, pipeline, exits, monkeypatch):
    monkeypatch.setattr("voicestyle.worker.continuous_batch.LAST_ENCODING_SECONDS", 0.01)
    fill(frontend, pipeline)
    fail(frontend, pipeline, "step", POISON["by type"])
    assert codes(frontend.responses) == dict.fromkeys(["encoded", "new", "stream", "grpc"], "device_failed")
    assert len(exits.timers) == 1


@pytest.mark.parametrize("stage", STAGES)
def test_a_lack_of_memory_fails_the_requests_in_that_call_alone(frontend, pipeline, exits, counted, stage):
    fill(frontend, pipeline)
    pipeline.may_encode.set()
    fail(frontend, pipeline, stage, MEMORY)
    frontend.post("later")
    found = codes(frontend.run(calls=200))
    failed = {"step": ["new", "stream", "grpc"], "progress": ["new", "stream", "grpc"], "remove": []}
    lacking = failed.get(stage, ["new"])
    others = {"encoded", "stream", "grpc", "later"} - set(lacking)
    assert found == dict.fromkeys(others, None) | dict.fromkeys(lacking, "out_of_memory")
    if stage != "preview" and "new" in lacking:
        assert frontend.responses["new"].status == 503
        assert int(frontend.responses["new"].headers["Retry-After"]) >= 1
    assert sum(count for name, count in counted().items() if name.startswith("failed")) == len(lacking)
    assert not exits.timers
    assert not pipeline.steps


def test_a_lack_of_memory_of_a_batch_fails_nobody_who_has_enough_alone(frontend, pipeline, exits):
    pipeline.may_encode.set()
    pipeline.error, pipeline.fails_in = MEMORY, "render_all"
    for key in "abc":
        frontend.post(key, **QUICK)
    assert codes(frontend.run()) == dict.fromkeys("abc")
    assert pipeline.render_calls == [["a"], ["b"], ["c"]]
    pipeline.failed, pipeline.fails_in = None, "start"
    for key in "def":
        frontend.post(key)
    assert set(codes(frontend.run()).values()) == {None}
    assert not exits.timers


def test_a_lack_of_memory_is_never_an_unexplained_failure(frontend, pipeline, exits):
    pipeline.may_encode.set()
    pipeline.error = MEMORY
    for method in ("step", "render_all", "start"):
        for number in range(4):
            pipeline.failed, pipeline.fails_in = None, method
            frontend.post(f"{method}{number}", **({} if method == "step" else QUICK))
            frontend.run()
    assert set(codes(frontend.responses).values()) == {"out_of_memory"}
    assert not exits.timers


class TestUnexplainedFailures:
    """Three iterations in a row in which no face without steps could be made, or no step taken."""

    BAD = b"no image"

    @pytest.fixture
    def pipeline(self):
        return FakePipeline()

    def instant(self, frontend, *audio):
        for number, each in enumerate(audio):
            frontend.post(f"{len(frontend.responses)}-{number}", each, **QUICK)
        frontend.run()

    def test_three_failed_faces_without_steps_in_a_row_end_the_worker(self, frontend, exits):
        for _ in range(3):
            assert not exits.timers
            self.instant(frontend, self.BAD)
        assert len(exits.timers) == 1

    def test_a_face_without_steps_begins_the_count_again(self, frontend, exits):
        for audio in (self.BAD, self.BAD, b"voice", self.BAD, self.BAD, b"voice"):
            self.instant(frontend, audio)
        assert not exits.timers

    def test_a_step_begins_the_count_again(self, frontend, exits):
        for _ in range(3):
            self.instant(frontend, self.BAD, self.BAD)
            frontend.post(f"step{len(frontend.responses)}")
            frontend.run()
        assert not exits.timers

    def test_many_failures_in_one_iteration_count_once(self, frontend, exits):
        self.instant(frontend, *[self.BAD] * 4)
        self.instant(frontend, *[self.BAD] * 4)
        assert not exits.timers

    def test_a_failure_beside_a_face_does_not_count(self, frontend, exits):
        for _ in range(4):
            self.instant(frontend, self.BAD, b"voice")
        assert not exits.timers

    def test_failed_steps_count_although_faces_without_steps_succeed(self, frontend, pipeline, exits):
        pipeline.fails_at_step = True
        for number in range(3):
            assert not exits.timers
            frontend.post(f"step{number}")
            self.instant(frontend, b"voice")
        assert len(exits.timers) == 1


def test_the_handler_says_how_long_its_start_took(pipeline, frontend, monkeypatch, quiet_logging, tmp_path):
    """Retry-After is the time that the next worker needs, as this one did."""
    monkeypatch.setattr(
        voicestyle_handler.time, "time", lambda: voicestyle_handler.psutil.Process().create_time() + 31.5
    )
    slow = Frontend(voicestyle_handler.VoiceStyleHandler(), tmp_path)
    fail(slow, pipeline, "step", POISON["by type"])
    assert slow.responses["new"].headers["Retry-After"] == "32"
