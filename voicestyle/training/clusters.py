"""Spherical k-means of a few thousand embeddings, and the purity of clusters."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True)
class Clusters:
    """centroids: float32 [K, E], L2-normalised. assignments: int64 [N], each point's centroid."""

    centroids: Tensor
    assignments: Tensor


def spherical_kmeans(points: Tensor, count: int, *, seed: int, iterations: int = 50) -> Clusters:
    """Cluster points [N, E] by cosine into `count` clusters. The initialisation depends only on the seed.

    Initialises with k-means++ on the squared distance. An empty cluster takes the point that is farthest from its own
    centroid. Raises ValueError if there are fewer points than clusters.
    """
    if not 1 <= count <= len(points):
        raise ValueError(f"count must be between 1 and the number of points {len(points)}, received {count}")
    points = F.normalize(points.float(), dim=1)
    centroids = _kmeans_plus_plus(points, count, torch.Generator().manual_seed(seed))
    assignments = torch.full((len(points),), -1)
    for _ in range(iterations):
        cosine, nearest = (points @ centroids.T).max(1)
        nearest = _fill_empty(nearest, cosine, count)
        if torch.equal(nearest, assignments):
            break
        assignments = nearest
        sums = torch.zeros_like(centroids).index_add_(0, assignments, points)
        centroids = F.normalize(sums, dim=1)
    return Clusters(centroids, assignments)


def kmeans_within(points: Tensor, labels: Tensor, count: int, *, seed: int) -> Clusters:
    """Cluster the points [N, E] of each label separately, with `count` centroids divided evenly among the labels.

    labels: int64 [N], 0 … L − 1. The centroids of label 0 come first. Every cluster contains one label only.
    """
    kinds = int(labels.max()) + 1
    parts: list[Tensor] = []
    assignments = torch.empty_like(labels)
    for label in range(kinds):
        rows = (labels == label).nonzero().flatten()
        share = count // kinds + (label < count % kinds)
        clusters = spherical_kmeans(points[rows], share, seed=seed)
        assignments[rows] = clusters.assignments + sum(len(part) for part in parts)
        parts.append(clusters.centroids)
    return Clusters(torch.cat(parts), assignments)


def cluster_purity(assignments: Tensor, labels: Tensor) -> Tensor:
    """Share of each cluster's most frequent label, float32 [K], for assignments and labels int64 [N]."""
    table = torch.zeros(int(assignments.max()) + 1, int(labels.max()) + 1)
    table.index_put_((assignments, labels), torch.ones(len(labels)), accumulate=True)
    return table.max(1).values / table.sum(1).clamp(min=1)


def _kmeans_plus_plus(points: Tensor, count: int, generator: torch.Generator) -> Tensor:
    chosen = [int(torch.randint(len(points), (1,), generator=generator))]
    distance = 1.0 - points @ points[chosen[0]]
    while len(chosen) < count:
        weight = distance.clamp(min=0) + 1e-12
        chosen.append(int(torch.multinomial(weight, 1, generator=generator)))
        distance = torch.minimum(distance, 1.0 - points @ points[chosen[-1]])
    return points[chosen].clone()


def _fill_empty(nearest: Tensor, cosine: Tensor, count: int) -> Tensor:
    sizes = torch.bincount(nearest, minlength=count)
    for empty in (sizes == 0).nonzero().flatten().tolist():
        # Do not take the only point of another cluster, which would then be empty.
        candidates = cosine.masked_fill(torch.bincount(nearest, minlength=count)[nearest] < 2, torch.inf)
        taken = int(candidates.argmin())
        nearest[taken] = empty
        cosine[taken] = 1.0
    return nearest
