"""Embeddings by key: from a .npz file, or computed by encoders and kept in a file of the same format."""

import zipfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from voicestyle.evaluation.errors import EvaluationError
from voicestyle.evaluation.keys import key_of
from voicestyle.whole_files import whole_file


@dataclass(frozen=True)
class Embeddings:
    """Unit vectors float32 [N, E] and the row of each key. source: what they are, for the report.

    unusable: keys whose file could not be embedded, with the reason.
    """

    source: str
    rows: dict[str, int]
    vectors: NDArray[np.float32]
    unusable: dict[str, str]

    @classmethod
    def of(
        cls,
        source: str,
        keys: Sequence[str],
        vectors: NDArray[np.floating],
        unusable: dict[str, str] | None = None,
    ) -> "Embeddings":
        """Normalise vectors [N, E]. Raises EvaluationError for a key that occurs twice and for a vector of norm 0."""
        rows = {key: row for row, key in enumerate(keys)}
        if len(rows) < len(keys):
            double = next(key for row, key in enumerate(keys) if rows[key] != row)
            raise EvaluationError(f"{source} must have each key once, received {double!r} twice")
        norms = np.linalg.norm(vectors.astype(np.float64), axis=1)
        if bad := [key for key, norm in zip(keys, norms, strict=True) if not (np.isfinite(norm) and norm > 0)]:
            raise EvaluationError(
                f"{source}: an embedding must be finite and not 0, received another one for {bad[0]!r}"
            )
        return cls(source, rows, (vectors / norms[:, None]).astype(np.float32), unusable or {})

    @property
    def dim(self) -> int:
        """Components of an embedding."""
        return self.vectors.shape[1]

    def find(self, keys: Iterable[str]) -> NDArray[np.intp]:
        """The row of each key; -1 for a missing one."""
        return np.array([self.rows.get(key, -1) for key in keys], np.intp)


def read_embeddings(path: Path) -> Embeddings:
    """Read a .npz file with `keys`, N paths, and `embeddings`, float [N, E].

    Raises EvaluationError for other content, OSError for a path that cannot be opened.
    """
    keys, vectors, _ = read_arrays(path)
    return Embeddings.of(path.name, keys, vectors)  # without its folder, which the report need not tell


def read_arrays(path: Path) -> tuple[list[str], NDArray[np.floating], NDArray[np.int64] | None]:
    """Keys, embeddings and, in a cache, the stamp [N, 2] of each file. Raises as `read_embeddings`."""
    try:
        with np.load(path, allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in stored.files}
    except (ValueError, zipfile.BadZipFile, EOFError, AttributeError) as error:
        raise EvaluationError(f"{path} must be a .npz file of plain arrays: {error or type(error).__name__}") from None
    if not {"keys", "embeddings"} <= arrays.keys():
        raise EvaluationError(f"{path} must have the arrays keys and embeddings, received {sorted(arrays)}")
    keys, vectors = arrays["keys"], arrays["embeddings"]
    if keys.dtype.kind != "U" or keys.ndim != 1 or vectors.dtype.kind != "f" or vectors.shape[:1] != keys.shape:
        raise EvaluationError(
            f"{path} must have keys of text [N] and embeddings of floats [N, E], received "
            f"{keys.dtype} {list(keys.shape)} and {vectors.dtype} {list(vectors.shape)}"
        )
    if vectors.ndim != 2 or not vectors.shape[1]:
        raise EvaluationError(f"{path}: embeddings must have the shape [N, E], received {list(vectors.shape)}")
    try:
        return [key_of(str(key)) for key in keys], vectors, arrays.get("stamps")
    except ValueError as error:
        raise EvaluationError(f"{path}: {error}") from None


def write_arrays(path: Path, keys: Sequence[str], vectors: NDArray[np.floating], stamps: NDArray[np.int64]) -> None:
    """Write a file that `read_embeddings` reads, whole or not at all. stamps: [N, 2] integers of the N files."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path) as draft, draft.open("wb") as file:
        np.savez(file, keys=np.array(keys), embeddings=vectors, stamps=stamps)
