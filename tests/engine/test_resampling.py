"""Pooling and resizing: the same bits as torch's on a CPU, and the same values by matrices elsewhere."""

import pytest
import torch
import torch.nn.functional as F

from cmpc2 import ResNet, ResNetConfig
from voicestyle import resampling
from voicestyle.engine import encoder_input
from voicestyle.resampling import apply_to_axes, average_pool, resize, resize_matrix


def with_gradient(function, images):
    images = images.clone(memory_format=torch.preserve_format).requires_grad_()
    output = function(images)
    (gradient,) = torch.autograd.grad((output * torch.linspace(-1, 1, output.numel()).view(output.shape)).sum(), images)
    return output, gradient


def images(size, dtype=torch.float32, channels_last=False, count=2):
    torch.manual_seed(size)
    drawn = torch.randn(count, 3, size, size, dtype=dtype)
    return drawn.to(memory_format=torch.channels_last) if channels_last else drawn


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize(
    ("size", "wanted"), [(1024, 256), (512, 256), (256, 256), (256, 128), (128, 64), (64, 32), (96, 32), (64, 48)]
)
def test_pooling_on_a_cpu_has_the_bits_of_adaptive_pooling(size, wanted, channels_last):
    given = images(size, channels_last=channels_last, count=1)
    ours = with_gradient(lambda each: average_pool(each, wanted), given)
    theirs = with_gradient(lambda each: F.adaptive_avg_pool2d(each, wanted), given)
    assert all(map(torch.equal, ours, theirs))


@pytest.mark.parametrize(("image_size", "encoder_size"), [(256, 256), (128, 112), (112, 112), (112, 64)])
def test_the_encoder_sees_what_published_code_shows_it(image_size, encoder_size):
    def published(given):
        pooled = F.adaptive_avg_pool2d(given, (image_size, image_size)).clamp(-1, 1)
        if encoder_size == image_size:
            return pooled
        return F.interpolate(pooled, (encoder_size, encoder_size), mode="bilinear", antialias=True)

    given = images(256)
    ours = with_gradient(lambda each: encoder_input(each, image_size, encoder_size), given)
    assert all(map(torch.equal, ours, with_gradient(published, given)))


@pytest.mark.parametrize(("size", "wanted"), [(64, 48), (173, 150), (48, 64), (96, 32), (7, 1)])
def test_matrices_resize_and_pool_like_torch(size, wanted):
    given = images(size)
    pairs = [(resize_matrix, resize)]
    if wanted < size:
        pairs.append((resampling._pooling_matrix, lambda each, wanted: F.adaptive_avg_pool2d(each, wanted)))
    for matrix, reference in pairs:
        weights = matrix(size, wanted)
        assert weights.shape == (wanted, size)
        ours = with_gradient(lambda each, weights=weights: apply_to_axes(weights, each), given)
        theirs = with_gradient(lambda each, reference=reference: reference(each, wanted), given)
        for our, their in zip(ours, theirs, strict=True):
            torch.testing.assert_close(our, their, rtol=0, atol=2e-6)


def test_off_the_cpu_a_matrix_is_made_once_and_can_be_used_with_gradients():
    with torch.inference_mode():
        resize(images(24).to("meta"), 20)
    first = resampling._on_device(resize_matrix, 24, 20, torch.device("meta"), torch.float32)
    given = images(24).to("meta").requires_grad_()
    torch.autograd.grad(resize(given, 20).sum(), given)  # raises for a matrix of inference mode
    assert resampling._on_device(resize_matrix, 24, 20, torch.device("meta"), torch.float32) is first


@pytest.mark.parametrize("embedding_dim", [16, 8, 4, 2, 5])
def test_the_embedding_of_an_encoder_has_the_bits_of_adaptive_pooling(embedding_dim):
    config = ResNetConfig(widths=(4, 4, 8, 16), depths=(1, 1, 1, 1), embedding_dim=embedding_dim)
    encoder = ResNet(3, config).eval()
    full = ResNet(3, ResNetConfig(widths=(4, 4, 8, 16), depths=(1, 1, 1, 1), embedding_dim=16)).eval()
    full.load_state_dict(encoder.state_dict())
    given = images(32)
    theirs = with_gradient(lambda each: F.adaptive_avg_pool1d(full(each)[:, None], embedding_dim)[:, 0], given)
    assert all(map(torch.equal, with_gradient(encoder, given), theirs))
