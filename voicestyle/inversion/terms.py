"""The terms of an inversion's loss: each compares images with photographs in one way, item by item."""

from abc import abstractmethod
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from voicestyle.engine import TargetSpec
from voicestyle.face_networks import FaceNetwork
from voicestyle.resampling import average_pool

IMAGE_SIZE = 256  # pixels of photographs; larger images are average-pooled to it


class Term(nn.Module):
    """One distance of images to photographs. `name` is the figure's name, `factor` the term's weight in the loss."""

    name: str

    def __init__(self, factor: float = 1.0) -> None:
        super().__init__()
        self.factor = factor

    @property
    @abstractmethod
    def targets(self) -> tuple[TargetSpec, ...]:
        """The tensors that the distance needs of a photograph."""

    @abstractmethod
    def target(self, photographs: Tensor) -> list[Tensor]:
        """Photographs [N, 3, 256, 256] in [-1, 1] to tensors [N, ...] as in `targets`."""

    @abstractmethod
    def forward(self, images: Tensor, targets: Sequence[Tensor]) -> Tensor:
        """The distance [N] of images [N, 3, 256, 256] to the photographs of these targets, without the factor."""


class IdentityTerm(Term):
    """1 − the dot product of two identity embeddings."""

    name = "identity"

    def __init__(self, network: FaceNetwork, factor: float = 1.0) -> None:
        super().__init__(factor)
        self.network = network

    @property
    def targets(self) -> tuple[TargetSpec, ...]:
        """A unit vector."""
        return (TargetSpec((self.network.embedding_dim,)),)

    def target(self, photographs: Tensor) -> list[Tensor]:
        """Unit vectors [N, E]."""
        return [self.network.embed(photographs)]

    def forward(self, images: Tensor, targets: Sequence[Tensor]) -> Tensor:
        """The loss [N]."""
        return 1 - (self.network.embed(images) * targets[0]).sum(dim=1)


class PixelTerm(Term):
    """Mean squared difference of pixels over a pyramid of 256, 128, 64 and 32 pixels, averaged over its levels.

    The coarse levels have a gradient where hair or shoulders are a few pixels off.
    """

    name = "pixels"
    levels = 4

    @property
    def targets(self) -> tuple[TargetSpec, ...]:
        """The photograph."""
        return (TargetSpec((3, IMAGE_SIZE, IMAGE_SIZE)),)

    def target(self, photographs: Tensor) -> list[Tensor]:
        """The photographs themselves."""
        return [photographs]

    def forward(self, images: Tensor, targets: Sequence[Tensor]) -> Tensor:
        """The loss [N]."""
        difference = images - targets[0]
        total = difference.square().mean(dim=(1, 2, 3))
        for _ in range(1, self.levels):
            difference = F.avg_pool2d(difference, 2)
            total = total + difference.square().mean(dim=(1, 2, 3))
        return total / self.levels


class EdgeTerm(PixelTerm):
    """Mean absolute difference of the differences of neighbouring pixels, over the same pyramid.

    Squared differences of pixels leave eyes and mouths blurred; edges make them sharp.
    """

    name = "edges"

    def forward(self, images: Tensor, targets: Sequence[Tensor]) -> Tensor:
        """The loss [N]."""
        difference = images - targets[0]
        total = images.new_zeros(len(images))
        for level in range(self.levels):
            if level:
                difference = F.avg_pool2d(difference, 2)
            for axis in (2, 3):
                total = total + difference.diff(dim=axis).abs().mean(dim=(1, 2, 3))
        return total / self.levels


def resized(images: Tensor) -> Tensor:
    """Images [N, 3, S, S] at 256 pixels: larger ones are average-pooled, as published, smaller ones interpolated."""
    size = images.shape[-1]
    if size > IMAGE_SIZE:
        return average_pool(images, IMAGE_SIZE)
    return images if size == IMAGE_SIZE else F.interpolate(images, (IMAGE_SIZE, IMAGE_SIZE), mode="bilinear")


def psnr(images: Tensor, photographs: Tensor) -> Tensor:
    """Peak signal-to-noise ratio [N] in dB of images [N, 3, H, W], both clamped to [-1, 1]."""
    error = (images.clamp(-1, 1) - photographs.clamp(-1, 1)).square().mean(dim=(1, 2, 3))
    return 10 * torch.log10(4 / error)
