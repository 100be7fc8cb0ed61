"""Augmentation of faces that makes the face encoder invariant to background, colour, light, sharpness and small shifts.

A voice contains no information on skin tone or lighting. Each view is therefore recoloured at random, both as a whole
and separately within a soft oval over the face, so that skin cannot be recognised by its contrast to the background.
Blur, noise and rescaling make the encoder robust against pixel patterns that the optimisation could add.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

_GREY = torch.tensor([0.299, 0.587, 0.114])


@dataclass(frozen=True)
class FaceAugmentation:
    """Strengths; angles in radians, light in natural-log gain, noise on the scale of [-1, 1]. background: chance that
    what is outside the face comes from another image of the batch."""

    hue: float = 0.6
    saturation: float = 0.8
    channel_gain: float = 0.25
    brightness: float = 0.5
    oval_light: float = 0.7
    gamma: float = 0.4
    scale: float = 0.12
    shift: float = 0.06
    rotation: float = 0.15
    noise: float = 0.1
    background: float = 0.5

    def __call__(self, images: Tensor, size: int, generator: torch.Generator) -> Tensor:
        """Make random views [N, 3, size, size] of images [N, 3, H, W], both in [-1, 1]."""
        views = self._move(self._behind(images, generator), size, generator)
        # Recolour by 0 to 100 %, because the faces of the latent bank are embedded without augmentation.
        share = torch.rand(len(views), 1, 1, 1, generator=generator).sqrt()
        recoloured = self._recolour((views + 1) / 2, generator) * 2 - 1
        views = _soften(views + share * (recoloured - views), generator)
        strength = self.noise * torch.rand(len(views), 1, 1, 1, generator=generator)
        noise = torch.randn(views.shape, generator=generator, dtype=views.dtype)
        return (views + strength * noise).clamp(-1, 1)

    def _behind(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Replace what is outside the face in some images by that part of the image before in the batch."""
        face = _soft_oval(len(images), images.shape[-1], generator, radius=0.65, spread=0.05)
        kept = (torch.rand(len(images), 1, 1, 1, generator=generator) >= self.background).to(images.dtype)
        weight = torch.maximum(face, kept)
        return weight * images + (1 - weight) * images.roll(1, 0)

    def _move(self, images: Tensor, size: int, generator: torch.Generator) -> Tensor:
        count = len(images)
        angle = self.rotation * _signed(count, generator)
        scale = torch.exp(self.scale * _signed(count, generator))
        mirror = 1.0 - 2.0 * (torch.rand(count, generator=generator) < 0.5).float()
        shift = 2 * self.shift * _signed(2 * count, generator).view(2, count)
        rows = torch.stack([scale * angle.cos() * mirror, -scale * angle.sin(), shift[0]], 1)
        columns = torch.stack([scale * angle.sin() * mirror, scale * angle.cos(), shift[1]], 1)
        theta = torch.stack([rows, columns], 1).to(images.dtype)
        grid = F.affine_grid(theta, [count, 3, size, size], align_corners=False)
        return F.grid_sample(images, grid, padding_mode="reflection", align_corners=False)

    def _recolour(self, images: Tensor, generator: torch.Generator) -> Tensor:
        count, size = len(images), images.shape[-1]
        matrix = self._colour_matrix(count, generator).to(images.dtype)
        gain = torch.exp(self.brightness * _signed(count, generator)).view(-1, 1, 1, 1)
        oval = _soft_oval(count, size, generator)
        light = torch.exp(self.oval_light * _signed(count, generator).view(-1, 1, 1, 1) * oval)
        images = torch.einsum("nij,njhw->nihw", matrix, images) * (gain * light)
        offset = 0.1 * _signed(count, generator).view(-1, 1, 1, 1)
        images = (images + offset).clamp(1e-3, 1)  # the gradient of the power is unbounded at 0
        gamma = torch.exp(self.gamma * _signed(count, generator)).view(-1, 1, 1, 1)
        return images**gamma

    def _colour_matrix(self, count: int, generator: torch.Generator) -> Tensor:
        """Colour matrices [N, 3, 3]: hue rotation, then saturation (some views are grey), then a gain per channel."""
        hue = _hue_rotation(self.hue * torch.randn(count, generator=generator))
        saturation = 1.0 + self.saturation * _signed(count, generator)
        saturation = torch.where(torch.rand(count, generator=generator) < 0.15, 0.0, saturation).view(-1, 1, 1)
        grey = _GREY.expand(3, 3)
        saturate = saturation * torch.eye(3) + (1 - saturation) * grey
        gains = torch.exp(self.channel_gain * torch.randn(count, 3, 1, generator=generator))
        return gains * (saturate @ hue)


def _signed(count: int, generator: torch.Generator) -> Tensor:
    return 2 * torch.rand(count, generator=generator) - 1


def _hue_rotation(angle: Tensor) -> Tensor:
    """Rotation matrices [N, 3, 3] of RGB about the grey axis by angles [N] in radians."""
    cosine, sine = angle.cos(), angle.sin()
    same = cosine + (1 - cosine) / 3
    plus = (1 - cosine) / 3 + sine / math.sqrt(3)
    minus = (1 - cosine) / 3 - sine / math.sqrt(3)
    rows = [same, minus, plus, plus, same, minus, minus, plus, same]
    return torch.stack(rows, 1).view(-1, 3, 3)


def _soft_oval(count: int, size: int, generator: torch.Generator, radius: float = 0.5, spread: float = 0.15) -> Tensor:
    """Masks [N, 1, size, size] of an oval near the centre: 1 inside, with a soft edge to 0."""
    axis = torch.linspace(-1, 1, size)
    centre = spread * _signed(2 * count, generator).view(2, count, 1, 1)
    radii = radius + spread * _signed(count, generator).view(-1, 1, 1)
    across = (axis.view(1, 1, -1) - centre[0]) / radii
    down = (axis.view(1, -1, 1) - centre[1] - 0.1) / (1.3 * radii)
    return torch.sigmoid(6 * (1 - (across**2 + down**2).sqrt())).unsqueeze(1)


def _soften(images: Tensor, generator: torch.Generator) -> Tensor:
    """Mix half of the images with a blurred copy of themselves; the batch uses one of two strengths."""
    weight = torch.rand(len(images), 1, 1, 1, generator=generator)
    weight = torch.where(torch.rand(weight.shape, generator=generator) < 0.5, weight, 0.0)
    kernel = 3 if torch.rand(1, generator=generator) < 0.5 else 7
    blurred = F.avg_pool2d(images, kernel, 1, kernel // 2, count_include_pad=False)
    return images + weight * (blurred - images)
