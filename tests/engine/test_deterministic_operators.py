"""No operator of a step is nondeterministic on CUDA.

`FORBIDDEN` follows the documentation of `torch.use_deterministic_algorithms` in torch 2.13: the operators that have no
deterministic implementation on CUDA, and those that need another one than they use by default. Convolutions are not in
it: `torch.backends.cudnn.deterministic` chooses theirs. The networks run on the device `meta`, which takes the code
paths off the CPU.
"""

import re

import pytest
import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from cmpc2 import ResNet, ResNetConfig
from cmpc2.resnet import fold_batch_norm
from voicestyle.demo_encoders import FaceEncoder, FaceHead
from voicestyle.engine import Engine, VoiceObjective
from voicestyle.face_networks.dlib_resnet import DlibResNet
from voicestyle.generators import MobileStyleGAN, MobileStyleGANConfig, StyleGAN2, StyleGAN2Config

FORBIDDEN = re.compile(
    r"""aten\.(
    _?adaptive_(avg|max)_pool[23]d_backward | (avg|max)_pool3d\w*_backward | fractional_max_pool[23]d_backward
    | max_unpool\w* | _?upsample_(linear1d|(bilinear|bicubic)2d|trilinear3d)\w*_backward\w*
    | (reflection|replication)_pad[123]d_backward | nll_loss\w* | _ctc_loss\w* | _?embedding\w*_backward
    | put_? | histc | bincount | k?median | kthvalue | grid_sampler_[23]d_backward | cum(sum|prod)_?
    | scatter_\w+ | scatter | index_(add|copy|reduce)_? | gather_backward | index_select_backward | repeat_interleave
    | nonzero\w* | \w*dropout\w* | (rand|bernoulli|normal)\w*
    )\.""",
    re.VERBOSE,
)
TINY = {"max_width": 8}


class Recorder(TorchDispatchMode):
    """Records the operators that run, and those that add to elements that an index may name twice."""

    def __init__(self):
        super().__init__()
        self.operators = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        accumulates = "index_put" in str(func) and (dict(enumerate(args)).get(3) or (kwargs or {}).get("accumulate"))
        self.operators.add(f"aten.put.{func}" if accumulates else str(func))
        return func(*args, **(kwargs or {}))

    @property
    def nondeterministic(self):
        return sorted(operator for operator in self.operators if FORBIDDEN.match(operator))


def operators_of_a_step(generator, encoder, image_size=64, encoder_size=None, rows=None):
    """A step of two items on the device `meta`. Unscripted: its operators are those of the scripted modules."""
    encoder = encoder if not isinstance(encoder, torch.nn.Module) else encoder.eval().requires_grad_(False).to("meta")
    engine = Engine(
        generator.to("meta"),
        VoiceObjective(encoder, embedding_dim=8, image_size=image_size, encoder_size=encoder_size),
        latent_std=1.0,
        latent_rows=rows,
        capacity=2,
        device="meta",
    )
    assert engine.batched
    shape = (512,) if rows is None else (rows, 512)
    for number in range(2):
        engine.add(number, [torch.ones(8)], torch.zeros(shape), seed=number, steps=2)
    with Recorder() as recorder:
        engine.step()
    assert any("backward" in operator for operator in recorder.operators)
    return recorder


def published_encoder():
    return fold_batch_norm(ResNet(3, ResNetConfig(widths=(4, 4, 8, 16), depths=(1, 1, 1, 1), embedding_dim=8)).eval())


def demo_encoder():
    return FaceEncoder(DlibResNet(), FaceHead(8, 16))


def mobile_stylegan():
    return MobileStyleGAN(MobileStyleGANConfig(base_width=8, widths=(8,) * 7, head_widths=(4, 4)))


@pytest.mark.parametrize("rows", [None, 10], ids=["w", "w+"])
def test_a_step_of_published_networks(rows):
    generator = StyleGAN2(StyleGAN2Config(64, **TINY))
    assert operators_of_a_step(generator, published_encoder(), rows=rows).nondeterministic == []


def test_a_step_of_published_networks_whose_images_are_pooled():
    generator = StyleGAN2(StyleGAN2Config(128, **TINY))
    recorder = operators_of_a_step(generator, published_encoder(), image_size=64)
    assert recorder.nondeterministic == []
    assert "aten.avg_pool2d_backward.default" in recorder.operators


@pytest.mark.parametrize(("image_size", "encoder_size"), [(64, 56), (48, 48), (48, 56)])
def test_a_step_whose_images_are_resized(image_size, encoder_size):
    generator = StyleGAN2(StyleGAN2Config(64, **TINY))
    assert operators_of_a_step(generator, published_encoder(), image_size, encoder_size).nondeterministic == []


def test_a_step_of_the_demo_networks():
    recorder = operators_of_a_step(mobile_stylegan(), demo_encoder(), image_size=256)
    assert recorder.nondeterministic == []
    assert "aten.max_pool2d_with_indices_backward.default" in recorder.operators  # deterministic: each input gathers


@pytest.mark.parametrize(
    "operation",
    [
        lambda images: F.adaptive_avg_pool2d(images, 32),
        lambda images: F.interpolate(images, (32, 32), mode="bilinear", antialias=True),
        lambda images: F.interpolate(images, (32, 32), mode="bicubic"),
        lambda images: F.pad(images, (1, 1, 1, 1), mode="reflect"),
        lambda images: F.adaptive_max_pool2d(images, 8),
        lambda images: images.cumsum(dim=2),
        lambda images: images[:, :, torch.zeros(5, dtype=torch.long, device=images.device)],
        lambda images: images.gather(3, torch.zeros_like(images, dtype=torch.long)),
        lambda images: F.dropout(images, 0.5),
        lambda images: images + torch.randn_like(images),
    ],
)
def test_a_nondeterministic_operator_in_the_encoder_is_found(operation):
    weight = torch.ones(8, device="meta")

    def encoder(images):
        return operation(images).mean(dim=(1, 2, 3))[:, None] * weight

    assert operators_of_a_step(StyleGAN2(StyleGAN2Config(64, **TINY)), encoder).nondeterministic != []
