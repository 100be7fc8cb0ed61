"""Assign faces to training voices: a pseudo-identity of the same sex, independent of skin luminance.

The recordings come without faces. Each speaker is assigned a small set of similar generated faces of the same sex, so
that the encoders learn to distinguish voices and faces. Except for sex, the assignment is arbitrary.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from voicestyle.training.clusters import spherical_kmeans

# Cheeks and nose of an aligned face, without mouth and eyebrows: rows and columns as shares of the edge.
_SKIN_ROWS = (0.50, 0.66)
_SKIN_COLUMNS = (0.33, 0.67)


def skin_luminance(images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Mean luma (Rec. 601, 0 … 255) of cheeks and nose of each face: [N, H, W, 3] to [N]."""
    size = images.shape[1]
    rows = slice(int(_SKIN_ROWS[0] * size), int(_SKIN_ROWS[1] * size))
    columns = slice(int(_SKIN_COLUMNS[0] * size), int(_SKIN_COLUMNS[1] * size))
    weights = np.array([0.299, 0.587, 0.114], np.float32)
    return np.array([(image[rows, columns] @ weights).mean() for image in images], np.float32)


def without_direction(points: Tensor, values: Tensor, ridge: float = 0.1) -> Tensor:
    """Standardise points [N, D] and remove the direction that best predicts values [N] linearly."""
    points = (points - points.mean(0)) / (points.std(0) + 1e-6)
    target = (values - values.mean()).to(points)
    gram = points.T @ points + ridge * len(points) * torch.eye(points.shape[1], dtype=points.dtype)
    direction = F.normalize(torch.linalg.solve(gram, points.T @ target), dim=0)
    return points - (points @ direction)[:, None] * direction


def pair_by_sex(speaker_sex: Tensor, face_sex: Tensor, looks: Tensor, faces_per_identity: int, *, seed: int) -> Tensor:
    """Assign similar faces to each speaker: rows of faces, int64 [S, faces_per_identity].

    speaker_sex: int64 [S]. face_sex: int64 [N]. looks: float [N, D], compared by cosine. The faces of each sex are
    clustered into as many clusters as it has speakers; the faces nearest to a centroid are one identity.
    """
    chosen = torch.zeros(len(speaker_sex), faces_per_identity, dtype=torch.int64)
    generator = torch.Generator().manual_seed(seed)
    for sex in speaker_sex.unique().tolist():
        speakers = (speaker_sex == sex).nonzero().flatten()
        rows = (face_sex == sex).nonzero().flatten()
        points = F.normalize(looks[rows], dim=1)
        centres = spherical_kmeans(points, len(speakers), seed=seed).centroids
        nearest = (centres @ points.T).topk(faces_per_identity, dim=1).indices
        order = torch.randperm(len(speakers), generator=generator)
        chosen[speakers] = rows[nearest[order]]
    return chosen


def match_alike(voices: Tensor, faces: Tensor, sex: Tensor) -> Tensor:
    """A permutation, int64 [S], that assigns identities to speakers of the same sex, similar ones to similar ones.

    voices, faces: [S, E], the embeddings of each speaker and of each identity. sex: int64 [S], of both. Within a sex,
    both are arranged on a grid by their first two principal components and assigned cell by cell. The correspondence of
    the components is arbitrary, but similar voices get similar faces, so that a new voice gets a face similar to those
    of similar voices instead of an average face.
    """
    assigned = torch.empty_like(sex)
    for each in sex.unique().tolist():
        rows = (sex == each).nonzero().flatten()
        assigned[rows[_grid_order(voices[rows])]] = rows[_grid_order(faces[rows])]
    return assigned


def _grid_order(points: Tensor) -> Tensor:
    """Rows [n], sorted by the first principal component into √n columns, and by the second within each column."""
    centred = points - points.mean(0)
    _, _, directions = torch.linalg.svd(centred, full_matrices=False)
    # The sign of a singular vector is arbitrary. Make the largest entry positive, for equal results on all machines.
    axes = directions[:2]
    axes = axes * axes.gather(1, axes.abs().argmax(1, keepdim=True)).sign()
    first, second = (centred @ axes.T).T
    columns = first.argsort().tensor_split(max(1, round(len(points) ** 0.5)))
    return torch.cat([column[second[column].argsort()] for column in columns])
