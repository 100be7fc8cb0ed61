"""The demo's encoders: small heads, trained by this project, on networks that recognise speakers and faces.

voice  GE2E (`voicestyle.voice_networks`), then a linear layer
face   dlib's ResNet (`voicestyle.face_networks`), trained further, then a linear layer plus a small network
"""

from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from voicestyle.face_networks.dlib_resnet import CROP, EMBEDDING_DIM, INPUT_SIZE, DlibResNet
from voicestyle.resampling import apply_to_axes, resize_matrix
from voicestyle.voice_networks import Ge2e

IMAGE_SIZE: Final = 256  # pixels, of the images that the face encoder takes
VOICE_DIM: Final = 256  # components of a GE2E vector


class VoiceHead(nn.Module):
    """GE2E vectors [N, 256] to embeddings [N, E]: E − 1 linear components, and one for the sex of the voice.

    The last component is a squashed linear score: for all but the most ambiguous voices it is near one of two values,
    so that the nearest prototypes are of one sex.
    """

    def __init__(self, embedding_dim: int) -> None:
        super().__init__()
        self.linear = nn.Linear(VOICE_DIM, embedding_dim - 1)
        self.sex = nn.Linear(VOICE_DIM, 1)
        self.sex_length = nn.Parameter(torch.ones(1))

    def forward(self, vectors: Tensor) -> Tensor:
        """Embeddings of any norm."""
        return torch.cat([self.linear(vectors), self.sex_length * torch.tanh(self.sex(vectors))], dim=1)


class FaceHead(nn.Module):
    """dlib's descriptors [N, 128] to embeddings [N, E]. `mean` and `scale` standardise the descriptors."""

    mean: Tensor
    scale: Tensor

    def __init__(self, embedding_dim: int, hidden: int, dropout: float = 0.2) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(EMBEDDING_DIM))
        self.register_buffer("scale", torch.ones(EMBEDDING_DIM))
        self.linear = nn.Linear(EMBEDDING_DIM, embedding_dim)
        self.hidden = nn.Linear(EMBEDDING_DIM, hidden)
        self.dropout = nn.Dropout(dropout)
        self.out = nn.Linear(hidden, embedding_dim)

    def forward(self, descriptors: Tensor) -> Tensor:
        """Embeddings of any norm."""
        x = (descriptors - self.mean) / self.scale
        return self.linear(x) + self.out(self.dropout(F.silu(self.hidden(x))))


class VoiceEncoder(nn.Module):
    """Features of GE2E's front end [N, 1, 40, T] to embeddings [N, E]. Scriptable."""

    def __init__(self, network: Ge2e, head: VoiceHead) -> None:
        super().__init__()
        self.network, self.head = network, head

    def forward(self, features: Tensor) -> Tensor:
        """Embeddings of any norm."""
        return self.head(self.network(features))


class FaceEncoder(nn.Module):
    """Aligned images [N, 3, 256, 256] in [-1, 1] to embeddings [N, E]. Scriptable."""

    resize: Tensor

    # TorchScript sees constants of the class, none of the module.
    top: Final[int] = CROP[0].start
    bottom: Final[int] = CROP[0].stop
    left: Final[int] = CROP[1].start
    right: Final[int] = CROP[1].stop
    size: Final[int] = INPUT_SIZE

    def __init__(self, network: DlibResNet, head: FaceHead) -> None:
        super().__init__()
        self.network, self.head = network, head
        self.register_buffer("resize", resize_matrix(self.bottom - self.top, self.size), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """Embeddings of any norm."""
        faces = images[:, :, self.top : self.bottom, self.left : self.right]
        if faces.is_cpu:
            faces = F.interpolate(faces, [self.size, self.size], mode="bilinear", antialias=True)
        else:  # see voicestyle.resampling
            faces = apply_to_axes(self.resize, faces)
        return self.head(self.network(faces))
