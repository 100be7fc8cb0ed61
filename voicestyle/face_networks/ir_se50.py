"""IR-SE50: the ArcFace network (arXiv 1801.07698) by which GAN inversion, as published, compares identities."""

from collections.abc import Mapping
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cmpc2.checkpoint import read_checkpoint
from voicestyle.face_networks.network import FaceNetwork

CROP = (slice(35, 223), slice(32, 220))  # rows and columns of an aligned image of 256 pixels, as published
INPUT_SIZE = 112
EMBEDDING_DIM = 512
REDUCTION = 16  # of squeeze-and-excitation (arXiv 1709.01507)
STAGES = ((64, 3), (128, 4), (256, 14), (512, 3))  # channels, blocks; the first block of a stage halves the size


class _SqueezeExcitation(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.fc1 = nn.Conv2d(channels, channels // REDUCTION, 1, bias=False)
        self.fc2 = nn.Conv2d(channels // REDUCTION, channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(self.fc2(F.relu(self.fc1(x.mean(dim=(2, 3), keepdim=True)))))


class _Block(nn.Module):
    def __init__(self, channels: int, width: int, stride: int) -> None:
        super().__init__()
        if channels == width:
            self.shortcut_layer = nn.MaxPool2d(1, stride)
        else:
            self.shortcut_layer = nn.Sequential(
                nn.Conv2d(channels, width, 1, stride, bias=False), nn.BatchNorm2d(width)
            )
        self.res_layer = nn.Sequential(
            nn.BatchNorm2d(channels),
            nn.Conv2d(channels, width, 3, padding=1, bias=False),
            nn.PReLU(width),
            nn.Conv2d(width, width, 3, stride, padding=1, bias=False),
            nn.BatchNorm2d(width),
            _SqueezeExcitation(width),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.shortcut_layer(x) + self.res_layer(x)


class IrSe50(FaceNetwork):
    """Unit vectors [N, 512] of faces [N, 3, 112, 112] in [-1, 1], with the key names of `model_ir_se50.pth`."""

    embedding_dim = EMBEDDING_DIM

    def __init__(self, source: str = "untrained") -> None:
        super().__init__()
        self.name = f"ArcFace IR-SE50 ({source})"
        self.input_layer = nn.Sequential(nn.Conv2d(3, 64, 3, padding=1, bias=False), nn.BatchNorm2d(64), nn.PReLU(64))
        blocks: list[nn.Module] = []
        channels = 64
        for width, count in STAGES:
            for number in range(count):
                blocks.append(_Block(channels, width, stride=1 if number else 2))
                channels = width
        self.body = nn.Sequential(*blocks)
        self.output_layer = nn.Sequential(
            nn.BatchNorm2d(channels),
            nn.Dropout(),
            nn.Flatten(),
            nn.Linear(channels * 7 * 7, EMBEDDING_DIM),
            nn.BatchNorm1d(EMBEDDING_DIM),
        )

    @classmethod
    def from_state_dict(cls, weights: Mapping[str, Tensor], source: str = "weights in memory") -> "IrSe50":
        """The network in evaluation mode, without gradients for its parameters. Raises CheckpointError."""
        network = cls(source)
        network.load_frozen(source, weights, "must be the state dict of an IR-SE50")
        return network

    @classmethod
    def read(cls, path: Path) -> "IrSe50":
        """Read a file such as `model_ir_se50.pth`. Raises CheckpointError, OSError."""
        return cls.from_state_dict(read_checkpoint(path), path.name)

    def crop(self, images: Tensor) -> Tensor:
        """Aligned images [N, 3, 256, 256] to the faces [N, 3, 112, 112] in them, pooled as published."""
        return F.adaptive_avg_pool2d(images[:, :, CROP[0], CROP[1]], INPUT_SIZE)

    def forward(self, faces: Tensor) -> Tensor:
        """Faces [N, 3, 112, 112] in [-1, 1] to unit vectors [N, 512]."""
        x = faces.to(next(self.parameters()).dtype)
        return F.normalize(self.output_layer(self.body(self.input_layer(x))).to(faces.dtype), dim=1)
