"""The prototype index: nearest-neighbour search among centroids of face embeddings."""

from collections.abc import Sequence
from pathlib import Path

import faiss
import numpy as np
from numpy.typing import NDArray


class Prototypes:
    """K centroids [K, E], compared by squared distance after L2 normalisation (VoiceStyle, section 3)."""

    def __init__(self, index: faiss.Index) -> None:
        self._index = index

    @classmethod
    def from_centroids(cls, centroids: NDArray[np.float32]) -> "Prototypes":
        """Create an exact index of centroids, float [K, E], of any norm."""
        normalised = np.array(centroids, np.float32, order="C", ndmin=2)
        faiss.normalize_L2(normalised)
        index = faiss.IndexFlatL2(normalised.shape[1])
        index.add(normalised)
        return cls(index)

    @classmethod
    def read(cls, path: Path) -> "Prototypes":
        """Read a faiss index. Raises RuntimeError for another file."""
        return cls(faiss.read_index(str(path)))

    def write(self, path: Path) -> None:
        """Write the faiss index to a file."""
        faiss.write_index(self._index, str(path))

    def __len__(self) -> int:
        return int(self._index.ntotal)

    @property
    def dim(self) -> int:
        """E, the number of components of an embedding."""
        return int(self._index.d)

    def cosines(self, embedding: NDArray[np.float32], prototypes: Sequence[int]) -> NDArray[np.float32]:
        """The cosine [k] between an embedding [E] of any norm and each of k prototypes."""
        centroids = self._index.reconstruct_batch(np.array(prototypes, np.int64))  # of norm 1
        return (centroids @ embedding / np.linalg.norm(embedding)).astype(np.float32)

    def nearest(self, embedding: NDArray[np.float32], k: int) -> list[int]:
        """Indices of the k prototypes nearest to an embedding [E] of any norm, nearest first."""
        query = np.array(embedding, np.float32, order="C", ndmin=2)
        faiss.normalize_L2(query)
        _, found = self._index.search(query, k)
        return [int(prototype) for prototype in found[0]]
