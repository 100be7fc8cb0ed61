"""Batches of the demo training: two crops of a voice and two views of a face per speaker."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from voicestyle.training.augment_faces import FaceAugmentation
from voicestyle.training.augment_voices import VoiceAugmentation
from voicestyle.training.options import TrainOptions
from voicestyle.training.randomness import Draw, keyed_generator, random_below

VIEWS = 2


@dataclass(frozen=True)
class TrainingSet:
    """log_mels: variants [1, 64, T] of each of S speakers' recordings. speaker_sex: int64 [S], 0 for F and 1 for M.
    images: uint8 [N, H, W, 3]. face_sex: int64 [N]. identities: int64 [S, n], rows of images of each identity."""

    log_mels: list[list[Tensor]]
    speaker_sex: Tensor
    images: NDArray[np.uint8]
    face_sex: Tensor
    identities: Tensor


@dataclass(frozen=True)
class Batch:
    """voices: [2B, 1, 64, T], the first crops of all B speakers, then the second ones. speakers, sex: int64 [2B].
    faces: [2B + M, 3, size, size], those of the speakers in the same order, then M others. face_sex: int64 [2B + M]."""

    voices: Tensor
    speakers: Tensor
    sex: Tensor
    faces: Tensor
    face_sex: Tensor


@dataclass
class BatchMaker:
    """Draws random batches, the source of the demo's trainer.

    partners: int64 [S], the row of `data.identities` currently assigned to each speaker; the objective changes it.
    """

    data: TrainingSet
    options: TrainOptions
    face_augmentation: FaceAugmentation = field(default_factory=FaceAugmentation)
    voice_augmentation: VoiceAugmentation = field(default_factory=VoiceAugmentation)

    def __post_init__(self) -> None:
        self.partners = torch.arange(len(self.data.speaker_sex))

    @property
    def steps_per_epoch(self) -> int:
        """Number of batches that together contain about as many speakers as the training set."""
        return max(1, len(self.data.speaker_sex) // self.options.speakers_per_batch)

    def description(self) -> dict[str, Any]:
        """The number of speakers and faces. The options are the objective's."""
        return {"speakers": len(self.data.speaker_sex), "faces": len(self.data.images)}

    def batches(self, epoch: int) -> Iterator[Batch]:
        """The batches of an epoch."""
        for step in range(self.steps_per_epoch):
            generator = keyed_generator(Draw.BATCH, self.options.seed, epoch, step)
            yield self.make(self._face_size(epoch, generator), generator)

    def make(self, size: int, generator: torch.Generator) -> Batch:
        """Draw a batch, half women and half men, with faces of `size` pixels."""
        speakers = self._choose(generator)
        shortest, longest = self.options.crop_frames
        frames = shortest + random_below(longest + 1 - shortest, generator)
        voices = [self._voice(i, frames, generator) for _ in range(VIEWS) for i in speakers.tolist()]
        column = torch.randint(self.data.identities.shape[1], (len(speakers),), generator=generator)
        paired = self.data.identities[self.partners[speakers], column]
        others = torch.randint(len(self.data.images), (self.options.other_faces,), generator=generator)
        rows = torch.cat([paired.repeat(VIEWS), others])
        pixels = torch.from_numpy(self.data.images[rows.numpy()])
        images = pixels.permute(0, 3, 1, 2).float() / 127.5 - 1
        return Batch(
            voices=torch.stack(voices),
            speakers=speakers.repeat(VIEWS),
            sex=self.data.speaker_sex[speakers].repeat(VIEWS),
            faces=self.face_augmentation(images, size, generator),
            face_sex=self.data.face_sex[rows],
        )

    def _face_size(self, epoch: int, generator: torch.Generator) -> int:
        sizes = self.options.face_sizes
        if epoch >= (1 - self.options.full_size_share) * self.options.epochs:
            return sizes[-1]
        return sizes[random_below(len(sizes), generator)]

    def _choose(self, generator: torch.Generator) -> Tensor:
        chosen: list[Tensor] = []
        for sex in self.data.speaker_sex.unique().tolist():
            ids = (self.data.speaker_sex == sex).nonzero().flatten()
            order = torch.randperm(len(ids), generator=generator)
            chosen.append(ids[order[: self.options.speakers_per_batch // 2]])
        return torch.cat(chosen)

    def _voice(self, speaker: int, frames: int, generator: torch.Generator) -> Tensor:
        variants = self.data.log_mels[speaker]
        return self.voice_augmentation(variants[random_below(len(variants), generator)], frames, generator)
