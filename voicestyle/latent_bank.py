"""The latent bank: one latent w for each training image, and the prototype that the image belongs to."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class LatentBank:
    """latents float32 [N, D], memory-mapped when read from a file; assignments int32 [N] to prototypes."""

    latents: NDArray[np.float32]
    assignments: NDArray[np.int32]

    def __post_init__(self) -> None:
        if self.latents.ndim != 2 or self.assignments.shape != self.latents.shape[:1]:
            raise ValueError(
                "a latent bank is latents [N, D] with assignments [N], "
                f"got {list(self.latents.shape)} and {list(self.assignments.shape)}"
            )

    @classmethod
    def read(cls, latents: Path, assignments: Path) -> "LatentBank":
        """The two .npy files of a bundle. Raises ValueError for shapes that do not belong together."""
        return cls(np.load(latents, mmap_mode="r"), np.load(assignments))

    def __len__(self) -> int:
        return len(self.latents)

    def rows(self, prototypes: Sequence[int], instances: int) -> NDArray[np.intp]:
        """The first `instances` rows, in row order, of any of `prototypes`: the published choice."""
        return np.flatnonzero(np.isin(self.assignments, prototypes))[:instances]

    def first_latent(self, prototypes: Sequence[int], instances: int) -> NDArray[np.float32]:
        """The mean of those rows' latents, [D]. Raises ValueError if there are none."""
        rows = self.rows(prototypes, instances)
        if not len(rows):
            raise ValueError(f"no image belongs to any of the prototypes {list(prototypes)}")
        return self.latents[rows].mean(axis=0, dtype=np.float32)
