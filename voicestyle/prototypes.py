"""The prototype index: centroids of face embeddings, searched by a voice embedding."""

from pathlib import Path

import faiss
import numpy as np
from numpy.typing import NDArray


class Prototypes:
    """Centroids [K, E], compared after L2 normalisation by squared distance (VoiceStyle, section 3)."""

    def __init__(self, index: faiss.Index) -> None:
        self._index = index

    @classmethod
    def from_centroids(cls, centroids: NDArray[np.float32]) -> "Prototypes":
        """An exact index over centroids float [K, E] of any norm."""
        normalised = np.array(centroids, np.float32, order="C", ndmin=2)
        faiss.normalize_L2(normalised)
        index = faiss.IndexFlatL2(normalised.shape[1])
        index.add(normalised)
        return cls(index)

    @classmethod
    def read(cls, path: Path) -> "Prototypes":
        """The index in the file at `path`. Raises RuntimeError if it is not a faiss index."""
        return cls(faiss.read_index(str(path)))

    def write(self, path: Path) -> None:
        """Write a file for `read`."""
        faiss.write_index(self._index, str(path))

    def __len__(self) -> int:
        return int(self._index.ntotal)

    @property
    def dim(self) -> int:
        """E, the length of an embedding."""
        return int(self._index.d)

    def nearest(self, embedding: NDArray[np.float32], k: int) -> list[int]:
        """The k prototypes nearest to an embedding [E] of any norm, nearest first."""
        query = np.array(embedding, np.float32, order="C", ndmin=2)
        faiss.normalize_L2(query)
        _, found = self._index.search(query, k)
        return [int(prototype) for prototype in found[0]]
