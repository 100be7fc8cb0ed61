"""What the worker counts of requests, steps and memory, and that no value makes a metric raise."""

import logging
import math
from types import SimpleNamespace

import psutil
import pytest
from prometheus_client import CollectorRegistry

from tests.support.fake_torchserve import computing
from voicestyle.error_codes import ERROR_CODES
from voicestyle.worker import metrics as module
from voicestyle.worker.metrics import OUTCOMES, PROTOCOLS, REQUEST_SECONDS, Metrics

REJECTIONS = set(ERROR_CODES) - {"internal", "out_of_memory", "device_failed"}

FACE = {
    "similarity": 0.62,
    "first_similarity": -0.25,
    "audio_seconds": 4.0,
    "speech_seconds": 3.0,
    "timings": {"decode": 0.01, "queue": 2.0, "optimise": 6.0},
    "settings": SimpleNamespace(steps=4),
}


def face(**changes):
    return SimpleNamespace(**FACE | changes)


@pytest.fixture
def registry():
    return CollectorRegistry()


@pytest.fixture
def metrics(registry):
    return Metrics(registry)


@pytest.fixture
def value(registry):
    return lambda name, **labels: registry.get_sample_value(f"voicestyle_{name}", labels)


def test_every_request_is_counted_by_outcome_and_protocol(metrics, value):
    for _ in range(5):
        metrics.received("http")
    metrics.received("grpc")
    metrics.finished("http", face(), 8.0)
    metrics.finished("grpc", face(), 8.0)
    metrics.refused("http", "no_speech")
    metrics.failed("http")
    metrics.cancelled("http")
    assert (value("received_total", protocol="http"), value("received_total", protocol="grpc")) == (5, 1)
    for outcome in OUTCOMES:
        assert value("requests_total", outcome=outcome, protocol="http") == 1
    assert value("requests_total", outcome="face", protocol="grpc") == 1
    assert value("refusals_total", code="no_speech", protocol="http") == 1


def test_counters_of_known_labels_begin_at_zero(metrics, value):
    for protocol in PROTOCOLS:
        assert value("received_total", protocol=protocol) == 0
        assert all(value("requests_total", outcome=outcome, protocol=protocol) == 0 for outcome in OUTCOMES)
        assert all(value("refusals_total", code=code, protocol=protocol) == 0 for code in REJECTIONS)


def test_a_face_is_measured_whole_and_stage_by_stage(metrics, value):
    metrics.finished("http", face(), 8.0)
    labels = {"outcome": "face", "protocol": "http"}
    assert value("request_seconds_sum", **labels) == 8.0
    assert value("request_seconds_bucket", **labels, le="7.5") == 0
    assert value("request_seconds_bucket", **labels, le="10.0") == 1
    assert {stage: value("stage_seconds_sum", stage=stage) for stage in FACE["timings"]} == FACE["timings"]
    assert (value("audio_seconds_sum"), value("speech_seconds_sum")) == (4.0, 3.0)
    assert (value("similarity_bucket", le="0.6"), value("similarity_bucket", le="0.7")) == (0, 1)
    assert (value("first_similarity_bucket", le="-0.3"), value("first_similarity_bucket", le="-0.2")) == (0, 1)


def test_faces_without_steps_are_counted(metrics, value):
    metrics.finished("http", face(), 8.0)
    assert value("instant_faces_total") == 0
    metrics.finished("http", face(settings=SimpleNamespace(steps=0)), 0.3)
    assert value("instant_faces_total") == 1
    assert value("requests_total", outcome="face", protocol="http") == 2


def test_a_five_minute_wait_falls_into_a_bucket(metrics, value):
    metrics.failed("grpc", 299.0)
    assert REQUEST_SECONDS[-1] == 300
    labels = {"outcome": "failed", "protocol": "grpc"}
    assert [value("request_seconds_bucket", **labels, le=le) for le in ("240.0", "300.0", "+Inf")] == [0, 1, 1]


@pytest.mark.parametrize("outcome", ["refused", "failed", "cancelled"])
def test_other_outcomes_are_timed_if_seconds_are_given(metrics, value, outcome):
    count = getattr(metrics, outcome)
    arguments = ("http", "too_long") if outcome == "refused" else ("http",)
    count(*arguments)
    assert value("request_seconds_count", outcome=outcome, protocol="http") is None
    count(*arguments, 0.5)
    assert value("request_seconds_sum", outcome=outcome, protocol="http") == 0.5
    assert value("requests_total", outcome=outcome, protocol="http") == 2


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, -1.0, None, "soon"])
def test_an_invalid_time_is_left_out_of_histograms(metrics, value, bad):
    metrics.finished("http", face(audio_seconds=bad, timings={"decode": bad, "render": 1.0}), bad)
    assert value("requests_total", outcome="face", protocol="http") == 1
    assert value("request_seconds_count", outcome="face", protocol="http") in (None, 0)
    assert (value("audio_seconds_count"), value("audio_seconds_sum")) == (0, 0)
    assert value("stage_seconds_sum", stage="decode") in (None, 0)
    assert value("stage_seconds_sum", stage="render") == 1.0


def test_a_similarity_of_nan_is_left_out(metrics, value):
    metrics.finished("http", face(similarity=math.nan), 1.0)
    assert (value("similarity_count"), value("first_similarity_count")) == (0, 1)


def test_a_failing_metric_is_logged_once_and_never_raises(metrics, value, caplog, monkeypatch):
    monkeypatch.setattr(module, "_logged", set())
    with caplog.at_level(logging.ERROR, "voicestyle.metrics"):
        for _ in range(3):
            metrics.finished("http", SimpleNamespace(), 1.0)
            metrics.stepped("many", 1, 1.0)
            metrics.occupancy(None, None)
            metrics.describe(None, None, computing(capacity="all"))
    assert value("requests_total", outcome="face", protocol="http") == 3
    assert sorted(record.args[0] for record in caplog.records) == ["describe", "finished", "occupancy", "stepped"]


@pytest.mark.parametrize(("batch", "label"), [(1, "1"), (2, "2"), (3, "4"), (4, "4"), (5, "8"), (8, "8"), (9, "16")])
def test_steps_are_timed_by_batch_size_as_powers_of_two(metrics, value, batch, label):
    metrics.stepped(batch, 10, 1.5)
    assert (value("steps_total"), value("request_steps_total")) == (10, 10 * batch)
    assert value("step_seconds_sum", batch=label) == 0.15
    assert (value("batch_size_count"), value("batch_size_sum")) == (1, batch)


@pytest.mark.parametrize(("batch", "steps"), [(0, 4), (4, 0), (-1, 4), (4, -1)])
def test_an_iteration_without_steps_is_not_counted(metrics, value, batch, steps):
    metrics.stepped(batch, steps, 0.1)
    assert (value("steps_total"), value("request_steps_total"), value("batch_size_count")) == (0, 0, 0)


def test_a_new_request_counts_as_waiting_at_once(metrics, value):
    metrics.occupancy(3, 1)
    metrics.received("grpc")
    assert (value("live_requests"), value("waiting_requests")) == (3, 2)
    metrics.occupancy(4, 1)
    assert (value("live_requests"), value("waiting_requests")) == (4, 1)


def test_build_info_describes_what_runs(metrics, value, registry):
    metrics.describe("demo", "2", computing())
    (info,) = [metric for metric in registry.collect() if metric.name == "voicestyle_build_info"]
    (sample,) = info.samples
    assert sample.value == 1
    expected = {"model": "demo", "bundle_version": "2", "device": "cpu", "dtype": "float32", "capacity": "8"}
    assert expected.items() <= sample.labels.items()
    assert all(sample.labels[label] for label in ("version", "torch", "python"))
    assert value("capacity_requests") == 8
    assert value("measured_step_seconds", batch="8") is None


def test_measured_steps_are_reported_by_batch_size(metrics, value):
    metrics.describe("demo", "2", computing(step_seconds={1: 0.01, 16: 0.12}))
    assert [value("measured_step_seconds", batch=size) for size in ("1", "16")] == [0.01, 0.12]


def test_resident_memory_is_that_of_this_process(metrics, value):
    metrics.occupancy(0, 0)
    rss = psutil.Process().memory_info().rss
    assert rss / 2 < value("resident_memory_bytes") < 2 * rss
    assert value("device_memory_bytes", device="cpu", kind="allocated") is None


def test_gpu_memory_is_read_after_the_steps(metrics, value, monkeypatch):
    import torch.cuda as cuda

    for name, size in (("memory_allocated", 10), ("memory_reserved", 30), ("max_memory_allocated", 20)):
        monkeypatch.setattr(cuda, name, lambda device, size=size: size if device == "cuda:1" else -1)
    metrics.describe("demo", "2", computing(device="cuda:1", dtype="bfloat16"))
    monkeypatch.setattr(cuda, "memory_allocated", lambda device: 15)
    metrics.stepped(1, 1, 0.1)
    sizes = [value("device_memory_bytes", device="cuda:1", kind=kind) for kind in ("allocated", "reserved", "peak")]
    assert sizes == [15, 30, 20]


def test_a_second_initialisation_keeps_the_counters(registry, value):
    Metrics(registry).failed("http")
    Metrics(registry).failed("http")
    assert value("requests_total", outcome="failed", protocol="http") == 2
    assert value("worker_starts_total") == 1


def test_the_default_registry_is_prometheus_client_s():
    Metrics().received("http")
    before = module.REGISTRY.get_sample_value("voicestyle_received_total", {"protocol": "http"})
    Metrics().received("http")
    assert module.REGISTRY.get_sample_value("voicestyle_received_total", {"protocol": "http"}) == before + 1
