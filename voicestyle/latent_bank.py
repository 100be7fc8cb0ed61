"""The latent bank: one latent w for each training image, and the prototype that the image belongs to."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

TEMPERATURE = 0.01  # of the weights: twice the weight for 0.007 more cosine


@dataclass(frozen=True)
class LatentBank:
    """Training images: latents float32 [N, D], assignments int32 [N] to prototypes, embeddings [N, E] or None.

    Latents and embeddings are memory-mapped when read from files.
    """

    latents: NDArray[np.float32]
    assignments: NDArray[np.int32]
    embeddings: NDArray[np.float16] | None = None

    def __post_init__(self) -> None:
        lengths = {len(array) for array in (self.latents, self.assignments, self.embeddings) if array is not None}
        if self.latents.ndim != 2 or self.assignments.ndim != 1 or len(lengths) != 1:
            raise ValueError(
                "a latent bank is latents [N, D], assignments [N] and perhaps embeddings [N, E], got "
                f"{list(self.latents.shape)}, {list(self.assignments.shape)} and "
                f"{None if self.embeddings is None else list(self.embeddings.shape)}"
            )

    @classmethod
    def read(cls, latents: Path, assignments: Path, embeddings: Path | None = None) -> "LatentBank":
        """The .npy files of a bundle. Raises ValueError for shapes that do not belong together."""
        mapped = None if embeddings is None else np.load(embeddings, mmap_mode="r")
        return cls(np.load(latents, mmap_mode="r"), np.load(assignments), mapped)

    def __len__(self) -> int:
        return len(self.latents)

    def first_rows(self, prototypes: Sequence[int], instances: int) -> NDArray[np.intp]:
        """The first `instances` rows, in row order, of any of `prototypes`: the published choice."""
        return self._rows_of(prototypes)[:instances]

    def nearest_rows(self, prototypes: Sequence[int], instances: int, voice: NDArray[np.float32]) -> NDArray[np.intp]:
        """The `instances` rows of any of `prototypes` whose face embedding has the largest cosine to `voice` [E].

        In row order, so that their mean does not depend on how ties fall.
        """
        rows = self._rows_of(prototypes)
        return np.sort(rows[np.argsort(-self._cosines(rows, voice), kind="stable")[:instances]])

    def weights(self, rows: NDArray[np.intp], voice: NDArray[np.float32]) -> NDArray[np.float32]:
        """A weight for each of `rows`, together 1: the softmax of its face's cosine to `voice` over `TEMPERATURE`."""
        cosines = self._cosines(rows, voice)
        scores = np.exp((cosines - cosines.max()) / TEMPERATURE)
        return scores / scores.sum()

    def mean(self, rows: NDArray[np.intp], weights: NDArray[np.float32] | None = None) -> NDArray[np.float32]:
        """The mean latent [D] of `rows`, of which there must be at least one; `weights` [rows] sum to 1."""
        if weights is None:
            return self.latents[rows].mean(axis=0, dtype=np.float32)
        return (weights @ self.latents[rows]).astype(np.float32)

    def holds(self, prototypes: Sequence[int]) -> bool:
        """Whether an image belongs to any of `prototypes`."""
        return bool(np.isin(self.assignments, prototypes).any())

    def _cosines(self, rows: NDArray[np.intp], voice: NDArray[np.float32]) -> NDArray[np.float32]:
        if self.embeddings is None:
            raise ValueError("this latent bank holds no face embeddings")
        faces = self.embeddings[rows].astype(np.float32)
        return faces @ voice / (np.linalg.norm(faces, axis=1) * np.linalg.norm(voice))

    def _rows_of(self, prototypes: Sequence[int]) -> NDArray[np.intp]:
        rows = np.flatnonzero(np.isin(self.assignments, prototypes))
        if not len(rows):
            raise ValueError(f"no image belongs to any of the prototypes {list(prototypes)}")
        return rows
