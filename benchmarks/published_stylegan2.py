"""StyleGAN2 (arXiv 1912.04958) as usually published: the baseline of `voicestyle.generators`, in speed and in output.

A modulated convolution makes each item's own weights from its style, and one grouped convolution applies them all.
Weights keep their equalised learning rate: its constants are multiplied in at each use. No parameter is frozen.
Written from the paper and the numbers of this project's design.
"""

import math
from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SLOPE = 0.2
GAIN = math.sqrt(2)
EPS = 1e-8
BLUR = (1.0, 3.0, 3.0, 1.0)

Weights = Mapping[str, Tensor]


class EqualisedLinear(nn.Module):
    """A linear layer whose weights are scaled at each use."""

    def __init__(self, weights: Weights, name: str) -> None:
        super().__init__()
        self.weight = nn.Parameter(weights[f"{name}.weight"].clone())
        self.bias = nn.Parameter(weights[f"{name}.bias"].clone())
        self.scale = 1 / math.sqrt(self.weight.shape[1])

    def forward(self, x: Tensor) -> Tensor:
        """[N, in] to [N, out]."""
        return F.linear(x, self.weight * self.scale, self.bias)


class Blur(nn.Module):
    """The filter [1, 3, 3, 1] in both directions, on each channel, after an upsampling; its weights sum to 4."""

    kernel: Tensor

    def __init__(self) -> None:
        super().__init__()
        taps = torch.tensor(BLUR)
        self.register_buffer("kernel", torch.outer(taps, taps)[None, None] * (4 / taps.sum() ** 2))

    def forward(self, x: Tensor, before: int, after: int) -> Tensor:
        """Filter x [N, C, H, W], padded with zeros before and after in both directions."""
        x = F.pad(x, (before, after, before, after))
        items, channels, height, width = x.shape
        x = F.conv2d(x.reshape(items * channels, 1, height, width), self.kernel)
        return x.reshape(items, channels, x.shape[2], x.shape[3])


class ModulatedConv(nn.Module):
    """A convolution with separate weights for each item."""

    def __init__(self, weights: Weights, name: str, *, demodulate: bool = True, upsample: bool = False) -> None:
        super().__init__()
        self.weight = nn.Parameter(weights[f"{name}.weight"].clone())  # [1, out, in, K, K]
        self.modulation = EqualisedLinear(weights, f"{name}.modulation")
        self.scale = 1 / math.sqrt(math.prod(self.weight.shape[2:]))
        self.demodulate = demodulate
        self.blur = Blur() if upsample else None

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        """x [N, in, H, W] and w [N, 512] to [N, out, H, W], or to twice the height and width if upsampling."""
        items, channels, height, width = x.shape
        style = self.modulation(w)[:, None, :, None, None]
        weight = self.scale * self.weight * style  # [N, out, in, K, K]
        if self.demodulate:
            weight = weight * torch.rsqrt(weight.square().sum(dim=(2, 3, 4), keepdim=True) + EPS)
        out_channels, kernel = weight.shape[1], weight.shape[-1]
        x = x.reshape(1, items * channels, height, width)
        if self.blur is None:
            weight = weight.reshape(items * out_channels, channels, kernel, kernel)
            x = F.conv2d(x, weight, padding=kernel // 2, groups=items)
        else:
            weight = weight.transpose(1, 2).reshape(items * channels, out_channels, kernel, kernel)
            x = self.blur(F.conv_transpose2d(x, weight, stride=2, groups=items), 1, 1)
        return x.reshape(items, out_channels, x.shape[2], x.shape[3])


class StyledConv(nn.Module):
    """Modulated convolution, noise, bias and activation as separate operations."""

    def __init__(self, weights: Weights, name: str, *, upsample: bool = False) -> None:
        super().__init__()
        self.conv = ModulatedConv(weights, f"{name}.conv", upsample=upsample)
        self.noise_weight = nn.Parameter(weights[f"{name}.noise.weight"].clone())
        self.bias = nn.Parameter(weights[f"{name}.activate.bias"].clone())

    def forward(self, x: Tensor, w: Tensor, noise: Tensor) -> Tensor:
        """x [N, in, H, W], w [N, 512] and noise [N, 1, R, R] to [N, out, R, R]."""
        x = self.conv(x, w) + self.noise_weight * noise
        return F.leaky_relu(x + self.bias[None, :, None, None], SLOPE) * GAIN


class ToImage(nn.Module):
    """A layer's contribution to the image."""

    def __init__(self, weights: Weights, name: str) -> None:
        super().__init__()
        self.conv = ModulatedConv(weights, f"{name}.conv", demodulate=False)
        self.bias = nn.Parameter(weights[f"{name}.bias"].clone())
        self.blur = Blur()

    def forward(self, x: Tensor, w: Tensor, image: Tensor | None) -> Tensor:
        """x [N, C, R, R] and the image of the layers before [N, 3, R / 2, R / 2] to an image [N, 3, R, R]."""
        added = self.conv(x, w) + self.bias
        return added if image is None else added + self.blur(_insert_zeros(image), 2, 1)


class StyleGAN2(nn.Module):
    """The synthesis network: w [N, 512] and noise maps [N, 1, R, R] to images [N, 3, S, S], mostly in [-1, 1].

    weights: the `g_ema` of a published file. Raises KeyError for a missing name.
    """

    def __init__(self, weights: Weights) -> None:
        super().__init__()
        self.input = nn.Parameter(weights["input.input"].clone())
        blocks = sum(key.startswith("to_rgbs.") and key.endswith("conv.weight") for key in weights)
        convs = [StyledConv(weights, f"convs.{i}", upsample=i % 2 == 0) for i in range(2 * blocks)]
        self.convs = nn.ModuleList([StyledConv(weights, "conv1"), *convs])
        images = [ToImage(weights, f"to_rgbs.{i}") for i in range(blocks)]
        self.to_images = nn.ModuleList([ToImage(weights, "to_rgb1"), *images])

    def forward(self, w: Tensor, noise: Sequence[Tensor]) -> Tensor:
        """`noise` holds one map for each convolution."""
        x = self.input.repeat(w.shape[0], 1, 1, 1)
        image: Tensor | None = None
        for i, (conv, level) in enumerate(zip(self.convs, noise, strict=True)):
            x = conv(x, w, level)
            if i % 2 == 0:
                image = self.to_images[i // 2](x, w, image)
        assert image is not None, "a generator has at least one convolution"
        return image


def _insert_zeros(image: Tensor) -> Tensor:
    """Insert a zero after every pixel in both directions: [N, 3, R, R] to [N, 3, 2R, 2R]."""
    items, channels, height, width = image.shape
    spread = F.pad(image[:, :, :, None, :, None], (0, 1, 0, 0, 0, 1))
    return spread.reshape(items, channels, 2 * height, 2 * width)
