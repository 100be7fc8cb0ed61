"""The architecture of both encoders: a ResNet with basic blocks (arXiv 1512.03385), ResNet-34 by default.

Module names are those of published checkpoints. `torch.jit.script` can compile the class.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_eval

STAGES = 4


@dataclass(frozen=True)
class ResNetConfig:
    """Size of an encoder: channels and number of basic blocks of its four stages, and the embedding's length.

    The default is ResNet-34. If `embedding_dim` is less than the last width, adjacent channels are averaged. Lists (as
    in JSON) become tuples. Raises `ValueError` for invalid numbers.
    """

    widths: tuple[int, ...] = (64, 128, 256, 512)
    depths: tuple[int, ...] = (3, 4, 6, 3)
    embedding_dim: int = 512

    def __post_init__(self) -> None:
        for name in ("widths", "depths"):
            values = tuple(getattr(self, name))
            if len(values) != STAGES or any(type(value) is not int or value < 1 for value in values):
                raise ValueError(f"{name} must be {STAGES} positive integers; received {values}")
            object.__setattr__(self, name, values)
        last = self.widths[-1]
        if type(self.embedding_dim) is not int or not 1 <= self.embedding_dim <= last:
            rule = f"embedding_dim must be an integer in 1 … {last} (the last width)"
            raise ValueError(f"{rule}; received {self.embedding_dim}")


class BasicBlock(nn.Module):
    """Two 3×3 convolutions with a shortcut."""

    def __init__(self, in_channels: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, channels, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.downsample: nn.Module | None = None
        if stride != 1 or in_channels != channels:
            shortcut = nn.Conv2d(in_channels, channels, 1, stride, bias=False)
            self.downsample = nn.Sequential(shortcut, nn.BatchNorm2d(channels))

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, in_channels, H, W] to [N, channels, ⌈H / stride⌉, ⌈W / stride⌉]."""
        shortcut = x
        if self.downsample is not None:
            shortcut = self.downsample(x)
        x = F.relu(self.bn1(self.conv1(x)), inplace=True)
        return F.relu(self.bn2(self.conv2(x)) + shortcut, inplace=True)


class ResNet(nn.Module):
    """An encoder of images or log-mels [N, C, H, W] into embeddings [N, embedding_dim], not normalised."""

    def __init__(self, in_channels: int, config: ResNetConfig | None = None) -> None:
        super().__init__()
        config = config or ResNetConfig()
        widths, depths = config.widths, config.depths
        self.embedding_dim = config.embedding_dim
        self.conv1 = nn.Conv2d(in_channels, widths[0], 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(widths[0])
        self.layer1 = _stage(widths[0], widths[0], depths[0], stride=1)
        self.layer2 = _stage(widths[0], widths[1], depths[1], stride=2)
        self.layer3 = _stage(widths[1], widths[2], depths[2], stride=2)
        self.layer4 = _stage(widths[2], widths[3], depths[3], stride=2)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        """Map x [N, C, H, W] to [N, embedding_dim], in the dtype of x, which may differ from that of the weights."""
        dtype = x.dtype
        x = x.to(self.conv1.weight.dtype)
        x = F.relu(self.bn1(self.conv1(x)), inplace=True)
        x = F.max_pool2d(x, 3, stride=2, padding=1)
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        channels = x.mean(dim=(2, 3), dtype=dtype).unsqueeze(1)  # [N, 1, C]
        # On CUDA, the gradient of adaptive pooling is not deterministic.
        if channels.shape[2] % self.embedding_dim == 0:
            return F.avg_pool1d(channels, channels.shape[2] // self.embedding_dim).squeeze(1)
        return F.adaptive_avg_pool1d(channels, self.embedding_dim).squeeze(1)


def _stage(in_channels: int, channels: int, depth: int, stride: int) -> nn.Sequential:
    first = BasicBlock(in_channels, channels, stride)
    return nn.Sequential(first, *(BasicBlock(channels, channels, 1) for _ in range(depth - 1)))


def fold_batch_norm(encoder: ResNet) -> ResNet:
    """Copy an encoder in evaluation mode and merge each batch normalisation into the convolution before it."""
    folded = copy.deepcopy(encoder)
    for module in folded.modules():
        for conv, norm in (("conv1", "bn1"), ("conv2", "bn2"), ("0", "1")):  # "0" and "1" are in a shortcut
            convolution, normalisation = getattr(module, conv, None), getattr(module, norm, None)
            if isinstance(convolution, nn.Conv2d) and isinstance(normalisation, nn.BatchNorm2d):
                setattr(module, conv, fuse_conv_bn_eval(convolution, normalisation))
                setattr(module, norm, nn.Identity())
    return folded
