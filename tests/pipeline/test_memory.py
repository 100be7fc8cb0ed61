"""Stages that lack memory once are repeated, and give what they would have given."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from voicestyle.bundle import Bundle
from voicestyle.options import Options
from voicestyle.pipeline import FaceRequest, Pipeline
from voicestyle.scheduling import Phase


class Flaky:
    """A network that lacks memory in its next call, whatever that is, once `armed`."""

    def __init__(self, network):
        self.network = network
        self.armed = False

    def check(self):
        if self.armed:
            self.armed = False
            raise RuntimeError("The following operation failed in the TorchScript interpreter.\nCUDA out of memory.")

    def __call__(self, *args):
        self.check()
        return self.network(*args)

    def render(self, *args):
        self.check()
        return self.network.render(*args)

    def __getattr__(self, name):
        return getattr(self.network, name)


NETWORKS = ("voice_encoder", "mapper", "face_encoder", "generator")


@pytest.fixture
def bundle(mapper_bundle):
    bundle = Bundle.load(mapper_bundle)
    return replace(bundle, **{name: Flaky(getattr(bundle, name)) for name in NETWORKS})


@pytest.fixture
def freed(monkeypatch):
    calls = []
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: calls.append("freed"))
    return calls


def face(pipeline, audio, lacking=None):
    """The pixels and the similarity of a face without steps; the network `lacking` lacks memory once in its stage."""

    def arm(*names):
        if lacking in names:
            getattr(pipeline._bundle, lacking).armed = True

    arm("voice_encoder")
    request = FaceRequest.of("a", pipeline.prepare(audio, Options(preset="instant")))
    request.entered = dict.fromkeys(Phase, 0.0)
    arm("mapper")
    pipeline.start([request])
    arm("face_encoder", "generator")
    rendered = pipeline.render(request)
    return rendered.pixels, rendered.trace


@pytest.mark.parametrize("name", NETWORKS)
def test_a_stage_that_lacks_memory_once_is_repeated(bundle, samples, freed, name):
    pipeline = Pipeline(bundle)
    audio = (samples / "slt.wav").read_bytes()
    expected = face(pipeline, audio)
    assert freed == []
    found = face(pipeline, audio, lacking=name)
    assert freed == ["freed"]
    np.testing.assert_array_equal(found[0], expected[0])
    assert found[1] == expected[1]


def test_a_preview_that_lacks_memory_once_is_repeated(bundle, samples, freed):
    pipeline = Pipeline(bundle)
    request = FaceRequest.of("a", pipeline.prepare((samples / "slt.wav").read_bytes(), Options(steps=3)))
    pipeline.start([request])
    pipeline.step([request])
    expected = pipeline.preview(request)
    bundle.generator.armed = True
    assert pipeline.preview(request) == expected
    assert freed == ["freed"]


def test_a_pipeline_knows_which_errors_are_a_lack_of_memory(bundle):
    pipeline = Pipeline(bundle)
    assert pipeline.is_out_of_memory(RuntimeError("CUDA out of memory."))
    assert not pipeline.is_out_of_memory(RuntimeError("CUDA error: unknown error"))
    assert not pipeline.device_failed(RuntimeError("CUDA error: unknown error"))  # it runs on a CPU
