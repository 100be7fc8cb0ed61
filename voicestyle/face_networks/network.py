"""What all face networks have in common: aligned images of 256 pixels in, one unit vector for each image out."""

from abc import abstractmethod
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from voicestyle.errors import CheckpointError

IMAGE_SIZE = 256  # pixels, of aligned images


class FaceNetwork(nn.Module):
    """A frozen network, differentiable in its input. An image's embedding does not depend on the rest of the batch.

    name: the network and the source of its weights, for reports. embedding_dim: E of `embed`.
    """

    name: str
    embedding_dim: int

    @abstractmethod
    def crop(self, images: Tensor) -> Tensor:
        """Aligned images [N, 3, 256, 256] in [-1, 1] to the network's own input, also in [-1, 1]."""

    def embed(self, images: Tensor) -> Tensor:
        """Aligned images [N, 3, 256, 256] in [-1, 1] to unit vectors [N, E]. Raises ValueError for another shape."""
        if images.dim() != 4 or tuple(images.shape[1:]) != (3, IMAGE_SIZE, IMAGE_SIZE):
            raise ValueError(f"images must be [N, 3, {IMAGE_SIZE}, {IMAGE_SIZE}], got {list(images.shape)}")
        return F.normalize(self(self.crop(images)), dim=1)

    def load_frozen(self, weights: Mapping[str, Tensor], rule: str) -> None:
        """Load all weights, then freeze them. Raises CheckpointError with `rule` for weights that do not fit."""
        try:
            self.load_state_dict(weights)
        except RuntimeError as error:
            raise CheckpointError(f"{rule}: {' '.join(str(error).split())}") from None
        self.eval().requires_grad_(False)


def resize(images: Tensor, size: int) -> Tensor:
    """Images [N, C, H, W] to [N, C, size, size]: bilinear, with low-pass filtering where that makes them smaller."""
    shape = (size, size)
    return images if images.shape[2:] == shape else F.interpolate(images, shape, mode="bilinear", antialias=True)


def per_channel(values: tuple[float, float, float], like: Tensor) -> Tensor:
    """Constants of the three channels as [3, 1, 1], in the dtype and on the device of `like`."""
    return torch.tensor(values, dtype=like.dtype, device=like.device).view(3, 1, 1)
