"""Identity loss of GAN inversion: how far two faces are apart for a network that tells people apart."""

from torch import Tensor, nn

from voicestyle.face_networks import FaceNetwork


class IdentityLoss(nn.Module):
    """1 − the dot product of two identity embeddings, for aligned images of 256 pixels."""

    def __init__(self, network: FaceNetwork) -> None:
        super().__init__()
        self._network = network

    def embed(self, images: Tensor) -> Tensor:
        """Images [N, 3, 256, 256] in [-1, 1] to unit vectors [N, E]. Raises ValueError for another shape."""
        return self._network.embed(images)

    def forward(self, images: Tensor, target_embeddings: Tensor) -> Tensor:
        """The loss [N] of images [N, 3, 256, 256], given the `embed` of the targets [N, E]."""
        return 1 - (self.embed(images) * target_embeddings).sum(dim=1)
