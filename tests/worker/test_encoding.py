"""Images are encoded while other requests take steps, in a thread that these tests block."""

import threading
from concurrent.futures import wait

import pytest
from prometheus_client import CollectorRegistry

from tests.support.fake_torchserve import FakePipeline
from voicestyle.scheduling import Phase
from voicestyle.worker.continuous_batch import ContinuousBatch
from voicestyle.worker.metrics import Metrics
from voicestyle.worker.request_parser import Row
from voicestyle.worker.service_config import ServiceConfig

ITERATION_SECONDS = 0.02


class BlockedPipeline(FakePipeline):
    """Encodes once `go` is set. A step takes as long as an iteration, by a clock of its own."""

    def __init__(self):
        super().__init__()
        self.go = threading.Event()
        self.encodes = True
        self.now = 0.0

    def step(self, requests):
        super().step(requests)
        self.now += ITERATION_SECONDS

    def encode(self, face):
        assert self.go.wait(timeout=60)
        if not self.encodes:
            raise OSError("encoder error")
        return face


@pytest.fixture
def pipeline():
    pipeline = BlockedPipeline()
    yield pipeline
    pipeline.go.set()


@pytest.fixture
def registry():
    return CollectorRegistry()


@pytest.fixture
def batch(pipeline, registry):
    return batch_of(pipeline, registry)


def batch_of(pipeline, registry):
    config = ServiceConfig(iteration_seconds=ITERATION_SECONDS)
    return ContinuousBatch(pipeline, config, metrics=Metrics(registry), clock=lambda: pipeline.now)


def row(key, steps):
    return Row(key, "http", {"body": b"voice"}, {"X-VoiceStyle-Steps": str(steps)})


def iterate_until_rendered(batch, pipeline, short, long):
    """Iterate until the short request is rendered and its image is being encoded."""
    while not pipeline.rendered:
        assert batch.iterate([short, long]) == {}


def after_encoding(batch, rows):
    """The responses of the iteration after all images are encoded."""
    wait([request.face for request in batch._scheduler.in_phase(Phase.ENCODING)])
    return batch.iterate(rows)


def test_other_requests_step_while_one_is_encoded(batch, pipeline, registry):
    short, long = row("short", 2), row("long", 500)
    iterate_until_rendered(batch, pipeline, short, long)
    before = pipeline.steps["long"]
    assert batch.iterate([short, long]) == {}
    assert pipeline.steps["long"] > before
    assert "short" not in pipeline.steps  # its slot is free
    assert registry.get_sample_value("voicestyle_live_requests") == 2  # a shutdown waits for it too
    pipeline.go.set()
    responses = after_encoding(batch, [short, long])
    assert responses["short"].body == b"png of voice"
    assert list(responses) == ["short"]


def test_a_waiting_request_does_not_wait_for_the_encoder(pipeline, registry):
    pipeline.capacity = 1
    batch = batch_of(pipeline, registry)
    both = [row("first", 2), row("second", 500)]
    for _ in range(4):
        assert batch.iterate(both) == {}
    assert list(pipeline.steps) == ["second"]
    assert pipeline.steps["second"] >= 1


def test_an_iteration_without_steps_waits_for_the_encoder(batch, pipeline):
    threading.Timer(0.2, pipeline.go.set).start()
    iterations = []
    while not (responses := batch.iterate([row("alone", 2)])):
        iterations.append(responses)
    assert responses["alone"].status == 200
    assert len(iterations) < 100, "iterations without work follow each other without a pause"


def test_a_failed_encoding_fails_that_request_alone(batch, pipeline):
    short, long = row("short", 2), row("long", 500)
    iterate_until_rendered(batch, pipeline, short, long)
    pipeline.encodes = False
    pipeline.go.set()
    responses = after_encoding(batch, [short, long])
    assert {key: response.status for key, response in responses.items()} == {"short": 500}
    assert "long" in pipeline.steps


def test_a_failed_step_fails_no_rendered_face(batch, pipeline):
    short, long = row("short", 2), row("long", 500)
    iterate_until_rendered(batch, pipeline, short, long)
    pipeline.fails_at_step = True
    assert {key: response.status for key, response in batch.iterate([short, long]).items()} == {"long": 500}
    pipeline.go.set()
    assert after_encoding(batch, [short])["short"].status == 200


def test_a_client_that_disconnects_is_forgotten(batch, pipeline, registry):
    short, long = row("short", 2), row("long", 500)
    iterate_until_rendered(batch, pipeline, short, long)
    batch.iterate([long])
    pipeline.go.set()
    for _ in range(20):
        assert batch.iterate([long]) == {}
    outcome = {"outcome": "cancelled", "protocol": "http"}
    assert registry.get_sample_value("voicestyle_requests_total", outcome) == 1
    assert registry.get_sample_value("voicestyle_live_requests") == 1
