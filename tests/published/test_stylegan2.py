"""StyleGAN2 against a reference with modulated weights and grouped convolutions, and the checkpoint reader."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

from cmpc2 import CheckpointError
from voicestyle import torchscript
from voicestyle.bundle import GENERATOR_INTERFACE
from voicestyle.generators import StyleGAN2Config, read_stylegan2

KERNEL = torch.outer(torch.tensor([1.0, 3, 3, 1]), torch.tensor([1.0, 3, 3, 1])).double() / 16


class ReferenceGenerator:
    """The generator as described in the paper, with the weights of a published file."""

    def __init__(self, weights, size):
        self.weights = {key: value.double() for key, value in weights.items()}
        self.blocks = int(math.log2(size)) - 2

    def map(self, z):
        x = z / (z.square().mean(dim=1, keepdim=True) + 1e-8).sqrt()
        for i in range(1, 9):
            weight, bias = self.weights[f"style.{i}.weight"], self.weights[f"style.{i}.bias"]
            x = math.sqrt(2) * F.leaky_relu(F.linear(x, weight * 0.01 / math.sqrt(512), bias * 0.01), 0.2)
        return x

    def convolution(self, name, x, w, *, up=False, demodulate=True):
        weight = self.weights[f"{name}.weight"]  # [1, out, in, K, K]
        style = F.linear(w, self.weights[f"{name}.modulation.weight"] / math.sqrt(512))
        style = style + self.weights[f"{name}.modulation.bias"]
        weight = weight / math.sqrt(math.prod(weight.shape[2:])) * style[:, None, :, None, None]
        if demodulate:
            weight = weight / (weight.square().sum(dim=(2, 3, 4), keepdim=True) + 1e-8).sqrt()
        n, out, into, k, _ = weight.shape
        x = x.reshape(1, n * into, *x.shape[2:])
        if up:
            weight = weight.transpose(1, 2).reshape(n * into, out, k, k)
            x = F.conv_transpose2d(x, weight, stride=2, groups=n)
            x = F.conv2d(F.pad(x, (1, 1, 1, 1)).transpose(0, 1), KERNEL[None, None]).transpose(0, 1)
        else:
            x = F.conv2d(x, weight.reshape(n * out, into, k, k), padding=k // 2, groups=n)
        return x.reshape(n, out, *x.shape[2:])

    def layer(self, name, x, w, noise, *, up=False):
        x = self.convolution(f"{name}.conv", x, w, up=up) + self.weights[f"{name}.noise.weight"] * noise
        return math.sqrt(2) * F.leaky_relu(x + self.weights[f"{name}.activate.bias"].view(1, -1, 1, 1), 0.2)

    def image(self, name, x, w):
        return self.convolution(f"{name}.conv", x, w, demodulate=False) + self.weights[f"{name}.bias"]

    def upsampled(self, image):
        n, c, h, w = image.shape
        zeros = image.new_zeros(n, c, 2 * h, 2 * w)
        zeros[:, :, ::2, ::2] = image
        return F.conv2d(F.pad(zeros, (2, 1, 2, 1)).flatten(0, 1)[:, None], KERNEL[None, None]).view(n, c, 2 * h, 2 * w)

    def __call__(self, w_plus, noise):
        x = self.layer("conv1", self.weights["input.input"].repeat(len(w_plus), 1, 1, 1), w_plus[:, 0], noise[0])
        image = self.image("to_rgb1", x, w_plus[:, 1])
        for i in range(self.blocks):
            j = 2 * i + 1
            x = self.layer(f"convs.{2 * i}", x, w_plus[:, j], noise[j], up=True)
            x = self.layer(f"convs.{2 * i + 1}", x, w_plus[:, j + 1], noise[j + 1])
            image = self.upsampled(image) + self.image(f"to_rgbs.{i}", x, w_plus[:, j + 2])
        return image


def saved(path, weights, **kwargs):
    torch.save({"g_ema": weights}, path, **kwargs)
    return path


def draw(generator, batch, dtype=torch.float64):
    source = torch.Generator().manual_seed(5)
    w = torch.randn(batch, 512, generator=source, dtype=dtype)
    noise = [torch.randn(batch, 1, *shape, generator=source, dtype=dtype) for shape in generator.noise_shapes]
    return w, noise


@pytest.fixture(scope="module")
def generator(narrow, weights_of, tmp_path_factory):
    return read_stylegan2(saved(tmp_path_factory.mktemp("g") / "g.pt", weights_of(narrow)))[0]


@pytest.mark.parametrize("size", [64, 128])
def test_equals_the_reference_with_gradients(narrow, weights_of, tmp_path, size):
    config = replace(narrow, size=size)
    weights = weights_of(config)
    generator, _ = read_stylegan2(saved(tmp_path / "g.pt", weights), torch.float64)
    reference = ReferenceGenerator(weights, size)
    z, noise = draw(generator, 2)
    torch.testing.assert_close(generator.map(z), reference.map(z), rtol=1e-10, atol=1e-12)
    w = generator.map(z)
    plus = w[:, None] + 0.3 * torch.randn(2, generator.latent_rows, 512, dtype=torch.float64)
    for latents, theirs in ((w, w[:, None].expand(-1, generator.latent_rows, -1)), (plus, plus)):
        results = []
        for network, given in ((generator, latents), (reference, theirs)):
            leaves = [tensor.clone().requires_grad_() for tensor in (given, *noise)]
            image = network(leaves[0], leaves[1:])
            results.append([image, *torch.autograd.grad(image.sin().sum(), leaves)])
        if latents is w:
            results[1][1] = results[1][1].sum(dim=1)  # every row of w+ is w
        for one, other in zip(*results, strict=True):
            assert other.abs().max() > 0
            torch.testing.assert_close(one, other, rtol=1e-8, atol=1e-9)


def test_compiled_equals_eager_with_gradients(generator, tmp_path):
    torchscript.save(generator, tmp_path / "generator.pt")
    compiled = torchscript.load(tmp_path / "generator.pt", "cpu", keep=GENERATOR_INTERFACE)
    assert compiled.noise_shapes == generator.noise_shapes == [[4, 4]] + [[r, r] for r in (8, 16, 32, 64) for _ in "12"]
    w, noise = draw(generator, 2, torch.float32)
    torch.testing.assert_close(compiled.map(w), generator.map(w))
    torch.testing.assert_close(compiled.render(w, noise, 64), generator.render(w, noise, 64), rtol=1e-4, atol=1e-4)
    results = []
    for network in (generator, compiled):
        for _ in range(3):  # TorchScript specialises its graph in the first calls
            leaves = [tensor.clone().requires_grad_() for tensor in (w, *noise)]
            image = network(leaves[0], leaves[1:])
            gradients = torch.autograd.grad(image.square().sum(), leaves)
        results.append([image, *gradients])
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4 * float(one.detach().norm()))


def test_items_of_a_batch_are_independent(generator):
    w, noise = draw(generator, 4, torch.float32)
    images = generator(w, noise)
    for i in range(4):
        alone = generator(w[i : i + 1], [level[i : i + 1] for level in noise])
        torch.testing.assert_close(alone, images[i : i + 1], rtol=1e-4, atol=1e-4)


def test_larger_images_can_be_rendered_in_two_sizes(narrow, weights_of, tmp_path):
    weights = weights_of(replace(narrow, size=512, max_width=2))
    generator, _ = read_stylegan2(saved(tmp_path / "g.pt", weights))
    assert (generator.optimise_size, generator.sizes) == (512, [256, 512])
    assert generator.noise_shapes[-1] == [512, 512]
    w, noise = draw(generator, 1, torch.float32)
    full = generator.render(w, noise, 512)
    torch.testing.assert_close(generator.render(w, noise, 256), F.avg_pool2d(full, 2))
    torch.testing.assert_close(generator(w, noise), full)
    with pytest.raises(ValueError, match=r"size must be one of \[256, 512\], got 128"):
        generator.render(w, noise, 128)


def test_inputs_of_another_shape_are_rejected(generator):
    w, noise = draw(generator, 1, torch.float32)
    with pytest.raises(ValueError, match=r"w must be \[N, 512\] or \[N, 10, 512\]"):
        generator(w[:, None], noise)
    with pytest.raises(ValueError, match="takes 9 noise maps, got 8"):
        generator(w, noise[1:])
    with pytest.raises(ValueError, match=r"a noise map must be \[N, 1, 4, 4\]"):
        generator(w, [noise[1], *noise[1:]])


@pytest.mark.parametrize(("size", "multiplier"), [(64, 2), (256, 2), (1024, 1), (1024, 2)])
def test_the_configuration_is_inferred_from_the_shapes(weights_of, tmp_path, size, multiplier):
    config = StyleGAN2Config(size, multiplier, max_width=24)
    generator, contents = read_stylegan2(saved(tmp_path / "g.pt", weights_of(config, noise=False)))
    assert contents.config == config
    assert generator.optimise_size == size


def test_optional_entries_are_reported(narrow, weights_of, tmp_path):
    weights = weights_of(narrow, kernels=True)
    del weights["noises.noise_3"]
    _, contents = read_stylegan2(saved(tmp_path / "g.pt", weights))
    assert len(contents.noise_buffers) == 8
    assert "noises.noise_3" not in contents.noise_buffers
    assert contents.blur_kernels[0] == "convs.0.conv.blur.kernel"
    assert len(contents.blur_kernels) == 8
    assert "ignored: 8 of 9 noise buffers, 8 blur kernels" in str(contents)


def test_old_and_multi_gpu_files_are_read(narrow, weights_of, tmp_path):
    weights = {f"module.{key}": value for key, value in weights_of(narrow).items()}
    read_stylegan2(saved(tmp_path / "g.pt", weights, _use_new_zipfile_serialization=False))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"convs.0.conv.weight": None}, r"StyleGAN2 of 64 pixels\. missing: convs\.0\.conv\.weight"),
        ({"convs.8.noise.weight": torch.ones(1)}, r"unexpected: convs\.8\.noise\.weight"),
        ({"style.9.weight": torch.ones(512, 512)}, r"unexpected: style\.9\.weight"),
        ({"conv1.activate.bias": torch.ones(3)}, r"wrong shape: conv1\.activate\.bias \[3\] instead of \[12\]"),
        ({"to_rgb1.bias": torch.full((1, 3, 1, 1), math.nan)}, r"not finite: to_rgb1\.bias"),
        ({"noises.noise_1": torch.ones(1, 1, 4, 4)}, r"wrong shape: noises\.noise_1"),
        ({"to_rgbs.0.upsample.kernel": torch.ones(4, 4)}, r"kernel must be the kernel \[1, 3, 3, 1\]"),
        ({"to_rgbs.3.conv.weight": None}, r"64 to 1024 pixels, got one of 32"),
        ({"input.input": None}, "must contain the learned input"),
    ],
)
def test_other_weights_are_rejected_by_name(narrow, weights_of, tmp_path, change, message):
    weights = {key: value for key, value in (weights_of(narrow) | change).items() if value is not None}
    with pytest.raises(CheckpointError, match=message) as caught:
        read_stylegan2(saved(tmp_path / "g.pt", weights))
    assert str(caught.value).count("\n") == 0


def test_files_that_are_not_checkpoints_are_rejected(narrow, weights_of, tmp_path):
    path = saved(tmp_path / "g.pt", weights_of(narrow))
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(CheckpointError, match=r"g\.pt must be a torch file of plain tensors"):
        read_stylegan2(path)
    torch.save({"g_ema": print}, path)
    with pytest.raises(CheckpointError, match=r"g\.pt must be a torch file of plain tensors"):
        read_stylegan2(path)
    torch.save({"g": {}}, path)
    with pytest.raises(CheckpointError, match=r'must be \{"g_ema": state_dict, …\}; its keys are g'):
        read_stylegan2(path)
    torch.save({"g_ema": {}}, path)
    with pytest.raises(CheckpointError, match="64 to 1024 pixels, got one of 4"):
        read_stylegan2(path)
    with pytest.raises(FileNotFoundError):
        read_stylegan2(tmp_path / "nowhere.pt")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 32}, "size must be one of 64, 128, 256, 512, 1024, got 32"),
        ({"channel_multiplier": 3}, "channel_multiplier must be 1 or 2, got 3"),
        ({"max_width": 0}, "max_width must be at least 1, got 0"),
    ],
)
def test_invalid_options_are_rejected(options, message):
    with pytest.raises(ValueError, match=message):
        StyleGAN2Config(**options)


def test_widths_are_the_published_ones():
    assert StyleGAN2Config(1024).widths == [512, 512, 512, 512, 512, 256, 128, 64, 32]
    assert StyleGAN2Config(256, 1).widths == [512, 512, 512, 512, 256, 128, 64]
    assert StyleGAN2Config(256).latent_rows == 14
