"""StyleGAN2 (arXiv 1912.04958) as it is usually written: the weights of each item are modulated, nothing is frozen.

A modulated convolution makes an item's own weights from its style, and one grouped convolution applies the weights
of all items. Weights keep their equalised learning rate, whose constants are multiplied in wherever they are used.
Written from the paper and the numbers of this project's design, for comparison with `voicestyle.generators`.
"""

import math
from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SLOPE = 0.2
GAIN = math.sqrt(2)
MAPPING_LR = 0.01
MAPPING_LAYERS = 8
DEMODULATION_EPS = 1e-8
BLUR = (1.0, 3.0, 3.0, 1.0)

Weights = Mapping[str, Tensor]


class EqualisedLinear(nn.Module):
    """A linear layer whose weights are scaled at each use."""

    def __init__(self, weights: Weights, name: str, lr: float = 1.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(weights[f"{name}.weight"].clone())
        self.bias = nn.Parameter(weights[f"{name}.bias"].clone())
        self.scale = lr / math.sqrt(self.weight.shape[1])
        self.lr = lr

    def forward(self, x: Tensor) -> Tensor:
        """[N, in] to [N, out]."""
        return F.linear(x, self.weight * self.scale, self.bias * self.lr)


class Blur(nn.Module):
    """The filter [1, 3, 3, 1] in both directions, on each channel, after an upsampling: it sums to 4."""

    kernel: Tensor

    def __init__(self) -> None:
        super().__init__()
        taps = torch.tensor(BLUR)
        self.register_buffer("kernel", torch.outer(taps, taps)[None, None] * (4 / taps.sum() ** 2))

    def forward(self, x: Tensor, padding: Sequence[int]) -> Tensor:
        """x [N, C, H, W] and padding (before, after) in both directions."""
        x = F.pad(x, (*padding, *padding))
        items, channels, height, width = x.shape
        x = F.conv2d(x.reshape(items * channels, 1, height, width), self.kernel)
        return x.reshape(items, channels, x.shape[2], x.shape[3])


class ModulatedConv(nn.Module):
    """A convolution with weights of each item's own."""

    def __init__(self, weights: Weights, name: str, *, demodulate: bool = True, upsample: bool = False) -> None:
        super().__init__()
        self.weight = nn.Parameter(weights[f"{name}.weight"].clone())  # [1, out, in, K, K]
        self.modulation = EqualisedLinear(weights, f"{name}.modulation")
        self.scale = 1 / math.sqrt(math.prod(self.weight.shape[2:]))
        self.demodulate = demodulate
        self.blur = Blur() if upsample else None

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        """x [N, in, H, W], w [N, 512]. Returns [N, out, H, W], or twice the size."""
        items, channels, height, width = x.shape
        style = self.modulation(w)[:, None, :, None, None]
        weight = self.scale * self.weight * style  # [N, out, in, K, K]
        if self.demodulate:
            weight = weight * torch.rsqrt(weight.square().sum(dim=(2, 3, 4), keepdim=True) + DEMODULATION_EPS)
        out_channels, kernel = weight.shape[1], weight.shape[-1]
        x = x.reshape(1, items * channels, height, width)
        if self.blur is None:
            weight = weight.reshape(items * out_channels, channels, kernel, kernel)
            x = F.conv2d(x, weight, padding=kernel // 2, groups=items)
        else:
            weight = weight.transpose(1, 2).reshape(items * channels, out_channels, kernel, kernel)
            x = F.conv_transpose2d(x, weight, stride=2, groups=items)
            x = self.blur(x, (1, 1))
        return x.reshape(items, out_channels, x.shape[2], x.shape[3])


class StyledConv(nn.Module):
    """Modulated convolution, noise, bias, activation: an operation each."""

    def __init__(self, weights: Weights, name: str, *, upsample: bool = False) -> None:
        super().__init__()
        self.conv = ModulatedConv(weights, f"{name}.conv", upsample=upsample)
        self.noise_weight = nn.Parameter(weights[f"{name}.noise.weight"].clone())
        self.bias = nn.Parameter(weights[f"{name}.activate.bias"].clone())

    def forward(self, x: Tensor, w: Tensor, noise: Tensor) -> Tensor:
        """x [N, in, H, W], w [N, 512], noise [N, 1, R, R]. Returns [N, out, R, R]."""
        x = self.conv(x, w)
        x = x + self.noise_weight * noise
        return F.leaky_relu(x + self.bias[None, :, None, None], SLOPE) * GAIN


class ToImage(nn.Module):
    """What a layer adds to the image."""

    def __init__(self, weights: Weights, name: str) -> None:
        super().__init__()
        self.conv = ModulatedConv(weights, f"{name}.conv", demodulate=False)
        self.bias = nn.Parameter(weights[f"{name}.bias"].clone())
        self.blur = Blur()

    def forward(self, x: Tensor, w: Tensor, image: Tensor | None) -> Tensor:
        """x [N, C, R, R] and the image so far [N, 3, R / 2, R / 2] to [N, 3, R, R]."""
        added = self.conv(x, w) + self.bias
        return added if image is None else added + self.blur(_between_zeros(image), (2, 1))


class StyleGAN2(nn.Module):
    """w [N, 512] and noise maps [N, 1, R, R] to images [N, 3, S, S], about [-1, 1], not clamped.

    weights: the `g_ema` of a file, by published names; one that is missing raises KeyError.
    """

    def __init__(self, weights: Weights) -> None:
        super().__init__()
        names = [f"style.{i}" for i in range(1, MAPPING_LAYERS + 1)]
        self.mapping = nn.ModuleList(EqualisedLinear(weights, name, MAPPING_LR) for name in names)
        self.input = nn.Parameter(weights["input.input"].clone())
        blocks = sum(key.startswith("to_rgbs.") and key.endswith("conv.weight") for key in weights)
        convs = [StyledConv(weights, f"convs.{i}", upsample=i % 2 == 0) for i in range(2 * blocks)]
        self.convs = nn.ModuleList([StyledConv(weights, "conv1"), *convs])
        images = [ToImage(weights, f"to_rgbs.{i}") for i in range(blocks)]
        self.to_images = nn.ModuleList([ToImage(weights, "to_rgb1"), *images])

    def map(self, z: Tensor) -> Tensor:
        """z [N, 512], standard normal, to w [N, 512]."""
        x = z * torch.rsqrt(z.square().mean(dim=1, keepdim=True) + 1e-8)
        for layer in self.mapping:
            x = F.leaky_relu(layer(x), SLOPE) * GAIN
        return x

    def forward(self, w: Tensor, noise: Sequence[Tensor]) -> Tensor:
        """One noise map for each convolution."""
        x = self.input.repeat(w.shape[0], 1, 1, 1)
        image: Tensor | None = None
        for i, (conv, level) in enumerate(zip(self.convs, noise, strict=True)):
            x = conv(x, w, level)
            if i % 2 == 0:
                image = self.to_images[i // 2](x, w, image)
        assert image is not None, "a generator has at least one convolution"
        return image


def _between_zeros(image: Tensor) -> Tensor:
    """[N, 3, R, R] to [N, 3, 2R, 2R]: a zero after every pixel, in both directions."""
    items, channels, height, width = image.shape
    spread = F.pad(image[:, :, :, None, :, None], (0, 1, 0, 0, 0, 1))
    return spread.reshape(items, channels, 2 * height, 2 * width)
