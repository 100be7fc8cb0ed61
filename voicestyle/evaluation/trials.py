"""What all protocols share: the embeddings of trials, and trials without one."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from voicestyle.evaluation.embeddings import Embeddings
from voicestyle.evaluation.errors import EvaluationError

_CHUNK = 4096


@dataclass(frozen=True)
class Features:
    """The embeddings of recordings and images. skip_missing: leave trials without embedding out.

    Raises EvaluationError for embeddings of different sizes.
    """

    voices: Embeddings
    faces: Embeddings
    skip_missing: bool = False

    def __post_init__(self) -> None:
        if self.voices.dim != self.faces.dim:
            raise EvaluationError(
                "embeddings of voices and faces must have the same number of components, received "
                f"{self.voices.dim} ({self.voices.source}) and {self.faces.dim} ({self.faces.source})"
            )

    def of(self, kind: str) -> Embeddings:
        """The embeddings of the kind `voice` or `face`."""
        return self.voices if kind == "voice" else self.faces

    def check(self, source: str, present: NDArray[np.bool_], keys: Sequence[tuple[str, str]]) -> int:
        """The number of trials that are left out. present: [M]. keys: kinds and keys of the trials, for the error.

        Raises EvaluationError for a missing embedding, unless these are skipped, and if no trial is left.
        """
        missing = int((~present).sum())
        if missing and (not self.skip_missing or missing == len(present)):
            kind, key = next((kind, key) for kind, key in keys if key not in self.of(kind).rows)
            reason = self.of(kind).unusable.get(key, "none was found")
            raise EvaluationError(
                f"{source}: each line must have its embeddings, {missing} of {len(present)} have not; "
                f"the {kind} {key!r} in {self.of(kind).source}: {reason}"
            )
        return missing


def cosines(one: NDArray[np.float32], other: NDArray[np.float32]) -> NDArray[np.float64]:
    """The cosine [M] of unit vectors [M, E] and [M, E], each computed alone, in float64."""
    parts = [
        np.einsum("me,me->m", one[i : i + _CHUNK].astype(np.float64), other[i : i + _CHUNK].astype(np.float64))
        for i in range(0, len(one), _CHUNK)
    ]
    return np.concatenate(parts) if parts else np.zeros(0)
