"""Spherical k-means by FAISS, and the purity and concentration of clusters."""

from dataclasses import dataclass
from typing import Any

import faiss
import numpy as np
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

    An empty cluster takes the point that is farthest from its own centroid. The result is on the CPU. Raises ValueError
    if there are fewer points than clusters.
    """
    if not 1 <= count <= len(points):
        raise ValueError(f"count must be between 1 and the number of points {len(points)}, received {count}")
    points = F.normalize(points.detach().to("cpu", torch.float32), dim=1)
    kmeans: Any = faiss.Kmeans(
        points.shape[1],
        count,
        niter=iterations,
        seed=seed,
        spherical=True,
        min_points_per_centroid=1,
        max_points_per_centroid=len(points),  # use all points, without sampling
    )
    kmeans.train(np.ascontiguousarray(points.numpy()))
    centroids = F.normalize(torch.from_numpy(kmeans.centroids.copy()), dim=1)
    cosine, nearest = (points @ centroids.T).max(1)
    for row, empty in _moved_to_empty(nearest, cosine, count):
        nearest[row] = empty
        centroids[empty] = points[row]
    return Clusters(centroids, nearest)


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


def concentration(points: Tensor, clusters: Clusters, temperature: float, smoothing: float = 10.0) -> Tensor:
    """The temperature φ of each prototype, float32 [K]: low for a dense cluster, `temperature` on average.

    Concentration estimation of prototypical contrastive learning (arXiv 2005.04966), which CMPC uses: the mean distance
    of the Z points of a cluster to its centroid, divided by log(Z + α), with α = `smoothing`. A cluster of one point
    takes the largest value; values outside the 10th and 90th percentile are clipped to it.
    """
    points = F.normalize(points.detach().to("cpu", torch.float32), dim=1)
    count = len(clusters.centroids)
    distances = (points - clusters.centroids[clusters.assignments]).norm(dim=1)
    sizes = torch.bincount(clusters.assignments, minlength=count)
    sums = torch.zeros(count).index_add_(0, clusters.assignments, distances)
    phi = sums / sizes.clamp(min=1) / torch.log(sizes + smoothing)
    phi = torch.where(sizes > 1, phi, phi[sizes > 1].max() if bool((sizes > 1).any()) else torch.ones(()))
    low, high = torch.quantile(phi, torch.tensor([0.1, 0.9]))
    phi = phi.clamp(low, high)
    # Clusters of equal points have no spread at all; then all prototypes get the same temperature.
    return temperature * phi / phi.mean() if float(low) > 1e-6 else torch.full((count,), temperature)


def _moved_to_empty(nearest: Tensor, cosine: Tensor, count: int) -> list[tuple[int, int]]:
    """Pairs (point, empty cluster): of the clusters with several points, those farthest from their centroid."""
    sizes = torch.bincount(nearest, minlength=count)
    empty = (sizes == 0).nonzero().flatten().tolist()
    moved: list[tuple[int, int]] = []
    for row in cosine.argsort().tolist() if empty else []:
        if len(moved) < len(empty) and sizes[nearest[row]] > 1:
            sizes[nearest[row]] -= 1
            moved.append((row, empty[len(moved)]))
    return moved
