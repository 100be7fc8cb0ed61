"""The prior on w: how far a latent is from another one, and the directions in which an optimisation must not move it.

Distances are measured after whitening, so that a direction counts by how much the latents of real faces vary in it:
‖whitening · (w − centre)‖² / R. For a latent drawn like those of the fit, its expectation from their mean is about 1.

The file `latent_prior.npz` has three arrays, all float32: `whitening` [R, D], `mean` [D] and `held` [H, D], the
orthonormal rows of the directions to hold. H may be 0. The distance of w+ [L, D] is the mean over its rows.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from voicestyle.array_files import read_arrays
from voicestyle.errors import BundleError
from voicestyle.whole_files import whole_file

ARRAYS = {"whitening": 2, "mean": 1, "held": 2}  # axes by name
SMALLEST_VARIANCE = 1e-6  # of the largest; float32 cannot whiten directions of less
SMALLEST_SINE = 1e-4  # between a held direction and the plane of those before it


@dataclass(frozen=True)
class LatentPrior:
    """whitening float32 [R, D], 1 ≤ R ≤ D; mean of the latents float32 [D]; held directions float32 [H, D].

    Raises BundleError for another dtype or shape, values that are not finite, and held rows that are not orthonormal.
    """

    whitening: NDArray[np.float32]
    mean: NDArray[np.float32]
    held: NDArray[np.float32]

    def __post_init__(self) -> None:
        for name, axes in ARRAYS.items():
            array: NDArray[np.generic] = getattr(self, name)
            if array.dtype != "float32" or array.ndim != axes or array.shape[-1] != self.whitening.shape[-1]:
                raise BundleError(
                    "a latent prior must have float32 arrays whitening [R, D], mean [D] and held [H, D], got "
                    + ", ".join(f"{each} {(a := getattr(self, each)).dtype} {list(a.shape)}" for each in ARRAYS)
                )
            if not np.isfinite(array).all():
                raise BundleError(f"{name} of a latent prior must be finite")
        if not 1 <= len(self.whitening) <= self.dim:
            raise BundleError(f"whitening must have 1 to {self.dim} rows, one per direction, got {len(self.whitening)}")
        error = np.abs(self.held @ self.held.T - np.eye(len(self.held))).max(initial=0)
        if error > 1e-4:
            raise BundleError(f"held directions must be orthonormal to 1e-4, got an error of {error:.2g}")

    @property
    def dim(self) -> int:
        """D, the number of components of w."""
        return self.whitening.shape[-1]

    @classmethod
    def read(cls, path: Path) -> "LatentPrior":
        """Read a .npz file without unpickling anything. Raises BundleError for another content, OSError as `open`."""
        arrays = read_arrays(path, ARRAYS)
        try:
            return cls(**arrays)
        except BundleError as error:
            raise BundleError(f"{path}: {error}") from error

    def write(self, path: Path) -> None:
        """Write the file that `read` reads, whole or not at all."""
        with whole_file(path) as draft, draft.open("wb") as file:
            np.savez(file, allow_pickle=False, whitening=self.whitening, mean=self.mean, held=self.held)

    @classmethod
    def fit(cls, latents: ArrayLike, held: ArrayLike | None = None) -> "LatentPrior":
        """The prior of latents w [N, D], or w+ [N, L, D], whose rows count as latents.

        The covariance is shrunk towards a multiple of the identity by Ledoit and Wolf's estimate, so that it can be
        inverted even if N is below D (10.1016/S0047-259X(03)00096-4). Its eigenvectors over the square roots of their
        eigenvalues are the rows of `whitening`, the largest variance first; directions with less than 1e-6 of the
        largest variance are left out.

        held: directions [H, D] of any length, which are made orthonormal.

        Raises:
            ValueError: fewer than two different latents, a wrong shape, values that are not finite, or held
                directions of which one is zero or a combination of the others.
        """
        samples = _matrix("latents", latents)
        if (samples == samples[0]).all():
            raise ValueError(f"a latent prior needs two different latents or more, got {len(samples)} equal ones")
        mean = samples.mean(axis=0)
        variances, directions = np.linalg.eigh(_shrunk_covariance(samples - mean))
        variances, directions = variances[::-1], directions[:, ::-1].T
        kept = variances > SMALLEST_VARIANCE * variances[0]
        whitening = directions[kept] / np.sqrt(variances[kept, None])
        rows = np.zeros((0, len(mean))) if held is None else _orthonormal(held, len(mean))
        return cls(*(array.astype(np.float32) for array in (whitening, mean, rows)))


def predictive_directions(latents: ArrayLike, values: ArrayLike, ridge: float) -> NDArray[np.float32]:
    """The directions in w by which ridge regression predicts values such as the skin's luminance, float32 [K, D].

    The prediction of value k is its mean + directions[k] · (w − mean of the latents): it stays constant where the
    components of w along all directions are held (`LatentPrior.fit(latents, held=directions)`).

    Args:
        latents: w [N, D].
        values: K values of the face of each latent [N, K].
        ridge: the penalty, > 0, in units of the mean variance of a component of w.

    Raises:
        ValueError: a wrong shape, values that are not finite or are equal for all latents, or a ridge out of range.
    """
    samples, observed = _matrix("latents", latents, rows=False), _matrix("values", values, rows=False)
    if len(observed) != len(samples):
        raise ValueError(f"values must have one row per latent ({len(samples)}), got {len(observed)}")
    if not 0 < ridge < np.inf:
        raise ValueError(f"ridge must be a number above 0, got {ridge}")
    for name, matrix in (("latents", samples), ("values", observed)):
        if (constant := (matrix == matrix[0]).all(axis=0)).all() or (name == "values" and constant.any()):
            raise ValueError(f"{name} must vary, got {len(matrix)} equal ones")
    samples, observed = samples - samples.mean(axis=0), observed - observed.mean(axis=0)
    covariance = samples.T @ samples / len(samples)
    penalty = ridge * np.trace(covariance) / len(covariance)
    penalised = covariance + penalty * np.eye(len(covariance))
    return np.linalg.solve(penalised, samples.T @ observed / len(samples)).T.astype(np.float32)


def _matrix(name: str, values: ArrayLike, *, rows: bool = True) -> NDArray[np.float64]:
    """Values [N, D], or with `rows` also [N, L, D] as [N · L, D], in float64. Raises ValueError for others."""
    matrix = np.asarray(values, np.float64)
    if matrix.ndim not in ((2, 3) if rows else (2,)) or not matrix.size:
        expected = "[N, D] or [N, L, D]" if rows else "two axes"
        raise ValueError(f"{name} must have {expected} and not be empty, got {list(matrix.shape)}")
    if not np.isfinite(matrix).all():
        raise ValueError(f"{name} must be finite")
    return matrix.reshape(-1, matrix.shape[-1])


def _shrunk_covariance(centred: NDArray[np.float64]) -> NDArray[np.float64]:
    """Ledoit and Wolf's covariance [D, D] of centred samples [N, D]: (1 − α) · S + α · mean variance · identity.

    α is the mean squared error of the entries of S, estimated from the samples, over their squared distance from the
    multiple of the identity; at most 1.
    """
    count, dim = centred.shape
    covariance = centred.T @ centred / count
    target = np.trace(covariance) / dim * np.eye(dim)
    distance = np.square(covariance - target).sum()
    # Σ_n ‖x_n x_nᵀ − S‖² / N², by which no matrix is formed for each sample.
    fourth_moment = np.square(np.square(centred).sum(axis=1)).mean()
    error = (fourth_moment - np.square(covariance).sum()) / count
    share = min(1.0, max(0.0, error / distance)) if distance > 0 else 1.0
    return (1 - share) * covariance + share * target


def _orthonormal(held: ArrayLike, dim: int) -> NDArray[np.float64]:
    """Orthonormal rows [H, D] that span the directions `held` [H, D]. Raises ValueError for dependent ones."""
    directions = np.asarray(held, np.float64)
    if directions.ndim != 2 or directions.shape[1] != dim:
        raise ValueError(f"held must have the shape [H, {dim}], got {list(directions.shape)}")
    lengths = np.linalg.norm(directions, axis=1, keepdims=True)
    if not np.isfinite(lengths).all():
        raise ValueError("held must be finite")
    basis, triangle = np.linalg.qr((directions / np.where(lengths > 0, lengths, 1)).T)
    # |R_hh| is the sine of the angle between direction h and the plane of those before it.
    independent = int((np.abs(np.diagonal(triangle)) > SMALLEST_SINE).sum())
    if independent < len(directions):
        raise ValueError(
            f"held directions must be linearly independent, got {len(directions)} of which {independent} are"
        )
    return basis.T
