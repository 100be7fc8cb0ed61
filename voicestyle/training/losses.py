"""The CMPC objective (arXiv 2204.14057): contrast across the modalities, by instance and by prototype.

All embeddings here are L2-normalised rows; a similarity is their dot product.
"""

import torch
from torch import Tensor
from torch.nn import functional as F


def cross_modal_contrast(anchors: Tensor, others: Tensor, same: Tensor, temperature: float) -> Tensor:
    """Multi-positive InfoNCE, averaged over both directions.

    anchors [N, E] and others [M, E], same [N, M] bool with a True in every row and column. For a row,
    −log(Σ_same exp(s/τ) / Σ exp(s/τ)): the positives share one probability, so they may stay apart
    from one another; that is what keeps the embeddings of one sex from falling onto one point.
    """
    logits = anchors @ others.T / temperature
    positive = logits.masked_fill(~same, -torch.inf)
    rows = torch.logsumexp(logits, 1) - torch.logsumexp(positive, 1)
    columns = torch.logsumexp(logits, 0) - torch.logsumexp(positive, 0)
    return 0.5 * (rows.mean() + columns.mean())


def contrast_within(embeddings: Tensor, same: Tensor, temperature: float) -> Tensor:
    """The same among the rows of one modality: embeddings [N, E], same [N, N] bool; an item is not its own positive.

    Every row of `same` must hold another item.
    """
    itself = torch.eye(len(embeddings), dtype=torch.bool)
    logits = (embeddings @ embeddings.T / temperature).masked_fill(itself, -torch.inf)
    positive = logits.masked_fill(~same, -torch.inf)
    return (torch.logsumexp(logits, 1) - torch.logsumexp(positive, 1)).mean()


def prototype_contrast(embeddings: Tensor, prototypes: Tensor, assignments: Tensor, temperature: float) -> Tensor:
    """Cross entropy of embeddings [N, E] over the *other* modality's prototypes [K, E].

    assignments: int64 [N], the prototype of the partner in the other modality.
    """
    return F.cross_entropy(embeddings @ prototypes.T / temperature, assignments)


def view_agreement(embeddings: Tensor, views: int) -> Tensor:
    """1 − mean cosine between an item's views; embeddings [views·N, E], all items of one view together."""
    grouped = embeddings.view(views, -1, embeddings.shape[1])
    return 1.0 - (grouped[0] * grouped[1:].mean(0)).sum(1).mean()
