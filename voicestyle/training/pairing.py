"""Pair voices with faces: alike voices with alike faces, unlike voices with unlike faces, within each sex.

The recordings come without faces, so which face a voice gets is arbitrary, except for its sex. What is kept is
structure: the axes along which voices of one sex differ are matched, in the order of their strength, with the axes
along which recognisable faces of one sex differ. A voice's position along these K axes, scaled to length 1, is its
*code*; each face has a code too, and a voice belongs to the faces of its sex with the same code. Two recordings of a
speaker have nearly one code and therefore nearly one face; two speakers have two.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

LDA_SHRINKAGE: Final = 0.3  # of the covariance within a sex, towards its mean variance
RIDGE: Final = 0.05  # of the descriptors' covariance, in units of its mean variance


@dataclass(frozen=True)
class VoiceAxes:
    """centre: [V], half way between the sexes. axes: [V, K], orthonormal, at right angles to the difference of the
    sexes. sex_axis: [V]; the score (v − centre) @ sex_axis + sex_bias is −1 for the mean woman, 1 for the mean man.
    length: mean distance of a speaker from the centre of the sex, along the axes."""

    centre: Array
    axes: Array
    sex_axis: Array
    sex_bias: float
    length: float

    @classmethod
    def fit(
        cls, speakers: NDArray[np.float32], crops: NDArray[np.float32], sex: NDArray[np.int64], count: int
    ) -> "VoiceAxes":
        """Fit to the mean vectors [S, V] of training speakers and to crops [S, n, V] of them; sex: [S], 0 for F.

        The axes are principal components, not whitened: GE2E's own distances separate speakers better than whitened
        ones (docs/training.md). The axis of sex is a linear discriminant with shrinkage.
        """
        means = np.stack([speakers[sex == each].mean(0) for each in (0, 1)]).astype(np.float64)
        across = (means[1] - means[0]) / np.linalg.norm(means[1] - means[0])
        rest = speakers - means[sex]
        rest = rest - (rest @ across)[:, None] * across
        _, _, directions = np.linalg.svd(rest, full_matrices=False)
        axes = (directions[:count] * _signs(directions[:count])).T
        wide, wide_sex = crops.reshape(-1, crops.shape[-1]).astype(np.float64), np.repeat(sex, crops.shape[1])
        of_sex = np.stack([wide[wide_sex == each].mean(0) for each in (0, 1)])
        within = wide - of_sex[wide_sex]
        covariance = within.T @ within / len(within)
        shrunk = (1 - LDA_SHRINKAGE) * covariance + LDA_SHRINKAGE * np.trace(covariance) / len(covariance) * np.eye(
            len(covariance)
        )
        normal = np.linalg.solve(shrunk, of_sex[1] - of_sex[0])
        normal *= 2 / ((of_sex[1] - of_sex[0]) @ normal)
        centre = means.mean(0)
        bias = float((centre - of_sex.mean(0)) @ normal)
        return cls(centre, axes, normal, bias, float(np.linalg.norm(rest @ axes, axis=1).mean()))

    def codes(self, vectors: NDArray[np.float32]) -> Array:
        """Codes [N, K] of voices [N, V]."""
        return unit_rows((vectors - self.centre) @ self.axes)

    def sex_scores(self, vectors: NDArray[np.float32]) -> Array:
        """Negative for women's voices, positive for men's: [N, V] to [N]."""
        return (vectors - self.centre) @ self.sex_axis + self.sex_bias

    def vectors(self, codes: Array, sex: NDArray[np.int64]) -> Array:
        """Vectors [N, V] of voices that have these codes [N, K] and are otherwise the mean voice of their sex [N]."""
        across = self.sex_axis / (self.sex_axis @ self.sex_axis)
        scores = (2 * sex - 1 - self.sex_bias)[:, None]
        return self.centre + scores * across + self.length * codes @ self.axes.T


@dataclass(frozen=True)
class FaceAxes:
    """mean: latents [2, D] of both sexes. to_code: [D, K]. to_latent: [K, D]; a code moves w by it."""

    mean: Array
    to_code: Array
    to_latent: Array

    @classmethod
    def fit(
        cls,
        latents: NDArray[np.float32],
        descriptors: NDArray[np.float32],
        sex: NDArray[np.int64],
        count: int,
        *,
        held: Array,
        components: int = 200,
        distance: float = 5.5,
    ) -> "FaceAxes":
        """Fit to latents [N, D] and a recognition network's descriptors [N, F] of the bank's faces; sex: [N].

        The axes are the first `count` pairs of canonical correlation analysis between latents, of which the first
        `components` principal components are used, and descriptors: the directions in w that a recogniser sees. w
        moves along E[w | code]. held: directions [H, D] whose products with w stay at their mean. distance: of the
        faces from the mean face of the sex, in w.
        """
        mean = np.stack([latents[sex == each].mean(0) for each in (0, 1)]).astype(np.float64)
        x = latents - mean[sex]
        y = descriptors - np.stack([descriptors[sex == each].mean(0) for each in (0, 1)])[sex].astype(np.float64)
        covariance = x.T @ x / len(x)
        # Removes what the held directions predict of w.
        rest = np.eye(x.shape[1]) - held.T @ np.linalg.solve(held @ covariance @ held.T, held @ covariance)
        x = x @ rest
        covariance = x.T @ x / len(x)
        values, vectors = np.linalg.eigh(covariance)
        principal = vectors[:, ::-1][:, :components] / np.sqrt(values[::-1][:components])
        values, vectors = np.linalg.eigh(y.T @ y / len(y))
        whitened = y @ (vectors / np.sqrt(values + RIDGE * values.mean()))
        left, correlations, _ = np.linalg.svd((x @ principal).T @ whitened / len(x))
        variates = principal @ left[:, :count]  # [D, K], of unit variance and uncorrelated
        variates = variates * _signs(variates.T).T
        moves = variates.T @ covariance  # E[w | one variate is 1]
        strengths = np.sqrt(correlations[:count])
        moves = moves * strengths[:, None]
        codes = unit_rows(x @ variates / strengths)
        moves = moves * distance / np.linalg.norm(codes @ moves, axis=1).mean()
        return cls(mean, rest @ variates / strengths, moves)

    def codes(self, latents: NDArray[np.float32], sex: NDArray[np.int64]) -> Array:
        """Codes [N, K] of faces, from their latents [N, D] and their sex [N]."""
        return unit_rows((latents - self.mean[sex]) @ self.to_code)

    def latents(self, codes: Array, sex: NDArray[np.int64]) -> Array:
        """Latents [N, D] of the faces of each sex [N] that belong to codes [N, K]."""
        return self.mean[sex] + codes @ self.to_latent


def unit_rows(rows: Array) -> Array:
    """Scale each row to length 1."""
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


def _signs(rows: Array) -> Array:
    """The sign [n, 1] of the largest entry of each row [n, D]; the sign of a singular vector is arbitrary."""
    largest = np.abs(rows).argmax(1, keepdims=True)
    return np.sign(np.take_along_axis(rows, largest, 1))
