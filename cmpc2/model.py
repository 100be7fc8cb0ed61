"""CMPC (IJCAI 2022, arXiv 2204.14057): voice and face encoders with a common embedding space."""

from __future__ import annotations

from torch import Tensor, nn

from cmpc2.log_mel import BANDS
from cmpc2.resnet import ResNet, ResNetConfig


class CMPC(nn.Module):
    """Both encoders. Embeddings are not normalised; their cosine is the similarity, 1 − cosine the CMPC distance."""

    def __init__(self, voice: ResNetConfig | None = None, face: ResNetConfig | None = None) -> None:
        super().__init__()
        voice, face = voice or ResNetConfig(), face or ResNetConfig()
        if voice.embedding_dim != face.embedding_dim:
            raise ValueError(
                "both encoders must share one embedding_dim; "
                f"received voice {voice.embedding_dim}, face {face.embedding_dim}"
            )
        self.voice_subnet = ResNet(1, voice)
        self.face_subnet = ResNet(3, face)

    def encode_voice(self, log_mel: Tensor) -> Tensor:
        """Embed normalised log-mels [N, 1, 64, T] as [N, embedding_dim]. Raises `ValueError` for another shape."""
        if log_mel.dim() != 4 or log_mel.shape[1:3] != (1, BANDS):
            raise ValueError(f"log_mel must be [N, 1, {BANDS}, T]; received {list(log_mel.shape)}")
        return self.voice_subnet(log_mel)

    def encode_face(self, images: Tensor) -> Tensor:
        """Embed RGB images [N, 3, H, W] in [-1, 1] as [N, embedding_dim]. Raises `ValueError` for another shape."""
        if images.dim() != 4 or images.shape[1] != 3:
            raise ValueError(f"images must be [N, 3, H, W]; received {list(images.shape)}")
        return self.face_subnet(images)

    def forward(self, log_mel: Tensor, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return (voice embeddings, face embeddings)."""
        return self.encode_voice(log_mel), self.encode_face(images)
