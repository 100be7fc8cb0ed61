"""The loss functions of CMPC (arXiv 2204.14057): cross-modal contrastive losses by instance and by prototype.

Embeddings are L2-normalised rows, so that their dot product is the cosine similarity. `instance_contrast`,
`prototype_contrast` and `instance_weights` are the three parts of the paper's objective; the other functions belong to
the demo's training, whose pairs of voices and faces are made up.
"""

import torch
from torch import Tensor
from torch.nn import functional as F


def unit(embeddings: Tensor) -> Tensor:
    """L2-normalise embeddings [N, E] in at least float32."""
    return F.normalize(embeddings if embeddings.dtype == torch.float64 else embeddings.float(), dim=1)


def instance_contrast(anchors: Tensor, others: Tensor, temperature: float, negatives: Tensor | None = None) -> Tensor:
    """Cross-modal instance contrast (InfoNCE) of each anchor with the other modality, float [N].

    anchors, others: [N, E], row i of both from video i. The loss of a row is −log(exp(s_ii/τ) / (Σ_j exp(s_ij/τ) +
    Σ_m exp(n_im/τ))), with the cosines n [N, M] to further negatives of the other modality; −inf removes one.
    """
    logits = anchors @ others.T
    if negatives is not None:
        logits = torch.cat([logits, negatives], dim=1)
    return F.cross_entropy(logits / temperature, torch.arange(len(anchors), device=anchors.device), reduction="none")


def prototype_contrast(
    embeddings: Tensor, prototypes: Tensor, assignments: Tensor, temperature: Tensor | float
) -> Tensor:
    """Cross-modal prototype contrast, float [N]: cross entropy over the prototypes of the *other* modality.

    embeddings: [N, E]. prototypes: [K, E]. assignments: int64 [N], the prototype of each item's partner in the other
    modality. temperature: one, or one for each prototype [K] (see `clusters.concentration`).
    """
    return F.cross_entropy(embeddings @ prototypes.T / temperature, assignments, reduction="none")


def instance_weights(instance: Tensor, prototype: Tensor, delta: float, kappa: float) -> Tensor:
    """Instance re-weighting: weights in (0, 1), float [N], low for pairs whose voice and face fit badly.

    instance: [N], cosine of the voice and the face of each pair. prototype: [N], cosine of the prototypes that the pair
    belongs to, averaged over the levels. With ρ = instance − prototype, and its mean μ and standard deviation σ over
    the batch, the weight is the cumulative normal distribution of N(μ + δ·σ, κ·σ²) at ρ. Has no gradient.
    """
    rho = (instance - prototype).detach()
    mean, deviation = rho.mean(), rho.std(correction=0).clamp(min=1e-12)
    return torch.special.ndtr((rho - mean - delta * deviation) / (kappa**0.5 * deviation))


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
