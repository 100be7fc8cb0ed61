"""The handler between a fake pipeline and a fake TorchServe frontend."""

import logging

import pytest

from tests.support.fake_torchserve import FakePipeline, Frontend
from tests.support.recorded_exit import RecordedExit


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
