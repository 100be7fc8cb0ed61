"""The interfaces of the networks that the engine uses, scripted or not."""

from typing import Protocol

from torch import Tensor


class Generator(Protocol):
    """Images from latents and noise maps."""

    latent_dim: int
    noise_shapes: list[list[int]]

    def __call__(self, w: Tensor, noise: list[Tensor]) -> Tensor:
        """w [N, D] or w+ [N, L, D], and noise maps [N, 1, R, R], to images [N, 3, S, S], nominally in [-1, 1]."""
        ...


class FaceEncoder(Protocol):
    """Images [N, 3, S, S] in [-1, 1] to embeddings [N, E]."""

    def __call__(self, images: Tensor) -> Tensor:
        """Embed the images; no reduction may cross items."""
        ...
