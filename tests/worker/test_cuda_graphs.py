"""A failed capture of CUDA graphs: the worker ends, and the next one of the run starts without graphs."""

import logging

import pytest

from handlers import voicestyle_handler
from tests.support.fake_torchserve import FakePipeline, Frontend
from voicestyle.engine import CaptureError
from voicestyle.run_folder import VARIABLE, RunFolder

CAUSE = "a step could not be captured as a CUDA graph: no memory"


@pytest.fixture
def run(tmp_path, monkeypatch):
    folder = RunFolder.create(tmp_path / "run")
    monkeypatch.setenv(VARIABLE, str(folder.path))
    return folder


@pytest.fixture
def start(monkeypatch, quiet_logging, tmp_path):
    """Start a worker whose device cannot capture. Returns its pipeline."""

    def start(**options):
        pipeline = FakePipeline(capture_error=CaptureError(CAUSE))
        monkeypatch.setattr(voicestyle_handler.Pipeline, "load", pipeline.loaded)
        Frontend(voicestyle_handler.VoiceStyleHandler(), tmp_path, **options)
        return pipeline

    return start


def logged(caplog, level):
    return [record.getMessage() for record in caplog.records if record.levelno == level]


@pytest.mark.parametrize("options", [{}, {"graphs": "auto"}])
def test_auto_ends_the_first_worker_and_starts_the_next_ones_without_graphs(run, start, caplog, options):
    with pytest.raises(CaptureError, match="no memory"):
        start(**options)
    assert run.graphs_failed == CAUSE
    remedy = "the next worker serves without graphs"
    assert logged(caplog, logging.ERROR) == [f"the model could not be loaded: {CAUSE}; {remedy}"]
    for _ in range(2):
        caplog.clear()
        assert start(**options).graphs == "failed"
        (warning,) = logged(caplog, logging.WARNING)
        assert CAUSE in warning
        assert "without CUDA graphs" in warning


@pytest.mark.parametrize("with_run", [True, False])
def test_graphs_that_were_asked_for_fail_every_start(run, start, caplog, monkeypatch, with_run):
    if not with_run:
        monkeypatch.delenv(VARIABLE)
    for _ in range(2):
        with pytest.raises(CaptureError, match=f"{CAUSE}; graphs: false in the section handler serves without"):
            start(graphs=True)
    assert run.graphs_failed is None


def test_auto_fails_every_start_of_a_worker_without_a_run_folder(start, monkeypatch):
    monkeypatch.delenv(VARIABLE, raising=False)
    for _ in range(2):
        with pytest.raises(CaptureError, match="graphs: false in the section handler"):
            start()


def test_what_is_configured_counts_after_a_failure_too(run, start):
    assert start(graphs=False).graphs == "off"
    run.report_graphs_failed("an earlier failure")
    assert start(graphs=False).graphs == "off"
    with pytest.raises(CaptureError):
        start(graphs=True)


def test_another_error_of_the_start_changes_nothing(run, start, monkeypatch):
    monkeypatch.setattr(FakePipeline, "loaded", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        start()
    assert run.graphs_failed is None
