"""What all face networks have in common: aligned images of 256 pixels in, one unit vector for each image out."""

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cmpc2.checkpoint import check_weights
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

    def load_frozen(self, source: str, weights: Mapping[str, Any], rule: str) -> None:
        """Load exactly the weights of this network, then freeze it.

        Counters of batch norms, which have no use in evaluation mode, may be missing. Raises CheckpointError, which
        starts with `source` and `rule`, for weights that do not fit.
        """
        expected = self.state_dict()
        check_tensors(source, weights)
        given = {name: value for name, value in expected.items() if name.endswith("num_batches_tracked")} | {**weights}
        check_weights(source, given, {name: list(value.shape) for name, value in expected.items()}, rule)
        self.load_state_dict(given)
        self.eval().requires_grad_(False)


def check_tensors(source: str, weights: Mapping[str, Any]) -> None:
    """Raise CheckpointError unless every value is a tensor."""
    odd = [str(name) for name, value in weights.items() if not isinstance(value, Tensor)]
    if odd:
        raise CheckpointError(f"{source} must be a state dict, which has tensors only; {odd[0]} is none")


def resize(images: Tensor, size: int) -> Tensor:
    """Images [N, C, H, W] to [N, C, size, size]: bilinear, with low-pass filtering where that makes them smaller."""
    shape = (size, size)
    return images if images.shape[2:] == shape else F.interpolate(images, shape, mode="bilinear", antialias=True)


def per_channel(values: tuple[float, float, float], like: Tensor) -> Tensor:
    """Constants of the three channels as [3, 1, 1], in the dtype and on the device of `like`."""
    return torch.tensor(values, dtype=like.dtype, device=like.device).view(3, 1, 1)
