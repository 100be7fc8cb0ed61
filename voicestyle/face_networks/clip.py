"""The image tower of CLIP (arXiv 2103.00020): a vision transformer (arXiv 2010.11929), by default ViT-B/32.

Modules have the names of OpenAI's checkpoint. Its file, a TorchScript archive of float16 weights, is read without
executing its code; a plain state dict with the same names is read, too.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from cmpc2.checkpoint import read_checkpoint
from voicestyle.errors import CheckpointError
from voicestyle.face_networks.network import FaceNetwork, check_tensors, per_channel, resize
from voicestyle.face_networks.torchscript_weights import is_torchscript, read_torchscript_weights
from voicestyle.images import to_image

PREFIX = "visual."  # of the image tower's weights; the others belong to the text tower
MEAN = (0.48145466, 0.4578275, 0.40821073)  # of CLIP's training images in [0, 1], by channel
STD = (0.26862954, 0.26130258, 0.27577711)
HEAD_WIDTH = 64
QUICK_GELU = 1.702  # x · sigmoid(1.702 x), the approximation of GELU that OpenAI's weights were trained with


@dataclass(frozen=True)
class ClipConfig:
    """Sizes of an image tower; the defaults are those of ViT-B/32. image_size and patch in pixels."""

    image_size: int = 224
    patch: int = 32
    width: int = 768
    layers: int = 12
    embedding_dim: int = 512

    def __post_init__(self) -> None:
        if min(self.image_size, self.patch, self.width, self.layers, self.embedding_dim) < 1:
            raise CheckpointError(f"all sizes of an image tower must be at least 1, got {self}")
        if self.image_size % self.patch or self.width % HEAD_WIDTH:
            raise CheckpointError(
                f"the image size must be a multiple of the patch, and the width of {HEAD_WIDTH}, got {self}"
            )

    @classmethod
    def of_weights(cls, source: str, weights: Mapping[str, Tensor]) -> "ClipConfig":
        """The sizes of a state dict of an image tower. Raises CheckpointError if it is none."""
        try:
            width, _, patch, _ = weights["conv1.weight"].shape
            positions = len(weights["positional_embedding"]) - 1
            embedding_dim = weights["proj"].shape[1]
        except (KeyError, ValueError, IndexError, TypeError):
            raise CheckpointError(
                f"{source} must be a CLIP checkpoint with a vision transformer, with weights such as "
                f"{PREFIX}conv1.weight, {PREFIX}positional_embedding and {PREFIX}proj"
            ) from None
        layers = len({name.split(".")[2] for name in weights if name.startswith("transformer.resblocks.")})
        return cls(math.isqrt(max(positions, 0)) * patch, patch, width, layers, embedding_dim)


class _Attention(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.in_proj_weight = nn.Parameter(torch.zeros(3 * width, width))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * width))
        self.out_proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:  # [N, tokens, width]
        count, tokens, width = x.shape
        projected = F.linear(x, self.in_proj_weight, self.in_proj_bias)
        query, key, value = projected.view(count, tokens, 3, width // HEAD_WIDTH, HEAD_WIDTH).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(query, key, value)
        return self.out_proj(mixed.transpose(1, 2).reshape(count, tokens, width))


class _Mlp(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.c_fc = nn.Linear(width, 4 * width)
        self.c_proj = nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.c_fc(x)
        return self.c_proj(hidden * torch.sigmoid(QUICK_GELU * hidden))


class _ResidualBlock(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.ln_1 = nn.LayerNorm(width)
        self.attn = _Attention(width)
        self.ln_2 = nn.LayerNorm(width)
        self.mlp = _Mlp(width)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.ln_1(x))
        return x + self.mlp(self.ln_2(x))


class ClipImageEncoder(FaceNetwork):
    """Image features [N, E] of images [N, 3, S, S] in [-1, 1], compared by their cosine."""

    needs_alignment = False

    def __init__(self, config: ClipConfig | None = None, source: str = "untrained") -> None:
        super().__init__()
        self.config = config = config or ClipConfig()
        model = "ViT-B/32" if config == ClipConfig() else f"ViT, width {config.width}, patch {config.patch}"
        self.name = f"CLIP {model} ({source})"
        self.embedding_dim = config.embedding_dim
        self.register_buffer("mean", per_channel(MEAN), persistent=False)
        self.register_buffer("std", per_channel(STD), persistent=False)
        self.conv1 = nn.Conv2d(3, config.width, config.patch, stride=config.patch, bias=False)
        self.class_embedding = nn.Parameter(torch.zeros(config.width))
        positions = (config.image_size // config.patch) ** 2 + 1
        self.positional_embedding = nn.Parameter(torch.zeros(positions, config.width))
        self.ln_pre = nn.LayerNorm(config.width)
        self.transformer = nn.Module()
        self.transformer.resblocks = nn.Sequential(*(_ResidualBlock(config.width) for _ in range(config.layers)))
        self.ln_post = nn.LayerNorm(config.width)
        self.proj = nn.Parameter(torch.zeros(config.width, config.embedding_dim))

    @classmethod
    def from_state_dict(cls, weights: Mapping[str, Any], source: str = "weights in memory") -> "ClipImageEncoder":
        """The image tower among the weights of a CLIP checkpoint, in float32. Raises CheckpointError."""
        visual = {name.removeprefix(PREFIX): value for name, value in weights.items() if name.startswith(PREFIX)}
        check_tensors(source, visual)
        visual = {name: value.float() for name, value in visual.items()}
        network = cls(ClipConfig.of_weights(source, visual), source)
        network.load_frozen(source, visual, "must contain exactly the image tower of a CLIP with a vision transformer")
        return network

    @classmethod
    def read(cls, path: Path) -> "ClipImageEncoder":
        """Read OpenAI's file, such as ViT-B-32.pt, or a plain state dict. Raises CheckpointError, OSError."""
        weights = read_torchscript_weights(path) if is_torchscript(path) else read_checkpoint(path)
        return cls.from_state_dict(weights, path.name)

    def prepare(self, pixels: NDArray[np.uint8]) -> Tensor:
        """A picture uint8 [H, W, 3] as [3, S, S] float32 in [-1, 1]: shorter side to S, bicubic, then the centre."""
        size = self.config.image_size
        image = Image.fromarray(pixels)
        width, height = (max(size, size * side // min(image.size)) for side in image.size)
        left, top = round((width - size) / 2), round((height - size) / 2)
        resized = image.resize((width, height), Image.Resampling.BICUBIC)
        return to_image(np.asarray(resized.crop((left, top, left + size, top + size))))

    def crop(self, images: Tensor) -> Tensor:
        """Aligned images [N, 3, 256, 256] resized to [N, 3, S, S]; nothing is cut off."""
        return resize(images, self.config.image_size, "bicubic").clamp(-1, 1)

    def forward(self, images: Tensor) -> Tensor:
        """Images [N, 3, S, S], RGB in [-1, 1], to features [N, E], which are not unit vectors."""
        x = self.conv1(((images + 1) / 2 - self.get_buffer("mean")) / self.get_buffer("std"))
        x = x.flatten(2).transpose(1, 2)  # [N, patches, width]
        token = self.class_embedding.expand(len(x), 1, -1)
        x = self.ln_pre(torch.cat([token, x], dim=1) + self.positional_embedding)
        x = self.transformer.get_submodule("resblocks")(x)
        return self.ln_post(x[:, 0]) @ self.proj
