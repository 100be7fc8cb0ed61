"""MobileStyleGAN: interface, compilation, gradients and batch independence, on a small network of random weights."""

import copy
import io
from typing import Any

import pytest
import torch
from torch import Tensor

from voicestyle.generators import MobileStyleGAN, MobileStyleGANConfig

TINY = MobileStyleGANConfig(base_width=16, widths=(16, 16, 8, 8), head_blocks=2, head_widths=(8, 4))


@pytest.fixture(scope="module")
def random_generator() -> MobileStyleGAN:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        generator = MobileStyleGAN(TINY).eval()
        with torch.no_grad():
            for name, value in generator.state_dict().items():
                if name == "input" or name.endswith("noise"):
                    value.normal_()
                elif "style" in name and name.endswith("bias"):
                    value.add_(1.0)
    return generator


@pytest.fixture(scope="module")
def compiled(random_generator: MobileStyleGAN) -> torch.jit.ScriptModule:
    buffer = io.BytesIO()
    torch.jit.save(torch.jit.script(random_generator), buffer)
    buffer.seek(0)
    return torch.jit.load(buffer)


def latents(count: int) -> Tensor:
    return torch.randn(count, 512, generator=torch.Generator().manual_seed(1))


def image_and_gradient(generator: torch.nn.Module, w: Tensor) -> tuple[Tensor, Tensor]:
    w = w.clone().requires_grad_()
    image = generator(w, [])
    cotangent = torch.randn(image.shape[1:], generator=torch.Generator().manual_seed(2))
    (gradient,) = torch.autograd.grad((image * cotangent).sum(), w)
    return image.detach(), gradient


def test_has_the_common_interface(random_generator: MobileStyleGAN, compiled: torch.jit.ScriptModule) -> None:
    for generator in (random_generator, compiled):
        assert generator.latent_dim == 512
        assert generator.optimise_size == 32
        assert generator.sizes == [32, 128]
        assert generator.noise_shapes == []
        assert not any(parameter.requires_grad for parameter in generator.parameters())
        assert generator.map(latents(3)).shape == (3, 512)


def test_compiled_equals_eager_with_gradients(
    random_generator: MobileStyleGAN, compiled: torch.jit.ScriptModule
) -> None:
    w = latents(1)
    expected_image, expected_gradient = image_and_gradient(random_generator, w)
    assert expected_gradient.abs().max() > 0
    for _ in range(3):  # TorchScript specialises its graph in the first calls
        image, gradient = image_and_gradient(compiled, w)
        torch.testing.assert_close(image, expected_image, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(gradient, expected_gradient, rtol=1e-4, atol=1e-4 * expected_gradient.norm())
    with torch.no_grad():
        for size in random_generator.sizes:
            expected = random_generator.render(w, [], size)
            torch.testing.assert_close(compiled.render(w, [], size), expected, rtol=1e-5, atol=1e-6)


def test_gradient_equals_central_differences(random_generator: MobileStyleGAN) -> None:
    """Central differences in float64, on the path of the optimisation."""
    generator = copy.deepcopy(random_generator).double()
    w = latents(1).double().requires_grad_()
    (gradient,) = torch.autograd.grad(generator(w, []).square().sum(), w)
    direction = torch.nn.functional.normalize(gradient)
    with torch.no_grad():
        high, low = (generator(w + step * direction, []).square().sum() for step in (1e-5, -1e-5))
    torch.testing.assert_close((high - low) / 2e-5, (gradient * direction).sum(), rtol=1e-5, atol=0)


def test_items_of_a_batch_are_independent(random_generator: MobileStyleGAN) -> None:
    """Images and gradients, in float64."""
    generator = copy.deepcopy(random_generator).double()
    w = latents(4).double()
    images, gradients = image_and_gradient(generator, w)
    rendered = generator.render(w, [], 128)
    for i in range(4):
        image, gradient = image_and_gradient(generator, w[i : i + 1])
        torch.testing.assert_close(image, images[i : i + 1], rtol=1e-10, atol=1e-10)
        torch.testing.assert_close(gradient, gradients[i : i + 1], rtol=1e-9, atol=1e-9)
        one = generator.render(w[i : i + 1], [], 128)
        torch.testing.assert_close(one, rendered[i : i + 1], rtol=1e-10, atol=1e-10)


def test_a_smaller_size_is_average_pooled(random_generator: MobileStyleGAN) -> None:
    w = latents(1)
    pooled = torch.nn.functional.avg_pool2d(random_generator.render(w, [], 128), 4)
    torch.testing.assert_close(random_generator.render(w, [], 32), pooled)


def test_other_sizes_and_noise_maps_are_rejected(
    random_generator: MobileStyleGAN, compiled: torch.jit.ScriptModule
) -> None:
    w = latents(1)
    with pytest.raises(ValueError, match=r"size must be one of \[32, 128\], got 64"):
        random_generator.render(w, [], 64)
    with pytest.raises(torch.jit.Error, match=r"size must be one of \[32, 128\], got 64"):
        compiled.render(w, [], 64)
    for call in (random_generator, lambda w, noise: random_generator.render(w, noise, 32)):
        with pytest.raises(ValueError, match="takes no noise maps, got 1"):
            call(w, [torch.zeros(1, 1, 4, 4)])


def test_the_default_size_is_the_published_one() -> None:
    config = MobileStyleGANConfig()
    assert (config.optimise_size, config.render_size) == (256, 1024)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"head_blocks": 7}, r"head_blocks must be in 1 … 6, got 7"),
        ({"head_blocks": 0}, r"head_blocks must be in 1 … 6, got 0"),
        ({"head_widths": (8, 0)}, r"head_widths must be positive, got \(8, 0\)"),
        ({"base_width": 6}, "multiple of 4, got 6"),
        ({"widths": (8, 0)}, "head_blocks must be in 1 … 1, got 5"),
        ({"widths": (8, 0), "head_blocks": 1}, "multiple of 4, got 0"),
    ],
)
def test_invalid_options_are_rejected(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MobileStyleGANConfig(**options)


def test_w_plus_of_equal_rows_is_w(random_generator: MobileStyleGAN, compiled: torch.jit.ScriptModule) -> None:
    w, rows = latents(2), random_generator.latent_rows
    w_plus = w[:, None].repeat(1, rows, 1)
    for generator in (random_generator, compiled):
        assert torch.equal(generator(w_plus, []), generator(w, []))
        assert torch.equal(generator.render(w_plus, [], 128), generator.render(w, [], 128))


def test_each_row_of_w_plus_changes_both_images(random_generator: MobileStyleGAN) -> None:
    w_plus = latents(1)[:, None].repeat(1, random_generator.latent_rows, 1)
    small, large = random_generator(w_plus, []), random_generator.render(w_plus, [], 128)
    for row in range(random_generator.latent_rows):
        other = w_plus.clone()
        other[:, row] += latents(2)[1]
        assert not torch.allclose(random_generator(other, []), small)
        assert not torch.allclose(random_generator.render(other, [], 128), large)
    with pytest.raises(ValueError, match=r"w must be \[N, 512\] or \[N, 8, 512\]"):
        random_generator(w_plus[:, 1:], [])
