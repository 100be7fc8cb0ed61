"""Narrow convolutions: what is narrowed, and what that changes."""

import copy

import pytest
import torch
from msgspec.structs import replace

from cmpc2 import ResNet, ResNetConfig
from cmpc2.resnet import fold_batch_norm
from voicestyle import torchscript
from voicestyle.bundle import GENERATOR_INTERFACE, Bundle, write_bundle
from voicestyle.generators import MobileStyleGAN, MobileStyleGANConfig, StyleGAN2, StyleGAN2Config
from voicestyle.offline import generate_face
from voicestyle.options import Options
from voicestyle.pipeline import Pipeline
from voicestyle.precision import adapt_convolutions_

BFLOAT16 = torch.bfloat16


def randomised(module):
    """Weights that keep activations at about 1, and every bias and noise map in play."""
    source = torch.Generator().manual_seed(0)
    for name, tensor in [*module.named_parameters(), *module.named_buffers()]:
        draw = torch.randn(tensor.shape, generator=source)
        if tensor.dim() == 4 and tensor.shape[-1] == 3:
            tensor.data = draw * (2 / (9 * tensor.shape[1])) ** 0.5
        elif "style" in name and name.endswith("bias"):
            tensor.data = 1 + 0.1 * draw
        elif tensor.dim() == 2:
            tensor.data = draw / tensor.shape[1] ** 0.5
        elif "blur" not in name:
            tensor.data = 0.1 * draw
    return module.eval()


def generators():
    yield randomised(MobileStyleGAN(MobileStyleGANConfig(16, (16, 16, 16, 16), 2, (8, 8))))
    stylegan2 = randomised(StyleGAN2(StyleGAN2Config(64, max_width=16)))
    for module in stylegan2.modules():
        if hasattr(module, "squares"):
            channels = 0 if module.upsample else 1
            module.squares.copy_(module.weight.square().sum((2, 3)).transpose(0, channels) / 2)
    yield stylegan2


def test_convolutions_alone_are_narrowed():
    for generator in generators():
        adapt_convolutions_(generator, BFLOAT16)
        for name, tensor in [*generator.named_parameters(), *generator.named_buffers()]:
            beside_convolution = tensor.dim() == 1 and "style" not in name and "mapping" not in name
            narrow = tensor.dim() == 4 or beside_convolution
            assert tensor.dtype == (BFLOAT16 if narrow else torch.float32), name


def test_a_bfloat16_generator_is_close_in_image_and_gradient():
    for generator in generators():
        narrow = copy.deepcopy(generator)
        adapt_convolutions_(narrow, BFLOAT16)
        source = torch.Generator().manual_seed(1)
        w = generator.map(torch.randn(2, 512, generator=source))
        noise = [torch.randn(2, 1, *shape, generator=source) for shape in generator.noise_shapes]
        found = []
        for network in (generator, narrow):
            leaves = [tensor.clone().requires_grad_() for tensor in (w, *noise)]
            image = network(leaves[0], leaves[1:])
            assert image.dtype == torch.float32
            found.append([image.detach(), *torch.autograd.grad(image.sin().sum(), leaves)])
        for number, (wide, given) in enumerate(zip(*found, strict=True)):
            assert given.dtype == torch.float32
            error = (given - wide).norm() / wide.norm()
            assert (
                0 < error < (0.15 if number else 0.03)
            )  # a gradient also turns where a rectifier's input changes sign


def test_a_folded_encoder_embeds_as_before_in_either_dtype():
    config = ResNetConfig(widths=(8, 8, 16, 16), depths=(1, 2, 1, 1), embedding_dim=16)
    encoder = randomised(ResNet(3, config)).requires_grad_(False)
    for module in encoder.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_var.fill_(0.7)
            module.weight.data += 1
    folded = fold_batch_norm(encoder)
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in folded.modules())
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(2))
    expected = encoder(images)
    torch.testing.assert_close(folded(images), expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))
    adapt_convolutions_(folded, BFLOAT16)
    given = folded(images)
    assert given.dtype == torch.float32
    assert (given - expected).norm() / expected.norm() < 0.05


def test_files_hold_float32_whatever_they_are_loaded_as(tmp_path):
    for generator in generators():
        torchscript.save(generator, tmp_path / "generator.pt")
        w = torch.zeros(1, 512) + 0.1
        noise = [torch.zeros(1, 1, *shape) for shape in generator.noise_shapes]
        wide, narrow = (
            torchscript.load(tmp_path / "generator.pt", "cpu", dtype, GENERATOR_INTERFACE)(w, noise)
            for dtype in (torch.float32, BFLOAT16)
        )
        torch.testing.assert_close(wide, generator(w, noise), rtol=1e-4, atol=1e-4)
        assert not torch.equal(wide, narrow)


def test_a_training_module_is_not_written(tmp_path):
    with pytest.raises(ValueError, match="evaluation mode"):
        torchscript.save(ResNet(3).train(), tmp_path / "encoder.pt")


def test_a_bundle_makes_nearly_the_same_face_in_bfloat16(tmp_path, parts, samples):
    generator = next(generators())
    parts["generator"] = generator
    manifest = replace(
        parts["manifest"],
        image_size=32,
        encoder_size=32,
        sizes=tuple(generator.sizes),
        default_size=max(generator.sizes),
    )
    parts["manifest"] = manifest
    write_bundle(tmp_path / "bundle", **parts)
    similarity = {}
    for dtype in (torch.float32, BFLOAT16):
        pipeline = Pipeline.load(tmp_path / "bundle", capacity=1, dtype=dtype)
        face = generate_face(pipeline, samples / "slt.wav", Options(steps=6))
        assert face.dtype == pipeline.computing.dtype == str(dtype).removeprefix("torch.")
        similarity[dtype] = face.similarity
    assert similarity[BFLOAT16] == pytest.approx(similarity[torch.float32], abs=0.02)
    assert similarity[BFLOAT16] != similarity[torch.float32]
    assert Bundle.load(tmp_path / "bundle").voice_encoder(torch.zeros(1, 1, 64, 800)).dtype == torch.float32
