"""Frontal replacement within a shard: which photograph of a person represents a video.

As published, it is the one whose feature has the largest dot product with a frame of the video, over all frames;
features are unit vectors here. Photographs are compared as aligned faces; frames as well, where the network needs that.
"""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from voicestyle.bank_builder.shard_task import Pixels
from voicestyle.face_networks import FaceNetwork

BATCH = 8

Read = Callable[[Path], Pixels | None]
"""A frame's file to the picture that the network takes, RGB [H, W, 3]; None if it cannot be used."""


class FrontalChooser:
    """Compares photographs and frames by a network."""

    def __init__(self, network: FaceNetwork, read: Read, device: torch.device | str) -> None:
        self.name = network.name
        self._network, self._read, self._device = network, read, torch.device(device)

    def choose(self, photographs: NDArray[np.float32], frames: Sequence[Path]) -> tuple[int, float] | None:
        """The row of `photographs` that is most similar to one of the frames, with their cosine.

        The first of equal ones; None if no frame can be used.
        """
        seen = self.embed(pixels for frame in frames if (pixels := self._read(frame)) is not None)
        if not len(seen):
            return None
        # A product of matrices could round equal rows differently, by their position.
        rows = photographs.astype(np.float64)
        similarities = np.array([(rows * frame).sum(axis=1).tolist() for frame in seen]).max(axis=0)
        return int(similarities.argmax()), float(similarities.max())

    def embed(self, pictures: Iterable[Pixels], /) -> NDArray[np.float32]:
        """Unit vectors [P, E] of pictures, RGB [H, W, 3]: aligned faces of 256 pixels where the network needs that."""
        parts: list[NDArray[np.float32]] = []
        prepared: list[Tensor] = []
        for pixels in pictures:
            prepared.append(self._network.prepare(pixels))
            if len(prepared) == BATCH:
                parts.append(self._encode(prepared))
                prepared = []
        if prepared:
            parts.append(self._encode(prepared))
        return np.concatenate(parts) if parts else np.empty((0, self._network.embedding_dim), np.float32)

    @torch.inference_mode()
    def _encode(self, images: list[Tensor]) -> NDArray[np.float32]:
        # All batches have one size, because the size may change the rounding of an item.
        batch = torch.zeros(BATCH, *images[0].shape)
        batch[: len(images)] = torch.stack(images)
        dtype = next(self._network.parameters()).dtype
        features = self._network(batch.to(self._device, dtype))[: len(images)]
        return F.normalize(features.float(), dim=1).cpu().numpy()
