"""LPIPS (arXiv 1801.03924): distance of images by the features of a VGG-16 (arXiv 1409.1556).

The file forms are torchvision's VGG-16 state dict and the linear layers of the `lpips` wheel. These layers were fitted
to torchvision's weights; they do not belong to the original VGG-16.
"""

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from voicestyle.engine import TargetSpec
from voicestyle.errors import CheckpointError
from voicestyle.inversion.terms import IMAGE_SIZE, Term

MEAN = (-0.030, -0.088, -0.188)  # of images in [-1, 1], by channel
STD = (0.458, 0.448, 0.450)
STAGES = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))  # a pooling is between two stages
EPS = 1e-10


class PerceptualTerm(Term):
    """LPIPS. The features of a photograph are computed once and reused for every step.

    The dtype of the convolutions is that of the features: with bfloat16, a target takes half the memory.

    Args:
        vgg: torchvision's state dict of VGG-16; its classifier is ignored.
        linear: the weights [1, C, 1, 1] of the five linear layers, or None to weight all channels equally.
        factor: the weight of the term in the loss.

    Raises CheckpointError for missing weights or wrong shapes.
    """

    name = "perceptual"

    def __init__(self, vgg: Mapping[str, Tensor], linear: Sequence[Tensor] | None, factor: float = 1.0) -> None:
        super().__init__(factor)
        self._convolutions = nn.ModuleList()
        index, channels = 0, 3
        for stage in STAGES:
            layers = nn.ModuleList()
            for width in stage:
                layers.append(_convolution(vgg, f"features.{index}", channels, width))
                index, channels = index + 2, width  # a ReLU follows each convolution
            self._convolutions.append(layers)
            index += 1  # the pooling
        widths = [stage[-1] for stage in STAGES]
        if linear is None:
            linear = [torch.full((1, width, 1, 1), 1 / width) for width in widths]
        found, expected = [list(weight.shape) for weight in linear], [[1, width, 1, 1] for width in widths]
        if found != expected:
            raise CheckpointError(f"the linear layers of LPIPS must have shapes {expected}, got {found}")
        for number, weight in enumerate(linear):
            self.register_buffer(f"_linear{number}", weight.clone())
        self.register_buffer("_mean", torch.tensor(MEAN).view(3, 1, 1))
        self.register_buffer("_std", torch.tensor(STD).view(3, 1, 1))
        self.requires_grad_(False)

    @property
    def targets(self) -> tuple[TargetSpec, ...]:
        """The features of the five stages."""
        dtype = next(self._convolutions.parameters()).dtype
        return tuple(
            TargetSpec((stage[-1], IMAGE_SIZE >> i, IMAGE_SIZE >> i), dtype if dtype == torch.bfloat16 else None)
            for i, stage in enumerate(STAGES)
        )

    def target(self, photographs: Tensor) -> list[Tensor]:
        """Images [N, 3, H, W] in [-1, 1] to the features of the five stages, each [N, C, H, W] of unit length in C."""
        x = (photographs - self.get_buffer("_mean")) / self.get_buffer("_std")
        x = x.to(next(self._convolutions.parameters()).dtype)
        features: list[Tensor] = []
        for number, layers in enumerate(self._convolutions):
            if number:
                x = F.max_pool2d(x, 2)
            for layer in layers.children():
                x = F.relu(layer(x))
            features.append(x / (x.square().sum(dim=1, keepdim=True).sqrt() + EPS))
        return features

    def forward(self, images: Tensor, targets: Sequence[Tensor]) -> Tensor:
        """The distance [N] of images [N, 3, H, W]."""
        distance = images.new_zeros(len(images))
        for number, (ours, theirs) in enumerate(zip(self.target(images), targets, strict=True)):
            linear = self.get_buffer(f"_linear{number}").to(ours.dtype)
            distance = distance + F.conv2d((ours - theirs).square(), linear).mean(dim=(1, 2, 3), dtype=images.dtype)
        return distance


def _convolution(weights: Mapping[str, Tensor], name: str, channels: int, width: int) -> nn.Conv2d:
    layer = nn.Conv2d(channels, width, 3, padding=1)
    for part, parameter in layer.named_parameters():
        given = weights.get(f"{name}.{part}")
        if given is None or given.shape != parameter.shape:
            shape = None if given is None else list(given.shape)
            raise CheckpointError(f"VGG-16 must have {name}.{part} with shape {list(parameter.shape)}, got {shape}")
        parameter.data.copy_(given)
    return layer
