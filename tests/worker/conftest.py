"""The handler between a fake pipeline and a fake TorchServe frontend."""

import logging
from collections import Counter

import pytest
from prometheus_client import REGISTRY

from tests.support.fake_torchserve import FakePipeline, Frontend
from tests.support.recorded_exit import RecordedExit
from voicestyle.worker.metrics import OUTCOMES


@pytest.fixture
def quiet_logging():
    """The handler sets levels for its own process; here they are put back."""
    names = (None, "voicestyle")
    before = [logging.getLogger(name).level for name in names]
    yield
    for name, level in zip(names, before, strict=True):
        logging.getLogger(name).setLevel(level)


@pytest.fixture
def pipeline():
    return FakePipeline()


@pytest.fixture(autouse=True)
def exits(monkeypatch):
    from handlers import voicestyle_handler

    recorded = RecordedExit()
    monkeypatch.setattr(voicestyle_handler.os, "_exit", recorded.exit)
    monkeypatch.setattr(voicestyle_handler.logging, "shutdown", lambda: None)  # pytest still needs its handlers
    monkeypatch.setattr(voicestyle_handler, "Timer", recorded.timer)
    return recorded


@pytest.fixture
def frontend(pipeline, monkeypatch, quiet_logging, tmp_path):
    """TorchServe's frontend, with the handler initialised on the fake pipeline."""
    from handlers import voicestyle_handler

    monkeypatch.setattr(voicestyle_handler.Pipeline, "load", pipeline.loaded)
    return Frontend(voicestyle_handler.VoiceStyleHandler(), model_dir=tmp_path)


@pytest.fixture
def counted():
    """Returns how many requests were completed since the test began, by outcome and protocol; zeros are left out.

    Each of them, and no other, must have been counted as received.
    """
    protocols = ("http", "grpc")
    completed = {f"{outcome} {protocol}": (outcome, protocol) for outcome in OUTCOMES for protocol in protocols}

    def read():
        counts = {
            name: REGISTRY.get_sample_value("voicestyle_requests_total", {"outcome": outcome, "protocol": protocol})
            for name, (outcome, protocol) in completed.items()
        }
        for protocol in protocols:
            counts[protocol] = REGISTRY.get_sample_value("voicestyle_received_total", {"protocol": protocol})
        return Counter({name: count or 0 for name, count in counts.items()})

    before = read()

    def since():
        counts = +(read() - before)
        received = sum(counts.pop(protocol, 0) for protocol in protocols)
        assert received == sum(counts.values())
        return dict(counts)

    return since
