"""Fit the linear map from voice embeddings to first latents, one for each sex."""

import numpy as np
from numpy.typing import NDArray

from voicestyle.latent_map import LatentMap

RIDGE = 1e-3  # of the mean square of an embedding's components


def fit_latent_map(
    embeddings: NDArray[np.float32], latents: NDArray[np.float64], sex: NDArray[np.int64], prototypes: int
) -> LatentMap:
    """The ridge regression of latents [N, D] on embeddings [N, E], scaled to length 1, within each sex [N].

    Regression pulls predictions towards their mean, where faces are alike; their distances from the mean are scaled up
    to those of the latents. prototypes: the number K of prototypes, of which the first half are women's.
    """
    unit = (embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)).astype(np.float64)
    weights: list[NDArray[np.float32]] = []
    biases: list[NDArray[np.float32]] = []
    for each in (0, 1):
        x, y = unit[sex == each], latents[sex == each]
        middle, mean = x.mean(0), y.mean(0)
        x, y = x - middle, y - mean
        gram = x.T @ x / len(x)
        gram += RIDGE * np.eye(len(gram)) / len(gram)
        weight = np.linalg.solve(gram, x.T @ y / len(x)).T  # [D, E]
        weight *= np.linalg.norm(y, axis=1).mean() / np.linalg.norm(x @ weight.T, axis=1).mean()
        weights.append(weight.astype(np.float32))
        biases.append((mean - weight @ middle).astype(np.float32))
    groups = np.repeat(np.array([0, 1], np.int32), [prototypes - prototypes // 2, prototypes // 2])
    return LatentMap(np.stack(weights), np.stack(biases), groups)
