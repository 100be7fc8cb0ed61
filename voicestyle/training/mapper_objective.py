"""What the mapper is trained to minimise, and how the bundle's frozen networks see its latents.

For a voice v, its face f and its latent w = mapper(v, first), the loss is

    1 − cos(v, f) + contrast_weight · InfoNCE + prior_weight · distance + drift_weight · drift

Similarity and prior alone can be minimised by one face for all voices of a sex that the face encoder happens to like.
Two terms prevent it. The contrast asks that a face is more similar to its own voice than to the other voices of the
batch: −log(exp(cos(v_i, f_i)/τ) / Σ_j exp(cos(v_j, f_i)/τ)). The drift is the squared mean of the whitened
displacements w − first over the batch: what changes in all faces alike belongs to no voice.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from voicestyle.engine import FaceEncoder, Generator, encoder_input
from voicestyle.latent_prior import LatentPrior
from voicestyle.training.losses import unit
from voicestyle.training.mapper_options import MapperOptions
from voicestyle.training.mapper_pool import Drawn


@dataclass(frozen=True)
class FaceNetworks:
    """Generator and face encoder of a bundle, frozen. at_once: faces that go through them together."""

    generator: Generator
    face_encoder: FaceEncoder
    image_size: int
    encoder_size: int
    device: torch.device
    at_once: int

    def parts(self, latents: Tensor, noise_seeds: Sequence[int]) -> Iterator[tuple[slice, Tensor]]:
        """Slices of the latents [n, …], and the embeddings [m, E] of their faces, unit vectors, with gradients."""
        for start in range(0, len(latents), self.at_once):
            part = slice(start, min(start + self.at_once, len(latents)))
            images = self.generator(latents[part].to(self.device), self._noise(noise_seeds[part]))
            yield part, unit(self.face_encoder(encoder_input(images, self.image_size, self.encoder_size)))

    @torch.no_grad()
    def embed(self, latents: Tensor, noise_seeds: Sequence[int]) -> Tensor:
        """The embeddings of all faces [n, E], on the CPU."""
        return torch.cat([faces.cpu() for _, faces in self.parts(latents, noise_seeds)])

    def _noise(self, seeds: Sequence[int]) -> list[Tensor]:
        """Noise maps [n, 1, R, R], as `Engine.add` draws them for a seed."""
        sources = [torch.Generator().manual_seed(seed) for seed in seeds]
        rows = [[torch.randn(1, *size, generator=source) for size in self.generator.noise_shapes] for source in sources]
        return [torch.stack(maps).to(self.device) for maps in zip(*rows, strict=True)]


@dataclass(frozen=True)
class Losses:
    """Means over a batch: the loss, its parts without their weights, and the similarity. Floats; drift of the batch."""

    loss: float
    similarity: float
    contrast: float
    distance: float
    drift: float


class MapperObjective:
    """The loss of a batch, and its gradient with respect to the latents. prior_weight: already chosen."""

    def __init__(self, networks: FaceNetworks, prior: LatentPrior, prior_weight: float, options: MapperOptions) -> None:
        self.networks, self.prior_weight, self._options = networks, prior_weight, options
        self._whitening = torch.from_numpy(prior.whitening)

    def gradient(self, latents: Tensor, drawn: Drawn) -> tuple[Tensor, Losses]:
        """A scalar with the gradient of the loss with respect to the parameters behind `latents`, and the losses.

        latents: [n, D] or [n, L, D] of the drawn voices, of which the first ones get faces. Faces are generated
        `at_once` at a time, so memory does not depend on the batch: the loss of a face needs no other face.
        """
        count = len(drawn.noise_seeds)
        leaf = latents[:count].detach().requires_grad_()
        gradients: list[Tensor] = []
        figures: list[Tensor] = []
        for part, faces in self.networks.parts(leaf, drawn.noise_seeds):
            similarity, contrast = self._face_terms(faces, drawn, part)
            loss = (1 - similarity + self._options.contrast_weight * contrast).sum() / count
            gradients.append(torch.autograd.grad(loss, leaf)[0][part])
            figures.append(torch.stack([similarity.detach(), contrast.detach()]).cpu())
        distance, drift = self._latent_terms(latents, drawn.first)
        regularisation = self.prior_weight * distance + self._options.drift_weight * drift
        scalar = (latents[:count] * torch.cat(gradients)).sum() + regularisation
        return scalar, self._losses(torch.cat(figures, dim=1).mean(dim=1), distance, drift)

    @torch.no_grad()
    def evaluate(self, latents: Tensor, drawn: Drawn) -> tuple[Losses, Tensor]:
        """The losses of latents that all get faces, and the faces' embeddings [n, E]."""
        faces = self.networks.embed(latents, drawn.noise_seeds)
        terms = torch.stack(self._face_terms(faces, drawn, slice(0, len(faces))))
        return self._losses(terms.mean(dim=1), *self._latent_terms(latents, drawn.first)), faces

    def _face_terms(self, faces: Tensor, drawn: Drawn, part: slice) -> tuple[Tensor, Tensor]:
        """Similarity and contrast [n] of faces [n, E] to the voices of rows `part`."""
        cosines = faces @ drawn.embeddings.to(faces).T
        rows = torch.arange(part.start, part.stop, device=faces.device)
        own = F.one_hot(rows, len(drawn.embeddings)).bool()
        no_negatives = drawn.related[part].to(faces.device) & ~own
        logits = (cosines / self._options.temperature).masked_fill(no_negatives, -torch.inf)
        return cosines[own], F.cross_entropy(logits, rows, reduction="none")

    def _latent_terms(self, latents: Tensor, first: Tensor) -> tuple[Tensor, Tensor]:
        """The mean distance from the first latent, and the drift; both are 1 for a step of one standard deviation."""
        moved = (latents - first) @ self._whitening.T  # [n, R] or [n, L, R]
        return moved.square().mean(), moved.mean(dim=0).square().mean()

    def _losses(self, faces: Tensor, distance: Tensor, drift: Tensor) -> Losses:
        similarity, contrast = faces.tolist()
        loss = 1 - similarity + self._options.contrast_weight * contrast
        loss += self.prior_weight * float(distance.detach()) + self._options.drift_weight * float(drift.detach())
        return Losses(loss, similarity, contrast, float(distance.detach()), float(drift.detach()))


def between(faces: Tensor) -> float:
    """Mean cosine between the unit vectors [n, E] of different faces, n ≥ 2: 1 where all faces are one."""
    count = len(faces)
    total = faces.sum(dim=0).square().sum() - faces.square().sum()
    return float(total / (count * (count - 1)))
