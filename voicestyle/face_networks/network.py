"""What all face networks have in common: aligned images of 256 pixels in, one unit vector for each image out."""

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from cmpc2.checkpoint import check_weights
from voicestyle.errors import CheckpointError
from voicestyle.images import to_image

IMAGE_SIZE = 256  # pixels, of aligned images


class FaceNetwork(nn.Module):
    """A frozen network, differentiable in its input. An image's embedding does not depend on the rest of the batch.

    name: the network and the source of its weights, for reports. embedding_dim: E of `embed`. needs_alignment: whether
    `prepare` takes only faces that are aligned in the FFHQ manner.
    """

    name: str
    embedding_dim: int
    needs_alignment = True

    @abstractmethod
    def crop(self, images: Tensor) -> Tensor:
        """Aligned images [N, 3, 256, 256] in [-1, 1] to the network's own input, also in [-1, 1]."""

    def embed(self, images: Tensor) -> Tensor:
        """Aligned images [N, 3, 256, 256] in [-1, 1] to unit vectors [N, E]. Raises ValueError for another shape."""
        if images.dim() != 4 or tuple(images.shape[1:]) != (3, IMAGE_SIZE, IMAGE_SIZE):
            raise ValueError(f"images must be [N, 3, {IMAGE_SIZE}, {IMAGE_SIZE}], got {list(images.shape)}")
        return F.normalize(self(self.crop(images)), dim=1)

    def prepare(self, pixels: NDArray[np.uint8]) -> Tensor:
        """A picture uint8 [H, W, 3] as this network's input, float32 [3, S, S] in [-1, 1]: an aligned face of 256 × 256
        pixels, unless `needs_alignment` is false. Raises ValueError for another shape."""
        if pixels.shape != (IMAGE_SIZE, IMAGE_SIZE, 3):
            raise ValueError(f"aligned faces must be [{IMAGE_SIZE}, {IMAGE_SIZE}, 3], got {list(pixels.shape)}")
        return self.crop(to_image(pixels)[None])[0]

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


def resize(images: Tensor, size: int, mode: str = "bilinear") -> Tensor:
    """Images [N, C, H, W] to [N, C, size, size], with low-pass filtering where that makes them smaller."""
    if tuple(images.shape[2:]) == (size, size):
        return images
    # torch has this filter for float32 and float64 only.
    wide = images if images.dtype == torch.float64 else images.float()
    return F.interpolate(wide, (size, size), mode=mode, antialias=True).to(images.dtype)


def per_channel(values: tuple[float, float, float]) -> Tensor:
    """Constants of the three channels as [3, 1, 1], for a buffer: made in `forward`, they would stop a GPU's queue."""
    return torch.tensor(values).view(3, 1, 1)
