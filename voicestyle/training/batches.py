"""Batches of the demo training: two voice crops and two views of one face for each of some speakers."""

from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from voicestyle.training.augment_faces import FaceAugmentation
from voicestyle.training.augment_voices import VoiceAugmentation
from voicestyle.training.options import TrainOptions

VIEWS = 2


@dataclass(frozen=True)
class TrainingSet:
    """log_mels: for each of S speakers its variants [1, 64, T]; speaker_sex int64 [S] (0 F, 1 M);
    images uint8 [N, H, W, 3], face_sex int64 [N]; identities int64 [S, n], the rows of images tied to each speaker."""

    log_mels: list[list[Tensor]]
    speaker_sex: Tensor
    images: NDArray[np.uint8]
    face_sex: Tensor
    identities: Tensor


@dataclass(frozen=True)
class Batch:
    """voices [2B, 1, 64, T], first views first, with speakers and sex int64 [2B]; faces [2B + M, 3, size, size]:
    those of the speakers in the same order, then M others; face_sex int64 [2B + M]."""

    voices: Tensor
    speakers: Tensor
    sex: Tensor
    faces: Tensor
    face_sex: Tensor


@dataclass(frozen=True)
class BatchMaker:
    """Draws batches; everything random comes from the generator that is passed."""

    data: TrainingSet
    options: TrainOptions
    face_augmentation: FaceAugmentation = field(default_factory=FaceAugmentation)
    voice_augmentation: VoiceAugmentation = field(default_factory=VoiceAugmentation)

    @property
    def steps_per_epoch(self) -> int:
        """Batches that together hold about as many speakers as there are."""
        return max(1, len(self.data.speaker_sex) // self.options.speakers_per_batch)

    def make(self, size: int, partners: Tensor, generator: torch.Generator) -> Batch:
        """A batch of half women, half men, its faces `size` pixels wide.

        partners: int64 [S], the row of `identities` that each speaker has at present.
        """
        speakers = self._choose(generator)
        shortest, longest = self.options.crop_frames
        frames = int(torch.randint(shortest, longest + 1, (1,), generator=generator))
        voices = [self._voice(i, frames, generator) for _ in range(VIEWS) for i in speakers.tolist()]
        column = torch.randint(self.data.identities.shape[1], (len(speakers),), generator=generator)
        paired = self.data.identities[partners[speakers], column]
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

    def _choose(self, generator: torch.Generator) -> Tensor:
        chosen: list[Tensor] = []
        for sex in self.data.speaker_sex.unique().tolist():
            ids = (self.data.speaker_sex == sex).nonzero().flatten()
            order = torch.randperm(len(ids), generator=generator)
            chosen.append(ids[order[: self.options.speakers_per_batch // 2]])
        return torch.cat(chosen)

    def _voice(self, speaker: int, frames: int, generator: torch.Generator) -> Tensor:
        variants = self.data.log_mels[speaker]
        variant = int(torch.randint(len(variants), (1,), generator=generator))
        return self.voice_augmentation(variants[variant], frames, generator)
