"""What a pipeline says about its graphs, and when it captures. The graphs themselves: tests/engine."""

import pytest
import torch

from voicestyle import pipeline as pipelines
from voicestyle.bundle import Bundle
from voicestyle.engine import CaptureError
from voicestyle.pipeline import Pipeline


@pytest.mark.parametrize(("graphs", "reported"), [("on", "off"), ("off", "off"), ("failed", "failed")])
def test_on_a_cpu_nothing_is_captured(tiny_bundle, monkeypatch, graphs, reported):
    monkeypatch.setattr(pipelines, "CudaCapture", None)
    pipeline = Pipeline.load(tiny_bundle, capacity=1, graphs=graphs)
    assert pipeline.computing.graphs == reported


@pytest.mark.parametrize("batched", [True, False])
def test_on_a_gpu_the_step_is_captured_unless_it_is_off(tiny_bundle, monkeypatch, batched):
    captured = []

    def capture_on(device):
        captured.append(device)
        return lambda run: run

    monkeypatch.setattr(pipelines, "CudaCapture", capture_on)
    device = torch.device("cuda", 1)
    for graphs, reported in (("on", "on"), ("off", "off"), ("failed", "failed")):
        pipeline = Pipeline(Bundle.load(tiny_bundle), capacity=2, batched=batched, graphs=graphs)
        pipeline.device = device
        pipeline.capture()
        assert pipeline.computing.graphs == reported
        assert pipeline.computing.batching == ("batched" if batched else "sequential")
    assert captured == [device]


def test_a_pipeline_whose_capture_fails_is_not_loaded(tiny_bundle, monkeypatch):
    def fails(run):
        raise CaptureError("no memory")

    monkeypatch.setattr(pipelines, "CudaCapture", lambda device: fails)
    pipeline = Pipeline(Bundle.load(tiny_bundle), capacity=2)
    pipeline.device = torch.device("cuda")
    with pytest.raises(CaptureError, match="no memory"):
        pipeline.capture()
    assert pipeline.computing.graphs == "off"
