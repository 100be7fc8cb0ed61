"""What TorchScript does before the first request: nothing is fused, and all modules are compiled.

Compilation is seen in the sequence of the operators that a call runs: it differs from call to call until then.
"""

import dataclasses

import pytest
import torch
from msgspec.structs import replace
from torch.utils._python_dispatch import TorchDispatchMode

from voicestyle import pipeline as pipelines
from voicestyle import torchscript
from voicestyle.bundle import Bundle, write_bundle
from voicestyle.engine.step_graphs import WARM_UP_RUNS
from voicestyle.generators import StyleGAN2, StyleGAN2Config
from voicestyle.network_checks import tone
from voicestyle.pipeline import Pipeline


class Sequence(TorchDispatchMode):
    """Records the operators that run, in order."""

    def __init__(self):
        super().__init__()
        self.operators = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.operators.append(str(func))
        return func(*args, **(kwargs or {}))


def operators_of(call):
    with Sequence() as sequence:
        call()
    return sequence.operators


@pytest.fixture
def folder(with_mapper, tmp_path):
    """A bundle with a published kind of generator and a mapper."""
    generator = StyleGAN2(StyleGAN2Config(64, max_width=8)).eval()
    sizes = {"image_size": 64, "encoder_size": 64, "sizes": tuple(generator.sizes)}
    with_mapper |= {"generator": generator, "manifest": replace(with_mapper["manifest"], **sizes)}
    write_bundle(tmp_path / "bundle", **with_mapper)
    return tmp_path / "bundle"


def constant_after_warm_up(folder):
    """Load and warm up; whether three more calls of each kind run equal sequences of operators."""
    pipeline = Pipeline(Bundle.load(folder, "cpu"), capacity=1)
    pipeline.warm_up()
    one_pass, embedding = pipeline._one_pass, torch.ones(8)
    latent = torch.zeros(512)
    outcome = one_pass.outcome(latent, seed=0)
    pipeline._engine.add("", [embedding], latent, seed=0, steps=3)
    calls = {
        "step": pipeline._engine.step,
        "map": lambda: one_pass.map_latents([embedding], [latent]),
        "measure": lambda: one_pass.measure([outcome], [embedding]),
        "render": lambda: one_pass.render([outcome], [64]),
        "voice": lambda: voice(pipeline, 2.0),
        "longer voice": lambda: voice(pipeline, 7.0),
    }
    sequences = {name: [operators_of(call) for _ in range(3)] for name, call in calls.items()}
    return {name for name, (first, *others) in sequences.items() if others == [first, first]}


def voice(pipeline, seconds):
    features = pipelines.voice_features((tone(seconds) * 32768).short().numpy(), None, "cpu")
    with torch.inference_mode():
        pipeline._bundle.voice_encoder(features[None])


ALL = {"step", "map", "measure", "render", "voice", "longer voice"}


@pytest.mark.long
def test_nothing_is_compiled_after_the_warm_up(folder):
    assert constant_after_warm_up(folder) == ALL


def test_too_few_runs_leave_compilation_to_requests(folder, monkeypatch):
    monkeypatch.setattr(pipelines, "WARM_UP_RUNS", 1)
    assert constant_after_warm_up(folder) < ALL


def test_the_step_is_compiled_two_runs_before_its_capture(folder):
    """Without a pipeline's warm-up, as the benchmarks and the inversion capture."""
    captured = []

    def capture(run):
        captured.append([operators_of(run) for _ in range(WARM_UP_RUNS + 1)])
        return run

    Pipeline(Bundle.load(folder, "cpu"), capacity=2, batched=True)._engine.capture(capture, sizes=[2])
    ((*before, at_capture),) = captured
    assert before[-2:] == [at_capture, at_capture]
    assert before[0] != at_capture


class Features:
    """Stands for the features of a voice, on any device."""

    def __getitem__(self, _):
        return self

    def to(self, _):
        return self


@pytest.mark.parametrize(("device", "runs", "longest"), [("cpu", 3, 13.0), ("cuda", 5, 20.0)])
def test_on_a_gpu_the_longest_audio_is_embedded_before_the_first_request(
    tiny_bundle, monkeypatch, device, runs, longest
):
    lengths = []

    def front_end(speech, _, device):
        lengths.append((len(speech) / 16_000, str(device)))
        return Features()

    monkeypatch.setattr(pipelines, "voice_features", front_end)
    embedded = []
    pipeline = Pipeline(dataclasses.replace(Bundle.load(tiny_bundle), voice_encoder=embedded.append), capacity=1)
    pipeline.device = torch.device(device)
    pipeline._warm_up_runs = runs
    pipeline._warm_up_voice()
    assert len(embedded) == len(lengths)
    assert max(lengths) == (longest, device)  # of the bundle's 20 s
    assert lengths.count((2.0, device)) == runs


def test_a_loaded_module_fuses_no_operators(tmp_path, monkeypatch):
    """CUDA builds fuse by default, so the fuser of the CPU is turned on here before the module is loaded."""

    class Activation(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.tanh(torch.sigmoid(x) * x + 1) * x

    refused = []
    monkeypatch.setattr(torch._C, "_jit_override_can_fuse_on_gpu", refused.append)
    torchscript.save(Activation().eval(), tmp_path / "module.pt")
    torch._C._jit_set_te_must_use_llvm_cpu(False)
    try:
        torch._C._jit_override_can_fuse_on_cpu(True)
        scripted = torch.jit.load(str(tmp_path / "module.pt"))
        assert fused(scripted), "the fuser was not turned on"
        assert not fused(torchscript.load(tmp_path / "module.pt", "cpu"))
        assert refused == [False]  # a CPU build has no fuser for GPUs to turn off
        assert torch._C._jit_texpr_fuser_enabled()
    finally:
        torch._C._jit_override_can_fuse_on_cpu(False)
        torch._C._jit_set_te_must_use_llvm_cpu(True)


def fused(module):
    """Whether a module without gradients runs a fused kernel after its compilation."""
    with torch.no_grad():
        for _ in range(4):
            module(torch.ones(3))
        return "FusionGroup" in (graph := str(torch.jit.last_executed_optimized_graph())) or "TensorExpr" in graph
