"""The inverse Haar transform against transposed convolutions, with gradients, in float64."""

import torch
from torch import Tensor
from torch.nn import functional

from voicestyle.generators.haar import haar, inverse_haar


def inverse_haar_by_convolution(subbands: Tensor) -> Tensor:
    """The reference: a sum of 2×2 patterns weighted by the coefficients, [N, 4·C, H, W] to [N, C, 2·H, 2·W]."""
    patterns = torch.tensor(
        [[[1, 1], [1, 1]], [[1, 1], [-1, -1]], [[1, -1], [1, -1]], [[1, -1], [-1, 1]]], dtype=subbands.dtype
    )
    n, channels, height, width = subbands.shape
    by_channel = subbands.reshape(n, 4, channels // 4, height, width).transpose(1, 2)
    return functional.conv_transpose2d(
        by_channel.reshape(n, channels, height, width),
        patterns.repeat(channels // 4, 1, 1)[:, None],
        stride=2,
        groups=channels // 4,
    )


def test_equals_transposed_convolution_with_gradients() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 12, 5, 3, dtype=torch.float64, generator=generator, requires_grad=True)
    cotangent = torch.randn(2, 3, 10, 6, dtype=torch.float64, generator=generator)
    results = []
    for transform in (inverse_haar, inverse_haar_by_convolution):
        image = transform(x)
        (grad,) = torch.autograd.grad((image * cotangent).sum(), x)
        results.append((image, grad))
    torch.testing.assert_close(results[0], results[1], rtol=0, atol=1e-14)


def test_gradients_pass_gradcheck() -> None:
    x = torch.randn(1, 8, 2, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    assert torch.autograd.gradcheck(inverse_haar, x.requires_grad_())


def test_haar_inverts_inverse_haar() -> None:
    x = torch.randn(2, 8, 3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    torch.testing.assert_close(haar(inverse_haar(x)), x, rtol=0, atol=1e-14)


def test_low_pass_band_alone_repeats_its_pixels() -> None:
    x = torch.zeros(1, 4, 2, 2)
    x[:, 0] = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    assert inverse_haar(x)[0, 0].tolist() == [[1, 1, 2, 2], [1, 1, 2, 2], [3, 3, 4, 4], [3, 3, 4, 4]]


def test_channels_last_layout_is_preserved() -> None:
    x = torch.randn(1, 32, 4, 4).to(memory_format=torch.channels_last)
    image = inverse_haar(x)
    assert image.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(image, inverse_haar_by_convolution(x))
