"""Batches of the demo training: two crops of a voice and two views of a face of each identity.

An identity is a training speaker with the faces of the speaker's code, or a face of the bank with a made-up voice of
its code (`pairing`): a few hundred speakers are too few to fill the space of voices.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from voicestyle.training.options import TrainOptions
from voicestyle.training.pairing import VoiceAxes
from voicestyle.training.randomness import Draw, keyed_generator
from voicestyle.training.speaker_vectors import SpeakerVectors, unit

VIEWS = 2

ViewsOf = Callable[[Tensor, torch.Generator], Tensor]
"""Random views of the faces in some rows, int64 [n]: descriptors [n, F], or images [n, 3, H, W]."""


@dataclass(frozen=True)
class TrainingSet:
    """speakers: their vectors. speaker_sex: int64 [S], 0 for F and 1 for M. speaker_faces: int64 [S, n], rows of faces
    of each speaker. bank_rows: int64 [B], rows of the bank's faces. bank_codes: float64 [B, K]. bank_sex: int64 [B].
    axes: those of the codes."""

    speakers: SpeakerVectors
    speaker_sex: Tensor
    speaker_faces: Tensor
    bank_rows: Tensor
    bank_codes: NDArray[np.float64]
    bank_sex: Tensor
    axes: VoiceAxes

    def made_up_voices(self, others: Tensor, generator: torch.Generator) -> NDArray[np.float32]:
        """Vectors [n, V] of voices with the codes of faces of the bank, and with what differs between the crops of a
        random speaker."""
        whole = self.axes.vectors(self.bank_codes[others.numpy()], self.bank_sex[others].numpy())
        speakers = torch.randint(len(self.speaker_sex), (len(others),), generator=generator).tolist()
        changes = [self.speakers.crop(i, generator) - unit(self.speakers.windows[i][0].mean(0)) for i in speakers]
        # GE2E's vectors have no negative components.
        return unit(np.maximum(whole + np.stack(changes), 0).astype(np.float32))


@dataclass(frozen=True)
class Batch:
    """voices: [2N, V], the first crops of N identities, then the second ones. faces: views in the same order.
    identities, sex: int64 [2N]; identities below S are speakers."""

    voices: Tensor
    faces: Tensor
    identities: Tensor
    sex: Tensor


@dataclass(frozen=True)
class BatchMaker:
    """Draws random batches, the source of the demo's trainer."""

    data: TrainingSet
    options: TrainOptions
    views_of: ViewsOf

    @property
    def steps_per_epoch(self) -> int:
        """Number of batches that together contain about as many speakers as the training set."""
        return max(1, len(self.data.speaker_sex) // self.options.speakers_per_batch)

    def description(self) -> dict[str, Any]:
        """The speakers' vectors and the number of faces. The options are the objective's."""
        return {"speakers": self.data.speakers.sha256(), "faces": len(self.data.bank_rows)}

    def batches(self, epoch: int) -> Iterator[Batch]:
        """The batches of an epoch."""
        for step in range(self.steps_per_epoch):
            yield self.make(keyed_generator(Draw.BATCH, self.options.seed, epoch, step))

    def make(self, generator: torch.Generator) -> Batch:
        """Draw a batch, of speakers half women and half men, then faces of the bank."""
        data = self.data
        speakers = self._choose(generator)
        others = torch.randperm(len(data.bank_rows), generator=generator)[: self.options.bank_faces_per_batch]
        voices: list[NDArray[np.float32]] = []
        rows: list[Tensor] = []
        for _ in range(VIEWS):
            voices += [data.speakers.crop(i, generator) for i in speakers.tolist()]
            voices += list(data.made_up_voices(others, generator))
            column = torch.randint(data.speaker_faces.shape[1], (len(speakers),), generator=generator)
            rows += [data.speaker_faces[speakers, column], data.bank_rows[others]]
        identities = torch.cat([speakers, len(data.speaker_sex) + others])
        sex = torch.cat([data.speaker_sex[speakers], data.bank_sex[others]])
        return Batch(
            voices=torch.from_numpy(np.stack(voices)),
            faces=self.views_of(torch.cat(rows), generator),
            identities=identities.repeat(VIEWS),
            sex=sex.repeat(VIEWS),
        )

    def _choose(self, generator: torch.Generator) -> Tensor:
        chosen: list[Tensor] = []
        for sex in (0, 1):
            ids = (self.data.speaker_sex == sex).nonzero().flatten()
            order = torch.randperm(len(ids), generator=generator)
            chosen.append(ids[order[: self.options.speakers_per_batch // 2]])
        return torch.cat(chosen)
