"""What the engine minimises: an objective compares the image of each item with the item's own target.

The optimisation of a voice's face and the projection of a photograph (`voicestyle.inversion`) are one machine with two
objectives.
"""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from voicestyle.engine.encoder_input import encoder_input
from voicestyle.engine.networks import FaceEncoder


class TargetSpec(NamedTuple):
    """One tensor of a target: its shape without the axis of items, and its dtype; None is the engine's."""

    shape: tuple[int, ...]
    dtype: torch.dtype | None = None


class Objective(Protocol):
    """The loss of images against targets, and figures that are reported for every step. No reduction crosses items."""

    @property
    def figures(self) -> tuple[str, ...]:
        """Names of the reported values."""
        ...

    @property
    def targets(self) -> tuple[TargetSpec, ...]:
        """The tensors of a target."""
        ...

    def __call__(self, images: Tensor, targets: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Images [N, 3, S, S], not clamped, and targets [N, ...] to the loss [N] and its figures [N, F]."""
        ...


class VoiceObjective:
    """1 − cos(voice, face): CMPC's distance of a face to the voice that it should match (VoiceStyle, 10.1145/3671002).

    Args:
        face_encoder: embeddings from images.
        embedding_dim: their length E. A target is the voice's embedding [E], of any norm.
        image_size: larger images are average-pooled to this size before they are clamped and embedded.
        encoder_size: the face encoder's input size; images of another size are resized to it.
    """

    figures = ("similarity",)

    def __init__(
        self, face_encoder: FaceEncoder, *, embedding_dim: int, image_size: int = 256, encoder_size: int | None = None
    ) -> None:
        self._face_encoder = face_encoder
        self._image_size = image_size
        self._encoder_size = encoder_size or image_size
        self.targets = (TargetSpec((embedding_dim,)),)

    def __call__(self, images: Tensor, targets: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Images [N, 3, S, S] and voice embeddings [N, E] to the loss [N] and the similarity [N, 1]."""
        faces = self._face_encoder(encoder_input(images, self._image_size, self._encoder_size))
        similarity = (F.normalize(faces, dim=1) * F.normalize(targets[0], dim=1)).sum(dim=1)
        return 1 - similarity, similarity[:, None]
