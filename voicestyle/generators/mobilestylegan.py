"""MobileStyleGAN (arXiv 2104.04767), a small network distilled from StyleGAN2, with the same latent space.

Each block upsamples with an inverse Haar transform and applies two depthwise separable convolutions. A style, an affine
function of w, scales the channels before each of them; the scaling of the outputs (demodulation) is included in the
weights. The noise maps are constants of the published network, so w is the only variable.

The network generates images of 1024 pixels. The optimisation needs 256 pixels, for which the features at 128 pixels
suffice: the head computes the Haar subbands of the 256-pixel image from them and saves the two most expensive blocks.
"""

from dataclasses import dataclass
from itertools import pairwise
from typing import List  # noqa: UP035  (TorchScript reads the annotations of the generator)

import torch
from torch import Tensor, nn
from torch.nn import functional

from voicestyle.generators.haar import inverse_haar
from voicestyle.generators.latents import LATENT_DIM, SLOPE, MappingNetwork, as_w_plus

BASE_SIZE = 4  # pixels of the learned input


@dataclass(frozen=True)
class MobileStyleGANConfig:
    """Sizes of the network; the default is the published one. Each block and the final transform double the size."""

    base_width: int = 512  # channels of the learned input, 4 pixels
    widths: tuple[int, ...] = (512, 512, 512, 512, 256, 128, 64)  # channels after each block: 8 … 512 pixels
    head_blocks: int = 5  # blocks before the head: 128 pixels
    head_widths: tuple[int, int] = (128, 64)  # channels of the head's hidden layers

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
        """Size of the head's image in pixels."""
        return BASE_SIZE * 2 ** (self.head_blocks + 1)

    @property
    def render_size(self) -> int:
        """Size of the full network's image in pixels."""
        return BASE_SIZE * 2 ** (len(self.widths) + 1)


def modulate(x: Tensor, style: Tensor) -> Tensor:
    """Multiply the channels of x [N, C, H, W] by style [N, C], in the dtype of x."""
    return x * style.to(x.dtype).unsqueeze(-1).unsqueeze(-1)


class NoisyActivation(nn.Module):
    """Add a constant noise map, the same for all channels, and apply the leaky ReLU."""

    noise: Tensor

    def __init__(self, size: int) -> None:
        super().__init__()
        self.register_buffer("noise", torch.zeros(1, 1, size, size))
        self.activation = nn.LeakyReLU(SLOPE, inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        """x: [N, C, size, size], modified in place."""
        return self.activation(x.add_(self.noise))


class SeparableConv(nn.Module):
    """3×3 depthwise and 1×1 pointwise convolution, noise, activation. The caller applies the style before."""

    def __init__(self, in_channels: int, out_channels: int, size: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(in_channels, in_channels, 3, padding=1, groups=in_channels, bias=False)
        self.pointwise = nn.Conv2d(in_channels, out_channels, 1)
        self.activation = NoisyActivation(size)

    def forward(self, x: Tensor) -> Tensor:
        """[N, in_channels, size, size] to [N, out_channels, size, size]."""
        return self.activation(self.pointwise(self.depthwise(x)))


class Block(nn.Module):
    """Inverse Haar transform to twice the size, then two separable convolutions, all modulated by w."""

    def __init__(self, in_channels: int, out_channels: int, size: int) -> None:
        super().__init__()
        self.style_up = nn.Linear(LATENT_DIM, in_channels)
        self.style1 = nn.Linear(LATENT_DIM, in_channels // 4)
        self.conv1 = SeparableConv(in_channels // 4, out_channels, size)
        self.style2 = nn.Linear(LATENT_DIM, out_channels)
        self.conv2 = SeparableConv(out_channels, out_channels, size)

    def forward(self, x: Tensor, w_rows: List[Tensor]) -> Tensor:  # noqa: UP006
        """x: [N, in_channels, size / 2, size / 2], w_rows: 3 of [N, 512]. Returns [N, out_channels, size, size]."""
        # The style of conv1 scales whole channels, so it can be applied to the subbands, in the same pass over the
        # features as the style of the upsampling.
        style = self.style_up(w_rows[0]) * self.style1(w_rows[1]).repeat(1, 4)
        x = self.conv1(inverse_haar(modulate(x, style)))
        return self.conv2(modulate(x, self.style2(w_rows[2])))


class ToImage(nn.Module):
    """Features to the Haar subbands of an RGB image of twice their size, and to that image."""

    def __init__(self, in_channels: int) -> None:
        super().__init__()
        self.style = nn.Linear(LATENT_DIM, in_channels)
        self.conv = nn.Conv2d(in_channels, 12, 1)

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        """x: [N, C, H, W]. Returns [N, 3, 2·H, 2·W]."""
        return inverse_haar(self.conv(modulate(x, self.style(w))).to(w.dtype))


class ImageHead(nn.Module):
    """Features to an image of twice their size, in place of the remaining blocks.

    Two modulated hidden layers at the size of the features, in parallel with a linear path.
    `voicestyle.training.head` fits them to the image of the full network.
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
    """The generator of the demo bundle, with the common interface of the generators (docs/bundle.md).

    Latents are w [N, 512], or w+ [N, L, 512] with one row per style up to the head's features, and one last row for
    everything after them, so that the head's image and the full network's depend on the same rows.

    `optimise_size` is the image size of `forward`, `sizes` are the image sizes of `render`, in pixels. `noise_shapes`
    is empty: this generator takes no noise maps. Its parameters do not require gradients.
    """

    latent_dim: int
    latent_rows: int
    optimise_size: int
    sizes: List[int]  # noqa: UP006
    noise_shapes: List[List[int]]  # noqa: UP006
    input: Tensor

    def __init__(self, config: MobileStyleGANConfig = MobileStyleGANConfig()) -> None:
        super().__init__()
        self.latent_dim = LATENT_DIM
        self.latent_rows = 2 + 3 * config.head_blocks
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
        """w: [N, 512] or [N, L, 512]. Returns the features before the head: [N, 256, 128, 128]."""
        # Indexing [:, i] would add kernels to the backward pass that copy zeros.
        w_rows = list(as_w_plus(w, self.latent_rows, self.latent_dim).unbind(1))
        x = self.activation(self.conv(modulate(self.input, self.style(w_rows[0]))))
        for i, block in enumerate(self.blocks):
            x = block(x, w_rows[3 * i + 1 : 3 * i + 4])
        return x

    @torch.jit.export
    def finish(self, features: Tensor, w: Tensor) -> Tensor:
        """features: [N, 256, 128, 128] of w. Returns the full network's image [N, 3, 1024, 1024]."""
        last = as_w_plus(w, self.latent_rows, self.latent_dim)[:, -1]
        x = features
        for block in self.render_blocks:
            x = block(x, [last, last, last])
        return self.to_image(x, last)

    def forward(self, w: Tensor, noise: List[Tensor]) -> Tensor:  # noqa: UP006
        """w: [N, 512] or [N, L, 512], noise: empty. Returns the head's image [N, 3, 256, 256], not clamped."""
        if len(noise) != 0:
            raise ValueError(f"this generator takes no noise maps, got {len(noise)}")
        return self.head(self.features(w), as_w_plus(w, self.latent_rows, self.latent_dim)[:, -1])

    @torch.jit.export
    def render(self, w: Tensor, noise: List[Tensor], size: int) -> Tensor:  # noqa: UP006
        """w: [N, 512] or [N, L, 512], noise: empty. Returns [N, 3, size, size], nominally in [-1, 1], not clamped.

        The full network's image of 1024 pixels is average-pooled to `size`. Raises ValueError when `size` is not in
        `sizes` (in TorchScript: torch.jit.Error).
        """
        if size not in self.sizes:
            raise ValueError(f"size must be one of {self.sizes}, got {size}")
        if len(noise) != 0:
            raise ValueError(f"this generator takes no noise maps, got {len(noise)}")
        image = self.finish(self.features(w), w)
        return functional.avg_pool2d(image, image.shape[-1] // size)
