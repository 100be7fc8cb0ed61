"""The voices that the mapper is trained on: embeddings, their first latents, and what a step draws of them."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor
from torch.nn import functional as F

from voicestyle.training.errors import TrainingDataError
from voicestyle.training.losses import unit
from voicestyle.training.randomness import Draw, keyed_generator, random_below

FirstLatents = Callable[[Tensor], Tensor]
"""Embeddings [N, E] to first latents [N, D] or [N, L, D]."""

Voices = Sequence[tuple[Tensor, str]]
"""Embeddings [E] of any norm, each with the id of its speaker; a speaker may have any number of them."""

HELD_OUT_SHARE = 0.1
LEAST_HELD_OUT = 4
NEAR = 8  # speakers, with one of whom a voice is mixed
LARGEST_NOISE_SEED = 2**31


@dataclass(frozen=True)
class Drawn:
    """The voices of a step, of different speakers. embeddings: [n, E], unit vectors. first: [n, D] or [n, L, D].

    related: bool [n, n], voices that share a speaker, so that they are no negatives of each other; true on the
    diagonal. noise_seeds: one for each voice whose face is generated; these come first. After `with_negatives`, there
    are m more embeddings, and columns of `related`, of voices that are nothing but negatives.
    """

    embeddings: Tensor
    first: Tensor
    related: Tensor
    noise_seeds: list[int]

    def with_negatives(self, embeddings: Tensor) -> "Drawn":
        """The same voices, and further ones [m, E] of other speakers as negatives of all of them."""
        related = torch.zeros(len(self.related), len(embeddings), dtype=torch.bool)
        return replace(
            self,
            embeddings=torch.cat([self.embeddings, embeddings]),
            related=torch.cat([self.related, related], dim=1),
        )


@dataclass(frozen=True)
class VoicePool:
    """embeddings: [N, E], unit vectors. first: [N, D] or [N, L, D]. speakers: int64 [N, 2], the speakers of each voice;
    twice the same one where it is not mixed."""

    embeddings: Tensor
    first: Tensor
    speakers: Tensor
    _rows: list[Tensor] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        own = self.speakers[:, 0]
        object.__setattr__(self, "_rows", [(own == speaker).nonzero().flatten() for speaker in own.unique()])

    def __len__(self) -> int:
        return len(self._rows)

    def draw(self, batch: int, others: int, seed: int, step: int) -> Drawn:
        """The voices of a training step: `batch` with faces and `others` without, or fewer if there are fewer speakers.

        Depends on the seed and the step alone.
        """
        generator = keyed_generator(Draw.BATCH, seed, step)
        chosen = torch.randperm(len(self), generator=generator)[: batch + others].tolist()
        rows = [int(self._rows[speaker][random_below(len(self._rows[speaker]), generator)]) for speaker in chosen]
        seeds = torch.randint(LARGEST_NOISE_SEED, (min(batch, len(rows)),), generator=generator).tolist()
        return self._take(torch.tensor(rows), seeds)

    def fixed(self, count: int) -> Drawn:
        """The first voice of each of the first `count` speakers, with faces of the noise seeds 0 … count − 1."""
        rows = [int(rows[0]) for rows in self._rows[:count]]
        return self._take(torch.tensor(rows, dtype=torch.int64), list(range(len(rows))))

    def _take(self, rows: Tensor, noise_seeds: list[int]) -> Drawn:
        speakers = self.speakers[rows]
        related = (speakers[:, None, :, None] == speakers[None, :, None, :]).flatten(2).any(dim=2)
        return Drawn(self.embeddings[rows], self.first[rows], related, noise_seeds)


def split_speakers(speakers: Sequence[str]) -> tuple[list[str], list[str]]:
    """Training and held-out speakers, by the SHA-256 of their ids: a tenth is held out, but at least four.

    Ordered by that hash, so that the first ones are a fair sample. Raises TrainingDataError for fewer than eight.
    """
    different = sorted(set(speakers), key=lambda speaker: hashlib.sha256(speaker.encode()).digest())
    if len(different) < 2 * LEAST_HELD_OUT:
        raise TrainingDataError(
            f"the training of a mapper needs at least {2 * LEAST_HELD_OUT} speakers ({LEAST_HELD_OUT} are held out), "
            f"received {len(different)}"
        )
    count = max(LEAST_HELD_OUT, round(HELD_OUT_SHARE * len(different)))
    return different[count:], different[:count]


def make_pool(
    voices: Voices, speakers: Sequence[str], first_latents: FirstLatents, *, virtual: float = 0.0, seed: int = 0
) -> VoicePool:
    """The voices of `speakers`, and `virtual` mixed ones for each of them.

    A mixed voice is the L2-normalised convex combination of a voice and one of the `NEAR` speakers whose mean
    embeddings are most similar; the weight of the first is uniform in 0.5 … 1. It has the first latent that the bundle
    gives to its own embedding.
    """
    number = {speaker: index for index, speaker in enumerate(speakers)}
    used = [(embedding, number[speaker]) for embedding, speaker in voices if speaker in number]
    embeddings = unit(torch.stack([embedding for embedding, _ in used]))
    own = torch.tensor([speaker for _, speaker in used])
    pairs = torch.stack([own, own], dim=1)
    if virtual and len(speakers) > 1:
        mixed, both = _mix(embeddings, own, round(virtual * len(own)), keyed_generator(Draw.ITEM, seed))
        embeddings, pairs = torch.cat([embeddings, mixed]), torch.cat([pairs, both])
    return VoicePool(embeddings, first_latents(embeddings), pairs)


def _mix(embeddings: Tensor, own: Tensor, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """`count` mixed voices [count, E] and their speakers [count, 2]."""
    people = int(own.max()) + 1
    sums = torch.zeros(people, embeddings.shape[1]).index_add_(0, own, embeddings)
    means = F.normalize(sums, dim=1)
    cosines = (means @ means.T).fill_diagonal_(-torch.inf)
    near = cosines.topk(min(NEAR, people - 1), dim=1).indices
    rows_of = [(own == speaker).nonzero().flatten() for speaker in range(people)]
    mixed: list[Tensor] = []
    both: list[Tensor] = []
    for index in range(count):
        row = index % len(own)
        partner = near[own[row], random_below(near.shape[1], generator)]
        other = rows_of[int(partner)][random_below(len(rows_of[int(partner)]), generator)]
        weight = 0.5 + 0.5 * torch.rand(1, generator=generator)
        mixed.append(weight * embeddings[row] + (1 - weight) * embeddings[other])
        both.append(torch.stack([own[row], partner]))
    return F.normalize(torch.stack(mixed), dim=1), torch.stack(both)
