"""The latent bank: for each training image its latent w and its prototype."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from voicestyle.errors import BundleError

TEMPERATURE = 0.01  # of the softmax in `weights`: a cosine larger by 0.007 doubles the weight


@dataclass(frozen=True)
class LatentBank:
    """Training images: latents w float32 [N, D] or w+ [N, L, D], assignments int32 [N] to prototypes, embeddings
    float16 [N, E] or None.

    Raises BundleError for other dtypes or shapes.
    """

    latents: NDArray[np.float32]
    assignments: NDArray[np.int32]
    embeddings: NDArray[np.float16] | None = None

    def __post_init__(self) -> None:
        expected = {"latents": ("float32", (2, 3)), "assignments": ("int32", (1,)), "embeddings": ("float16", (2,))}
        for name, (dtype, axes) in expected.items():
            array: NDArray[np.generic] | None = getattr(self, name)
            if array is None:
                continue
            if array.dtype != dtype or array.ndim not in axes or array.shape[:1] != self.latents.shape[:1]:
                raise BundleError(
                    f"{name} of the latent bank must be {dtype} with {' or '.join(map(str, axes))} axes and one row "
                    f"per latent ({list(self.latents.shape)}), got {array.dtype} {list(array.shape)}"
                )

    def __len__(self) -> int:
        return len(self.latents)

    def first_rows(self, prototypes: Sequence[int], instances: int) -> NDArray[np.intp]:
        """The first `instances` rows, in row order, that belong to `prototypes`: the published choice."""
        return self._rows_of(prototypes)[:instances]

    def nearest_rows(self, prototypes: Sequence[int], instances: int, voice: NDArray[np.float32]) -> NDArray[np.intp]:
        """The `instances` rows of `prototypes` whose face embeddings have the largest cosine to `voice` [E].

        They are in row order, so that the rounding of their mean does not depend on the order of ties.
        """
        rows = self._rows_of(prototypes)
        return np.sort(rows[np.argsort(-self._cosines(rows, voice), kind="stable")[:instances]])

    def weights(self, rows: NDArray[np.intp], voice: NDArray[np.float32]) -> NDArray[np.float32]:
        """Weights of `rows`: the softmax of their faces' cosine to `voice` [E], divided by `TEMPERATURE`."""
        cosines = self._cosines(rows, voice)
        scores = np.exp((cosines - cosines.max()) / TEMPERATURE)
        return scores / scores.sum()

    def mean(self, rows: NDArray[np.intp], weights: NDArray[np.float32] | None = None) -> NDArray[np.float32]:
        """The mean latent [D] or [L, D] of one or more `rows`, weighted by `weights`, which sum to 1."""
        if weights is None:
            return self.latents[rows].mean(axis=0, dtype=np.float32)
        return np.tensordot(weights, self.latents[rows], axes=1).astype(np.float32)

    def holds(self, prototypes: Sequence[int]) -> bool:
        """Whether any image belongs to one of `prototypes`."""
        return bool(np.isin(self.assignments, prototypes).any())

    def _cosines(self, rows: NDArray[np.intp], voice: NDArray[np.float32]) -> NDArray[np.float32]:
        if self.embeddings is None:
            raise ValueError("this latent bank has no face embeddings")
        faces = self.embeddings[rows].astype(np.float32)
        return faces @ voice / (np.linalg.norm(faces, axis=1) * np.linalg.norm(voice))

    def _rows_of(self, prototypes: Sequence[int]) -> NDArray[np.intp]:
        rows = np.flatnonzero(np.isin(self.assignments, prototypes))
        if not len(rows):
            raise ValueError(f"no image belongs to the prototypes {list(prototypes)}")
        return rows
