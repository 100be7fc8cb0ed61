"""The handler between a fake pipeline and a fake TorchServe frontend."""

import logging

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

    To be called when none is left: each request that was received has one outcome.
    """
    labels = [{"outcome": outcome, "protocol": protocol} for outcome in OUTCOMES for protocol in ("http", "grpc")]

    def read():
        return [REGISTRY.get_sample_value("voicestyle_requests_total", each) or 0 for each in labels]

    def received():
        counts = (
            REGISTRY.get_sample_value("voicestyle_received_total", {"protocol": each}) for each in ("http", "grpc")
        )
        return sum(count or 0 for count in counts)

    before, received_before = read(), received()

    def since():
        changes = [now - then for now, then in zip(read(), before, strict=True)]
        assert sum(changes) == received() - received_before
        return {" ".join(each.values()): change for each, change in zip(labels, changes, strict=True) if change}

    return since
