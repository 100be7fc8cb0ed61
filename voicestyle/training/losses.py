"""The loss functions of CMPC (arXiv 2204.14057): cross-modal contrastive losses by instance and by prototype.

Embeddings are L2-normalised rows, so that their dot product is the cosine similarity.
"""

import torch
from torch import Tensor
from torch.nn import functional as F


def cross_modal_contrast(anchors: Tensor, others: Tensor, same: Tensor, temperature: float) -> Tensor:
    """InfoNCE with several positives, averaged over both directions.

    anchors: [N, E]. others: [M, E]. same: bool [N, M], with a True in every row and column. The loss of a row is
    −log(Σ_same exp(s/τ) / Σ exp(s/τ)). The positives share one probability, so they need not be similar to each other;
    this prevents the embeddings of one sex from collapsing to one point.
    """
    logits = anchors @ others.T / temperature
    positive = logits.masked_fill(~same, -torch.inf)
    rows = torch.logsumexp(logits, 1) - torch.logsumexp(positive, 1)
    columns = torch.logsumexp(logits, 0) - torch.logsumexp(positive, 0)
    return 0.5 * (rows.mean() + columns.mean())


def contrast_within(embeddings: Tensor, same: Tensor, temperature: float) -> Tensor:
    """The same loss within one modality: embeddings [N, E], same bool [N, N]. An item is not its own positive.

    Every row of `same` must mark at least one other item.
    """
    itself = torch.eye(len(embeddings), dtype=torch.bool)
    logits = (embeddings @ embeddings.T / temperature).masked_fill(itself, -torch.inf)
    positive = logits.masked_fill(~same, -torch.inf)
    return (torch.logsumexp(logits, 1) - torch.logsumexp(positive, 1)).mean()


def prototype_contrast(embeddings: Tensor, prototypes: Tensor, assignments: Tensor, temperature: float) -> Tensor:
    """Cross entropy of embeddings [N, E] over the prototypes [K, E] of the *other* modality.

    assignments: int64 [N], the prototype of each item's partner in the other modality.
    """
    return F.cross_entropy(embeddings @ prototypes.T / temperature, assignments)


def view_agreement(embeddings: Tensor, views: int) -> Tensor:
    """1 − mean cosine between an item's views; embeddings [views·N, E], ordered by view."""
    grouped = embeddings.view(views, -1, embeddings.shape[1])
    return 1.0 - (grouped[0] * grouped[1:].mean(0)).sum(1).mean()
