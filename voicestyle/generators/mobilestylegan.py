"""MobileStyleGAN (arXiv 2104.04767), a small student of StyleGAN2 that keeps its latent space.

Each block upsamples by an inverse Haar transform and applies two convolutions, depthwise then pointwise. A style,
an affine function of w, scales the channels before each of them; what scaled the outputs (demodulation) is part
of the weights. The noise maps are constants of the published network, so w is the only variable.

The network makes 1024 pixels. The optimisation needs 256, and the features at 128 already determine them: the
head takes them to the Haar subbands of the 256-pixel image, which leaves out the two costliest blocks.
"""

from dataclasses import dataclass
from itertools import pairwise
from typing import List  # noqa: UP035  (TorchScript reads the annotations of the generator)

import torch
from torch import Tensor, nn
from torch.nn import functional

from voicestyle.generators.haar import inverse_haar

LATENT_DIM = 512
BASE_SIZE = 4  # pixels of the learned input
SLOPE = 0.2


@dataclass(frozen=True)
class MobileStyleGANConfig:
    """The published network by default. A block doubles the size, and so does the last transform to an image."""

    base_width: int = 512  # channels of the learned input, 4 pixels
    widths: tuple[int, ...] = (512, 512, 512, 512, 256, 128, 64)  # channels after each block: 8 … 512 pixels
    head_blocks: int = 5  # the head reads the features after so many of them: 128 pixels
    head_widths: tuple[int, int] = (128, 64)  # channels of its hidden layers

    def __post_init__(self) -> None:
        if not 1 <= self.head_blocks < len(self.widths):
            raise ValueError(f"head_blocks must be in 1 … {len(self.widths) - 1}, got {self.head_blocks}")
        if min(self.head_widths) < 1:
            raise ValueError(f"head_widths must be positive, got {self.head_widths}")
        for width in (self.base_width, *self.widths):
            if width < 4 or width % 4:
                raise ValueError(f"every width must be a positive multiple of 4, got {width}")

    @property
    def optimise_size(self) -> int:
        """Pixels of the head's image."""
        return BASE_SIZE * 2 ** (self.head_blocks + 1)

    @property
    def render_size(self) -> int:
        """Pixels of the whole network's image."""
        return BASE_SIZE * 2 ** (len(self.widths) + 1)


def modulate(x: Tensor, style: Tensor) -> Tensor:
    """Scale the channels of x [N, C, H, W] by style [N, C], in the dtype of x."""
    return x * style.to(x.dtype)[:, :, None, None]


class MappingNetwork(nn.Module):
    """z to w: normalise z, then eight linear layers. The gain √2 of each activation is part of its weights."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(LATENT_DIM, LATENT_DIM) for _ in range(8))
        self.activation = nn.LeakyReLU(SLOPE)

    def forward(self, z: Tensor) -> Tensor:
        """z, w: [N, 512]."""
        x = z * torch.rsqrt(z.square().mean(dim=1, keepdim=True) + 1e-8)
        for layer in self.layers:
            x = self.activation(layer(x))
        return x


class NoisyActivation(nn.Module):
    """Add the fixed noise map, the same for all channels, and apply the leaky ReLU."""

    noise: Tensor

    def __init__(self, size: int) -> None:
        super().__init__()
        self.register_buffer("noise", torch.zeros(1, 1, size, size))
        self.activation = nn.LeakyReLU(SLOPE, inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        """x: [N, C, size, size], overwritten."""
        return self.activation(x.add_(self.noise))


class SeparableConv(nn.Module):
    """3×3 depthwise, 1×1 pointwise, noise, activation. The caller has applied the style."""

    def __init__(self, in_channels: int, out_channels: int, size: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(in_channels, in_channels, 3, padding=1, groups=in_channels, bias=False)
        self.pointwise = nn.Conv2d(in_channels, out_channels, 1)
        self.activation = NoisyActivation(size)

    def forward(self, x: Tensor) -> Tensor:
        """[N, in_channels, size, size] to [N, out_channels, size, size]."""
        return self.activation(self.pointwise(self.depthwise(x)))


class Block(nn.Module):
    """Twice the size: inverse Haar transform and two separable convolutions, all modulated by w."""

    def __init__(self, in_channels: int, out_channels: int, size: int) -> None:
        super().__init__()
        self.style_up = nn.Linear(LATENT_DIM, in_channels)
        self.style1 = nn.Linear(LATENT_DIM, in_channels // 4)
        self.conv1 = SeparableConv(in_channels // 4, out_channels, size)
        self.style2 = nn.Linear(LATENT_DIM, out_channels)
        self.conv2 = SeparableConv(out_channels, out_channels, size)

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        """x: [N, in_channels, size / 2, size / 2]. Returns [N, out_channels, size, size]."""
        # The style of conv1 scales whole channels, so it may act on the subbands, together with that of the
        # upsampling: one pass over the features instead of two.
        style = self.style_up(w) * self.style1(w).repeat(1, 4)
        x = self.conv1(inverse_haar(modulate(x, style)))
        return self.conv2(modulate(x, self.style2(w)))


class ToImage(nn.Module):
    """Features to the subbands of an RGB image of twice their size, to the image."""

    def __init__(self, in_channels: int) -> None:
        super().__init__()
        self.style = nn.Linear(LATENT_DIM, in_channels)
        self.conv = nn.Conv2d(in_channels, 12, 1)

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        """x: [N, C, H, W]. Returns [N, 3, 2·H, 2·W]."""
        return inverse_haar(self.conv(modulate(x, self.style(w))).to(w.dtype))


class ImageHead(nn.Module):
    """Features to an image of twice their size, in place of the blocks that are left out.

    Two hidden layers of the network's own kind at the features' size, beside a linear path; what they lack in
    width they make up for by being fitted to the image (`voicestyle.training.head`).
    """

    def __init__(self, in_channels: int, widths: tuple[int, int]) -> None:
        super().__init__()
        first, second = widths
        self.style1 = nn.Linear(LATENT_DIM, in_channels)
        self.depthwise1 = nn.Conv2d(in_channels, in_channels, 3, padding=1, groups=in_channels, bias=False)
        self.direct = nn.Conv2d(in_channels, 12, 1)
        self.pointwise1 = nn.Conv2d(in_channels, first, 1)
        self.style2 = nn.Linear(LATENT_DIM, first)
        self.depthwise2 = nn.Conv2d(first, first, 3, padding=1, groups=first, bias=False)
        self.pointwise2 = nn.Conv2d(first, second, 1)
        self.style3 = nn.Linear(LATENT_DIM, second)
        self.out = nn.Conv2d(second, 12, 1)
        self.activation = nn.LeakyReLU(SLOPE)

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        """x: [N, C, H, W]. Returns [N, 3, 2·H, 2·W]."""
        x = self.depthwise1(modulate(x, self.style1(w)))
        hidden = self.activation(self.pointwise1(x))
        hidden = self.depthwise2(modulate(hidden, self.style2(w)))
        hidden = self.activation(self.pointwise2(hidden))
        subbands = self.direct(x).to(w.dtype) + self.out(modulate(hidden, self.style3(w))).to(w.dtype)
        return inverse_haar(subbands)


class MobileStyleGAN(nn.Module):
    """The generator of the demo bundle, in the form that every generator of this package has.

    `optimise_size` is the size of `forward`, `sizes` are those of `render`, both in pixels; `noise_shapes` are the
    shapes of the noise maps that a caller passes, none here. Scriptable; its own parameters take no gradient.
    """

    latent_dim: int
    optimise_size: int
    sizes: List[int]  # noqa: UP006
    noise_shapes: List[List[int]]  # noqa: UP006
    input: Tensor

    def __init__(self, config: MobileStyleGANConfig = MobileStyleGANConfig()) -> None:
        super().__init__()
        self.latent_dim = LATENT_DIM
        self.optimise_size = config.optimise_size
        self.sizes = [config.optimise_size, config.render_size]
        self.noise_shapes = []
        self.mapping = MappingNetwork()
        self.register_buffer("input", torch.zeros(1, config.base_width, BASE_SIZE, BASE_SIZE))
        self.style = nn.Linear(LATENT_DIM, config.base_width)
        self.conv = nn.Conv2d(config.base_width, config.base_width, 3, padding=1)
        self.activation = NoisyActivation(BASE_SIZE)
        widths = pairwise((config.base_width, *config.widths))
        blocks = [Block(before, after, BASE_SIZE * 2**i) for i, (before, after) in enumerate(widths, start=1)]
        self.blocks = nn.ModuleList(blocks[: config.head_blocks])
        self.render_blocks = nn.ModuleList(blocks[config.head_blocks :])
        self.to_image = ToImage(config.widths[-1])
        self.head = ImageHead(config.widths[config.head_blocks - 1], config.head_widths)
        self.requires_grad_(False)

    @torch.jit.export
    def map(self, z: Tensor) -> Tensor:
        """z: [N, 512], standard normal. Returns w: [N, 512]."""
        return self.mapping(z)

    @torch.jit.export
    def features(self, w: Tensor) -> Tensor:
        """w: [N, 512]. Returns the features that the head reads: [N, 256, 128, 128]."""
        x = self.activation(self.conv(modulate(self.input, self.style(w))))
        for block in self.blocks:
            x = block(x, w)
        return x

    @torch.jit.export
    def finish(self, features: Tensor, w: Tensor) -> Tensor:
        """features: [N, 256, 128, 128] of w: [N, 512]. Returns the whole network's image [N, 3, 1024, 1024]."""
        x = features
        for block in self.render_blocks:
            x = block(x, w)
        return self.to_image(x, w)

    def forward(self, w: Tensor, noise: List[Tensor]) -> Tensor:  # noqa: UP006
        """w: [N, 512], noise: empty. Returns the image [N, 3, 256, 256], about [-1, 1], not clamped."""
        if len(noise) != 0:
            raise ValueError(f"this generator takes no noise maps, got {len(noise)}")
        return self.head(self.features(w), w)

    @torch.jit.export
    def render(self, w: Tensor, noise: List[Tensor], size: int) -> Tensor:  # noqa: UP006
        """w: [N, 512], noise: empty. Returns [N, 3, size, size], about [-1, 1], not clamped.

        The whole network makes 1024 pixels; another size is their average. Raises ValueError when `size` is not
        in `sizes` (from TorchScript: torch.jit.Error).
        """
        if size not in self.sizes:
            raise ValueError(f"size must be one of {self.sizes}, got {size}")
        if len(noise) != 0:
            raise ValueError(f"this generator takes no noise maps, got {len(noise)}")
        image = self.finish(self.features(w), w)
        return functional.avg_pool2d(image, image.shape[-1] // size)
