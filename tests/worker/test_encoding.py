"""A finished face becomes a file beside the steps of others, in a thread that these tests hold up."""

import threading
from concurrent.futures import wait

import pytest
from prometheus_client import CollectorRegistry

from tests.support.fake_torchserve import FakePipeline
from voicestyle.worker.continuous_batch import ContinuousBatch
from voicestyle.worker.metrics import Metrics
from voicestyle.worker.request_parser import Row
from voicestyle.worker.service_config import ServiceConfig


class HeldUpPipeline(FakePipeline):
    """Files are made once `go` is set. A step takes a turn's time, by a clock of its own."""

    def __init__(self):
        super().__init__()
        self.go = threading.Event()
        self.encodes = True
        self.now = 0.0

    def advance(self):
        super().advance()
        self.now += TURN_SECONDS

    def encode(self, face):
        assert self.go.wait(timeout=60)
        if not self.encodes:
            raise OSError("encoder error")
        return face


@pytest.fixture
def pipeline():
    pipeline = HeldUpPipeline()
    yield pipeline
    pipeline.go.set()


@pytest.fixture
def registry():
    return CollectorRegistry()


@pytest.fixture
def batch(pipeline, registry):
    limits = ServiceConfig(iteration_seconds=TURN_SECONDS)
    return ContinuousBatch(pipeline, limits, metrics=Metrics(registry), clock=lambda: pipeline.now)


TURN_SECONDS = 0.02


def row(key, steps):
    return Row(key, {"body": b"voice"}, {"url_path": "/predictions/voicestyle", "X-VoiceStyle-Steps": str(steps)})


def encoding(batch, pipeline, short, long):
    """Turn until the short request is rendered and its file is being made."""
    assert batch.turn([short, long]) == {}
    while "short" in pipeline.requests:
        assert batch.turn([short, long]) == {}


def answered(batch, rows):
    """The answers of the turn after all files were made."""
    wait(batch._encoding.values())
    return batch.turn(rows)


def test_others_step_while_a_file_is_made(batch, pipeline, registry):
    short, long = row("short", 2), row("long", 500)
    encoding(batch, pipeline, short, long)
    before = pipeline.requests["long"].step
    assert batch.turn([short, long]) == {}
    assert pipeline.requests["long"].step > before
    assert "short" not in pipeline.requests  # its place is free
    assert registry.get_sample_value("voicestyle_live_requests") == 2  # whoever waits for idle waits for it too
    pipeline.go.set()
    answers = answered(batch, [short, long])
    assert answers["short"].body == b"png of voice"
    assert list(answers) == ["short"]


def test_whoever_waits_for_the_place_does_not_wait_for_the_file(batch, pipeline):
    pipeline.capacity = 1
    both = [row("first", 2), row("second", 500)]
    for _ in range(4):
        assert batch.turn(both) == {}
    assert list(pipeline.requests) == ["second"]
    assert pipeline.requests["second"].step >= 1


def test_a_lone_file_is_waited_for(batch, pipeline):
    threading.Timer(0.2, pipeline.go.set).start()
    turns = []
    while not (answers := batch.turn([row("alone", 2)])):
        turns.append(answers)
    assert answers["alone"].status == 200
    assert len(turns) < 100, "turns without work follow each other without a pause"


def test_a_file_that_fails_is_a_fault_of_that_request_alone(batch, pipeline):
    short, long = row("short", 2), row("long", 500)
    encoding(batch, pipeline, short, long)
    pipeline.encodes = False
    pipeline.go.set()
    answers = answered(batch, [short, long])
    assert {key: answer.status for key, answer in answers.items()} == {"short": 500}
    assert "long" in pipeline.requests


def test_a_failing_step_takes_no_finished_face_along(batch, pipeline):
    short, long = row("short", 2), row("long", 500)
    encoding(batch, pipeline, short, long)
    pipeline.breaks_at_step = True
    assert {key: answer.status for key, answer in batch.turn([short, long]).items()} == {"long": 500}
    pipeline.go.set()
    assert answered(batch, [short])["short"].status == 200


def test_a_client_that_leaves_meanwhile_is_forgotten(batch, pipeline, registry):
    short, long = row("short", 2), row("long", 500)
    encoding(batch, pipeline, short, long)
    batch.turn([long])
    pipeline.go.set()
    for _ in range(20):
        assert batch.turn([long]) == {}
    outcome = {"outcome": "left", "protocol": "http"}
    assert registry.get_sample_value("voicestyle_requests_total", outcome) == 1
    assert registry.get_sample_value("voicestyle_live_requests") == 1
