"""`latent_map.npz`: affine maps from voice embeddings to first latents, one for each group of prototypes."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from voicestyle.array_files import read_arrays
from voicestyle.errors import BundleError

ARRAYS = ("weight", "bias", "groups")


@dataclass(frozen=True)
class LatentMap:
    """G affine maps from embeddings [E] to latents w [D] or w+ [L, D].

    weight: float32 [G, D, E] or [G, L, D, E]. bias: float32 [G, D] or [G, L, D]. groups: int32 [K], the group 0 … G − 1
    of each prototype.

    Raises BundleError for other dtypes, shapes or groups, and for values that are not finite.
    """

    weight: NDArray[np.float32]
    bias: NDArray[np.float32]
    groups: NDArray[np.int32]

    def __post_init__(self) -> None:
        expected = {"weight": ("float32", (3, 4)), "bias": ("float32", (2, 3)), "groups": ("int32", (1,))}
        for name, (dtype, axes) in expected.items():
            array: NDArray[np.generic] = getattr(self, name)
            if array.dtype != dtype or array.ndim not in axes or not array.size:
                rule = f"{name} of the latent map must be {dtype} with {' or '.join(map(str, axes))} axes and not empty"
                raise BundleError(f"{rule}, got {array.dtype} {list(array.shape)}")
        if self.weight.shape[:-1] != self.bias.shape:
            raise BundleError(
                f"weight of the latent map must have the shape of its bias and one more axis, got "
                f"{list(self.weight.shape)} and {list(self.bias.shape)}"
            )
        if not (np.isfinite(self.weight).all() and np.isfinite(self.bias).all()):
            raise BundleError("weight and bias of the latent map must be finite, got NaN or infinity")
        lowest, highest = int(self.groups.min()), int(self.groups.max())
        if lowest < 0 or highest >= len(self.weight):
            raise BundleError(
                f"groups of the latent map must be in 0 … {len(self.weight) - 1}, got {lowest} … {highest}"
            )

    @classmethod
    def read(cls, path: Path) -> "LatentMap":
        """Read a .npz file without unpickling anything. Raises BundleError for another content, OSError as `open`."""
        arrays = read_arrays(path, ARRAYS)
        try:
            return cls(**arrays)
        except BundleError as error:
            raise BundleError(f"{path}: {error}") from error

    def write(self, path: Path) -> None:
        """Write the arrays to a file, whose bytes depend on them alone."""
        with path.open("wb") as file:
            np.savez(file, weight=self.weight, bias=self.bias, groups=self.groups)

    def group(self, prototypes: Sequence[int], cosines: NDArray[np.float32]) -> int:
        """The group with the largest sum of `cosines` [k] over `prototypes`, which are those nearest to a voice.

        Groups of other prototypes have no sum. The lowest of equal ones is taken.
        """
        groups = self.groups[list(prototypes)]
        present = np.unique(groups)
        sums = [cosines[groups == group].sum() for group in present]
        return int(present[np.argmax(sums)])

    def __call__(
        self, embedding: NDArray[np.float32], prototypes: Sequence[int], cosines: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        """The first latent [D] or [L, D] of a voice embedding [E] of any norm; the other arguments are `group`'s."""
        group = self.group(prototypes, cosines)
        unit = embedding / np.linalg.norm(embedding)
        return (self.weight[group] @ unit + self.bias[group]).astype(np.float32)
