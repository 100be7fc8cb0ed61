"""StyleGAN2, config F (arXiv 1912.04958), whose latents and noise maps are the variables of the optimisation.

A modulated convolution scales the weights of each item by its style. This implementation scales the input by the style
instead, runs one ordinary convolution for the whole batch, and scales the output by the demodulation factor
1 / sqrt(Σ (weight · style)²), a matrix product of squared styles with precomputed sums of squared weights. Therefore
no convolution is grouped by item, and no gradients of large weight tensors are computed.

The weights include the activation's gain √2, because a leaky ReLU commutes with positive factors.
"""

from dataclasses import dataclass
from itertools import pairwise
from typing import List, Tuple  # noqa: UP035  (TorchScript reads the annotations of the generator)

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from voicestyle.generators.latents import LATENT_DIM, SLOPE, MappingNetwork, as_w_plus

BASE_SIZE = 4  # pixels of the learned input
BLUR = (1.0, 3.0, 3.0, 1.0)

SIZES = (64, 128, 256, 512, 1024)
OPTIMISE_SIZE = 256  # larger images are pooled to this size for the face encoder


@dataclass(frozen=True)
class StyleGAN2Config:
    """size: of the image in pixels. channel_multiplier: 2 for config F, or 1. max_width: maximum number of channels."""

    size: int = 256
    channel_multiplier: int = 2
    max_width: int = 512

    def __post_init__(self) -> None:
        if self.size not in SIZES:
            raise ValueError(f"size must be one of {', '.join(map(str, SIZES))}, got {self.size}")
        if self.channel_multiplier not in (1, 2):
            raise ValueError(f"channel_multiplier must be 1 or 2, got {self.channel_multiplier}")
        if self.max_width < 1:
            raise ValueError(f"max_width must be at least 1, got {self.max_width}")

    @property
    def widths(self) -> list[int]:
        """Channels of the features at 4, 8 … size pixels."""
        doublings = (self.size // BASE_SIZE).bit_length()
        return [min(self.max_width, self.channel_multiplier * 2**14 // (BASE_SIZE * 2**i)) for i in range(doublings)]

    @property
    def latent_rows(self) -> int:
        """Number of rows of w+: one per convolution and one for the last image layer."""
        return 2 * len(self.widths)


def blur_kernel() -> Tensor:
    """The filter [4, 4] of each upsampling. It sums to 4, because three of four inputs are zero."""
    taps = torch.tensor(BLUR)
    return torch.outer(taps, taps) * (4 / taps.sum() ** 2)


class ModulatedConv(nn.Module):
    """3×3 convolution modulated by w, noise, bias and activation; optionally with upsampling to twice the size."""

    weight: Tensor
    squares: Tensor
    noise_weight: Tensor
    bias: Tensor
    blur: Tensor

    def __init__(self, in_channels: int, out_channels: int, upsample: bool = False) -> None:
        super().__init__()
        self.upsample = upsample
        self.style = nn.Linear(LATENT_DIM, in_channels)
        shape = (in_channels, out_channels) if upsample else (out_channels, in_channels)
        self.register_buffer("weight", torch.zeros(*shape, 3, 3))
        self.register_buffer("squares", torch.zeros(in_channels, out_channels))  # Σ weight² / 2; 2 is the squared gain
        self.register_buffer("noise_weight", torch.zeros(()))
        self.register_buffer("bias", torch.zeros(out_channels, 1, 1))
        self.register_buffer("blur", blur_kernel().repeat(out_channels if upsample else 0, 1, 1, 1))
        self.activation = nn.LeakyReLU(SLOPE, inplace=True)

    def forward(self, x: Tensor, w: Tensor, noise: Tensor) -> Tensor:
        """x: [N, in_channels, H, W], w: [N, 512], noise: [N or 1, 1, R, R]. Returns [N, out_channels, R, R]."""
        style = self.style(w)
        demodulation = torch.rsqrt(style.square() @ self.squares + 0.5e-8)
        x = x * style.to(x.dtype).unsqueeze(-1).unsqueeze(-1)
        if self.upsample:
            x = F.conv_transpose2d(x, self.weight, stride=2)
            x = F.conv2d(x, self.blur, padding=1, groups=x.shape[1])
        else:
            x = F.conv2d(x, self.weight, padding=1)
        noise = (self.noise_weight * noise).to(x.dtype)
        x = torch.addcmul(noise, x, demodulation.to(x.dtype).unsqueeze(-1).unsqueeze(-1))
        return self.activation(x.add_(self.bias.to(x.dtype)))


class ToImage(nn.Module):
    """Features to RGB: a 1×1 convolution modulated by w, without demodulation.

    With only three output channels, scaling the weights of each item is cheaper than scaling its features.
    """

    weight: Tensor
    bias: Tensor

    def __init__(self, in_channels: int) -> None:
        super().__init__()
        self.style = nn.Linear(LATENT_DIM, in_channels)
        self.register_buffer("weight", torch.zeros(3, in_channels))
        self.register_buffer("bias", torch.zeros(3, 1))

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        """x: [N, C, H, W], w: [N, 512]. Returns [N, 3, H, W]."""
        weight = (self.weight * self.style(w).unsqueeze(1)).to(x.dtype)  # [N, 3, C]
        # As [N, H·W, C], because the gradient of x is channels last then, like x and the gradient of the next block.
        image = torch.bmm(x.permute(0, 2, 3, 1).flatten(1, 2), weight.transpose(1, 2)).transpose(1, 2)
        return (image.to(w.dtype) + self.bias).view(-1, 3, x.shape[2], x.shape[3])


class Block(nn.Module):
    """Two modulated convolutions at twice the size, and their contribution to the image."""

    blur: Tensor

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.up = ModulatedConv(in_channels, out_channels, upsample=True)
        self.conv = ModulatedConv(out_channels, out_channels)
        self.to_image = ToImage(out_channels)
        self.register_buffer("blur", blur_kernel().repeat(3, 1, 1, 1))

    def forward(
        self,
        x: Tensor,
        image: Tensor,
        w_rows: list[Tensor],
        noise_up: Tensor,
        noise: Tensor,
    ) -> Tuple[Tensor, Tensor]:  # noqa: UP006
        """x: [N, in_channels, H, W], image: [N, 3, H, W], w_rows: 3 of [N, 512], noise: [N or 1, 1, 2·H, 2·W].

        Returns features [N, out_channels, 2·H, 2·W] and image [N, 3, 2·H, 2·W].
        """
        x = self.up(x, w_rows[0], noise_up)
        x = self.conv(x, w_rows[1], noise)
        image = F.conv_transpose2d(image, self.blur.to(image.dtype), stride=2, padding=1, groups=3)
        return x, image + self.to_image(x, w_rows[2])


class StyleGAN2(nn.Module):
    """The generator of published bundles, with the common interface of the generators (docs/bundle.md).

    Latents are w [N, 512], or w+ [N, L, 512] with one row per layer. Noise maps are a list of [N or 1, 1, R, R], one
    per convolution: one of 4 pixels, then two each of 8, 16 … size pixels; `noise_shapes` lists their [R, R].
    `optimise_size` is the image size of `forward`, `sizes` are the image sizes of `render`, in pixels. The parameters
    do not require gradients.
    """

    latent_dim: int
    latent_rows: int
    optimise_size: int
    sizes: List[int]  # noqa: UP006
    noise_shapes: List[List[int]]  # noqa: UP006

    def __init__(self, config: StyleGAN2Config = StyleGAN2Config()) -> None:
        super().__init__()
        widths = config.widths
        self.latent_dim = LATENT_DIM
        self.latent_rows = config.latent_rows
        self.optimise_size = config.size
        self.sizes = sorted({min(OPTIMISE_SIZE, config.size), config.size})
        maps = [BASE_SIZE * 2 ** ((i + 1) // 2) for i in range(2 * len(widths) - 1)]
        self.noise_shapes = [[size, size] for size in maps]
        self.mapping = MappingNetwork()
        self.register_buffer("input", torch.zeros(1, widths[0], BASE_SIZE, BASE_SIZE))
        self.conv = ModulatedConv(widths[0], widths[0])
        self.to_image = ToImage(widths[0])
        self.blocks = nn.ModuleList(Block(before, after) for before, after in pairwise(widths))
        self.requires_grad_(False)

    @torch.jit.export
    def map(self, z: Tensor) -> Tensor:
        """z: [N, 512], standard normal. Returns w: [N, 512]."""
        return self.mapping(z)

    def forward(self, w: Tensor, noise: List[Tensor]) -> Tensor:  # noqa: UP006
        """w: [N, 512] or [N, L, 512]. Returns the image [N, 3, size, size], nominally in [-1, 1], not clamped.

        Raises ValueError for latents or noise maps of another shape (in TorchScript: torch.jit.Error).
        """
        # Indexing [:, i] or [:, :, None] would add kernels to the backward pass that copy zeros.
        w_rows = list(as_w_plus(w, self.latent_rows, self.latent_dim).unbind(1))
        self._check_noise(noise)
        x = self.conv(self.input, w_rows[0], noise[0])
        image = self.to_image(x, w_rows[1])
        for i, block in enumerate(self.blocks):
            first = 2 * i + 1
            x, image = block(x, image, w_rows[first : first + 3], noise[first], noise[first + 1])
        return image

    @torch.jit.export
    def render(self, w: Tensor, noise: List[Tensor], size: int) -> Tensor:  # noqa: UP006
        """Like `forward`, average-pooled to [N, 3, size, size]. Also raises ValueError if `size` is not in `sizes`."""
        if size not in self.sizes:
            raise ValueError(f"size must be one of {self.sizes}, got {size}")
        image = self.forward(w, noise)
        return F.avg_pool2d(image, image.shape[-1] // size)

    def _check_noise(self, noise: List[Tensor]) -> None:  # noqa: UP006
        if len(noise) != len(self.noise_shapes):
            raise ValueError(f"this generator takes {len(self.noise_shapes)} noise maps, got {len(noise)}")
        for level, shape in zip(noise, self.noise_shapes):  # noqa: B905  (TorchScript knows no strict)
            if level.dim() != 4 or level.shape[1] != 1 or level.shape[2] != shape[0] or level.shape[3] != shape[1]:
                raise ValueError(f"a noise map must be [N, 1, {shape[0]}, {shape[1]}], got {level.shape}")
