"""Spherical k-means, purity and concentration."""

import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from voicestyle.training.clusters import Clusters, cluster_purity, concentration, kmeans_within, spherical_kmeans


def three_groups() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(3).repeat_interleave(20)
    return F.normalize(torch.eye(3)[labels] + 0.1 * torch.randn(60, 3, generator=generator), dim=1), labels


def test_kmeans_finds_separate_groups():
    points, labels = three_groups()
    clusters = spherical_kmeans(points, 3, seed=1)
    assert cluster_purity(clusters.assignments, labels).tolist() == [1.0, 1.0, 1.0]
    torch.testing.assert_close(clusters.centroids.norm(dim=1), torch.ones(3))
    assert torch.equal((points @ clusters.centroids.T).argmax(1), clusters.assignments)


def test_the_result_depends_only_on_the_seed():
    points, _ = three_groups()
    once, again = (spherical_kmeans(points, 7, seed=3) for _ in range(2))
    assert torch.equal(once.assignments, again.assignments)
    assert torch.equal(once.centroids, again.centroids)


def test_clusters_within_labels_are_pure():
    points, _ = three_groups()
    labels = torch.arange(60) % 2
    clusters = kmeans_within(points, labels, 5, seed=0)
    assert cluster_purity(clusters.assignments, labels).tolist() == [1.0] * 5
    assert sorted(labels[clusters.assignments == k][0].item() for k in range(5)) == [0, 0, 0, 1, 1]
    alone = spherical_kmeans(points[labels == 1], 2, seed=0)
    assert torch.equal(clusters.centroids[3:], alone.centroids)
    assert torch.equal(clusters.assignments[labels == 1], alone.assignments + 3)


def test_no_cluster_is_empty_with_repeated_points():
    points = torch.eye(4)[torch.tensor([0, 0, 0, 0, 1, 1, 2, 3])]
    clusters = spherical_kmeans(points, 6, seed=0)
    assert torch.bincount(clusters.assignments, minlength=6).min() >= 1


def test_more_clusters_than_points_are_rejected():
    with pytest.raises(ValueError, match="between 1 and the number of points 4, received 5"):
        spherical_kmeans(torch.eye(4), 5, seed=0)


def test_purity_is_the_share_of_the_most_frequent_label():
    purity = cluster_purity(torch.tensor([0, 0, 0, 1, 1]), torch.tensor([1, 1, 0, 0, 0]))
    torch.testing.assert_close(purity, torch.tensor([2 / 3, 1.0]))


def test_concentration_equals_the_reference():
    generator = torch.Generator().manual_seed(1)
    points = F.normalize(torch.randn(50, 4, generator=generator), dim=1)
    clusters = spherical_kmeans(points, 8, seed=0)
    plain = []
    for k, centroid in enumerate(clusters.centroids):
        members = [point for point, own in zip(points, clusters.assignments.tolist(), strict=True) if own == k]
        distances = [math.dist(member.tolist(), centroid.tolist()) for member in members]
        plain.append(sum(distances) / len(distances) / math.log(len(distances) + 10) if len(distances) > 1 else None)
    largest = max(phi for phi in plain if phi is not None)
    phi = np.array([largest if each is None else each for each in plain])
    phi = phi.clip(np.percentile(phi, 10), np.percentile(phi, 90))
    expected = torch.tensor(0.2 * phi / phi.mean(), dtype=torch.float32)
    torch.testing.assert_close(concentration(points, clusters, 0.2), expected)


def test_clusters_of_equal_points_have_equal_temperatures():
    points = torch.eye(3)[torch.tensor([0, 0, 1, 1, 2, 2])]
    clusters = Clusters(torch.eye(3), torch.tensor([0, 0, 1, 1, 2, 2]))
    assert concentration(points, clusters, 0.3).tolist() == pytest.approx([0.3] * 3)
    assert concentration(points[::2], Clusters(torch.eye(3), torch.arange(3)), 0.3).tolist() == pytest.approx([0.3] * 3)
