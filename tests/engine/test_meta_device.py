"""A step on the meta device contains nothing that a CUDA graph cannot, and the check reports each such fault."""

from functools import cache
from itertools import count

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from benchmarks.operations import freezing_on_meta
from cmpc2 import ResNet, ResNetConfig
from cmpc2.resnet import fold_batch_norm
from tests.support.captured_step import CheckedCapture
from tests.support.tiny_bundle import TinyGenerator
from voicestyle import torchscript
from voicestyle.bundle import GENERATOR_INTERFACE
from voicestyle.demo_encoders import FaceEncoder, FaceHead
from voicestyle.engine import Engine, VoiceObjective
from voicestyle.engine.step_graphs import WARM_UP_RUNS
from voicestyle.face_networks import DlibResNet
from voicestyle.generators import StyleGAN2, StyleGAN2Config
from voicestyle.generators.mobilestylegan import MobileStyleGAN, MobileStyleGANConfig
from voicestyle.latent_prior import LatentPrior

EMBEDDING = 8
CAPACITY = 3
SIZES = {1, 2, 3}


def stylegan2():
    return StyleGAN2(StyleGAN2Config(64, max_width=16))


def mobilestylegan():
    # 256 pixels, which the demo's face encoder takes.
    return MobileStyleGAN(MobileStyleGANConfig(16, (16, 16, 16, 16, 8, 8, 8), head_widths=(8, 8)))


def cmpc_encoder():
    config = ResNetConfig(widths=(4, 4, 8, 8), depths=(1, 1, 1, 1), embedding_dim=EMBEDDING)
    return fold_batch_norm(ResNet(3, config).eval())


def demo_encoder():
    return FaceEncoder(DlibResNet(), FaceHead(EMBEDDING, hidden=16))


@pytest.fixture(scope="module", autouse=True)
def meta_device():
    with freezing_on_meta():
        yield


@pytest.fixture(scope="module")
def compiled(tmp_path_factory):
    """`compiled(make, dtype)`: a module from a file, on the meta device, as `Bundle.load` loads it."""

    @cache
    def file(make):
        path = tmp_path_factory.mktemp("modules") / "module.pt"
        torchscript.save(make().eval().requires_grad_(False), path)
        return path

    def load(make, dtype=torch.float32, device="meta"):
        keep = GENERATOR_INTERFACE if make in (stylegan2, mobilestylegan, TinyGenerator) else ()
        return torchscript.load(file(make), device, dtype, keep)

    return load


@cache
def prior():
    numbers = np.random.default_rng(0)
    return LatentPrior.fit(numbers.standard_normal((16, 512)), held=numbers.standard_normal((2, 512)))


def check(
    generator,
    face_encoder,
    *,
    image_size=64,
    encoder_size=None,
    objective=VoiceObjective,
    warm_up_runs=WARM_UP_RUNS,
    capacity=CAPACITY,
    **options,
):
    """The checked capture of an engine with these networks."""
    engine = Engine(
        generator,
        objective(face_encoder, embedding_dim=EMBEDDING, image_size=image_size, encoder_size=encoder_size),
        latent_std=1.0,
        capacity=capacity,
        max_steps=8,
        device="meta",
        **options,
    )
    modules = [each for each in (generator, face_encoder) if isinstance(each, torch.jit.ScriptModule)]
    capture = CheckedCapture(modules, warm_up_runs)
    engine.capture(capture)
    return capture


def assert_captured(capture):
    assert capture.faults == []
    assert set(capture.operators) == SIZES
    for operators in capture.operators.values():
        assert operators.count("aten.convolution_backward.default") == operators.count("aten.convolution.default") > 20


STYLEGAN2 = (stylegan2, cmpc_encoder, 64)
DEMO = (mobilestylegan, demo_encoder, 256)


@pytest.mark.long
@pytest.mark.parametrize(
    ("networks", "dtype", "w_plus", "with_prior"),
    [
        (STYLEGAN2, torch.float32, False, False),
        (STYLEGAN2, torch.float32, True, True),
        (STYLEGAN2, torch.bfloat16, False, True),
        (STYLEGAN2, torch.bfloat16, True, False),
        (DEMO, torch.float32, False, True),
        (DEMO, torch.float32, True, False),
        (DEMO, torch.bfloat16, False, False),
        (DEMO, torch.bfloat16, True, True),
    ],
    ids=lambda value: value[0].__name__ if isinstance(value, tuple) else str(value),
)
def test_a_step_can_be_captured(compiled, networks, dtype, w_plus, with_prior):
    make_generator, make_encoder, image_size = networks
    generator, face_encoder = compiled(make_generator, dtype), compiled(make_encoder, dtype)
    rows, latent_prior = generator.latent_rows if w_plus else None, prior() if with_prior else None
    assert_captured(check(generator, face_encoder, image_size=image_size, latent_rows=rows, prior=latent_prior))


@pytest.mark.long
@pytest.mark.parametrize(("image_size", "encoder_size"), [(32, 32), (32, 48), (64, 48)])
def test_a_step_that_pools_or_resizes_images_can_be_captured(compiled, image_size, encoder_size):
    assert_captured(
        check(*(compiled(make) for make in STYLEGAN2[:2]), image_size=image_size, encoder_size=encoder_size)
    )


@pytest.mark.long
def test_a_sequential_step_can_be_captured(compiled):
    assert_captured(check(*(compiled(make) for make in STYLEGAN2[:2]), batched=False))


class Faulty(nn.Module):
    """A scripted face encoder with a fault before it."""

    def __init__(self):
        super().__init__()
        self.encoder = cmpc_encoder()


class Item(Faulty):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.encoder(x * float(x.mean().item()))


class Branch(Faulty):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.mean() > 0:
            x = -x
        return self.encoder(x)


class HostIndex(Faulty):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.encoder(x[:, torch.tensor([2, 1, 0])])


class ListIndex(Faulty):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.encoder(x[:, [2, 1, 0]])


class Mask(Faulty):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.encoder(x) + x[x > 0].mean()


class Random(Faulty):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.encoder(x + 0.1 * torch.randn_like(x))


class HostTensor(Faulty):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.encoder(x * torch.tensor([0.5, 0.4, 0.3]).view(3, 1, 1))


class Upload(Faulty):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.encoder(x * torch.tensor([0.5, 0.4, 0.3], device=x.device).view(3, 1, 1))


class Download(Faulty):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.encoder(x.cpu().to(x.device))


class Equal(Faulty):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.encoder(-x if torch.equal(x, x + 1) else x)


def first_fault(capture):
    assert capture.faults, "the check reports nothing"
    return capture.faults[0]


@pytest.mark.parametrize(
    ("fault", "reported"),
    [
        (Item, "aten._local_scalar_dense.default returns values of the device to the host"),
        (Branch, "aten._local_scalar_dense.default returns values of the device to the host"),
        (Equal, "aten.equal.default returns values of the device to the host"),
        (Mask, "aten.index.Tensor has a result whose shape depends on values"),
        (Random, "aten.randn_like.default draws random numbers"),
        (HostIndex, "aten.index.Tensor has a tensor on the cpu"),
        (ListIndex, "aten.index.Tensor has a tensor on the cpu"),
        (HostTensor, "aten.mul.Tensor has a tensor on the cpu"),
        (Upload, "aten.empty.memory_format has a tensor on the cpu"),
        (Download, "RuntimeError: Cannot copy out of meta tensor; no data!"),
    ],
)
def test_a_fault_in_a_compiled_network_is_reported(compiled, fault, reported):
    assert first_fault(check(compiled(TinyGenerator), compiled(fault), capacity=1)) == f"{reported}, rows 0:1"


class HostBuffer(nn.Module):
    """A face encoder whose buffer is on the host whatever device the step runs on."""

    def __init__(self, encoder):
        super().__init__()
        self.encoder = encoder
        self.scale = torch.full((3, 1, 1), 0.5)

    def forward(self, x):
        return self.encoder(x * self.scale)


def test_a_buffer_of_the_host_is_reported(compiled):
    capture = check(compiled(TinyGenerator), HostBuffer(compiled(cmpc_encoder)), capacity=1)
    assert first_fault(capture) == "aten.mul.Tensor has a tensor on the cpu, rows 0:1"


def test_a_network_of_the_host_is_reported(compiled):
    capture = check(compiled(TinyGenerator), compiled(cmpc_encoder, device="cpu"), capacity=1)
    assert first_fault(capture) == "aten.convolution.default has a tensor on the cpu, rows 0:1"


def in_step(change):
    """An objective whose images are changed first, by Python code of the step."""

    class Changed(VoiceObjective):
        def __call__(self, images, targets):
            return super().__call__(change(images), targets)

    return Changed


def lengthening():
    lengths = count()
    return lambda x: x + sum(x * 0 for _ in range(next(lengths)))


@pytest.mark.parametrize(
    ("change", "reported"),
    [
        (lambda x: x * x.mean().item(), "aten._local_scalar_dense.default returns values of the device to the host"),
        (lambda x: x[:, torch.tensor([2, 1, 0])], "aten.lift_fresh.default has a tensor on the cpu"),
        (lambda x: x[:, [2, 1, 0]], "__getitem__ makes a tensor of numbers of the host"),
        (lambda x: x * torch.tensor([0.5], device=x.device), "tensor makes a tensor of numbers of the host"),
        (lambda x: x * torch.ones(()), "aten.ones.default has a tensor on the cpu"),
        (lambda x: F.dropout(x, 0.1), "aten.bernoulli_.float draws random numbers"),
        (lengthening(), "the captured run has"),
    ],
)
def test_a_fault_in_the_step_itself_is_reported(compiled, change, reported):
    capture = check(compiled(TinyGenerator), compiled(cmpc_encoder), capacity=1, objective=in_step(change))
    assert first_fault(capture).startswith(reported)


@pytest.mark.parametrize("change", [lambda x: x, lambda x: 1 - x * 0.5, lambda x: x[:, torch.arange(3, device="meta")]])
def test_numbers_and_indices_of_the_device_are_no_faults(compiled, change):
    assert not check(compiled(TinyGenerator), compiled(cmpc_encoder), capacity=1, objective=in_step(change)).faults


@pytest.mark.parametrize("runs", range(3))  # torch compiles the forward in the second run, the backward in the third
def test_too_few_warm_up_runs_are_reported(compiled, runs):
    capture = check(compiled(TinyGenerator), compiled(cmpc_encoder), capacity=1, warm_up_runs=runs)
    assert "modules are compiled in the captured run, rows 0:1" in capture.faults
