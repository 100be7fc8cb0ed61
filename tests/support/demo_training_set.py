"""A made-up training set of the demo's training: voices with codes, and descriptors of faces with the same codes."""

import numpy as np
import torch

from voicestyle.training.batches import BatchMaker, TrainingSet
from voicestyle.training.options import TrainOptions
from voicestyle.training.pairing import VoiceAxes, unit_rows
from voicestyle.training.speaker_vectors import SpeakerVectors, unit

VOICE_DIM, FACE_DIM, CODES = 256, 128, 4
SPEAKERS, BANK, PER_SPEAKER = 24, 40, 3
OPTIONS = TrainOptions(
    epochs=3,
    speakers_per_batch=8,
    bank_faces_per_batch=6,
    clusters=4,
    learning_rate=3e-3,
    temperature=0.2,
    sex_temperature=0.3,
)


def training_set() -> tuple[TrainingSet, torch.Tensor]:
    """The set, and descriptors [P, 128] of the faces in its rows: those of the speakers, then those of the bank."""
    rng = np.random.default_rng(0)
    sex = np.arange(SPEAKERS) % 2
    space = np.linalg.qr(rng.standard_normal((VOICE_DIM, CODES + 1)))[0].T
    places = unit_rows(rng.standard_normal((SPEAKERS, CODES)))
    whole = 0.12 + 0.4 * (places @ space[:CODES] + (2 * sex - 1)[:, None] * space[-1])

    def windows(speaker: int, count: int) -> np.ndarray:
        scattered = whole[speaker] + 0.02 * rng.standard_normal((count, VOICE_DIM))
        return unit(np.maximum(scattered, 0).astype(np.float32))

    speakers = SpeakerVectors([[windows(i, 4), windows(i, 2)] for i in range(SPEAKERS)])
    crops = np.stack([np.stack([unit(row[0][j : j + 2].mean(0)) for j in range(3)]) for row in speakers.windows])
    axes = VoiceAxes.fit(speakers.means(), crops, sex, CODES)
    bank_codes = unit_rows(rng.standard_normal((BANK, CODES)))
    bank_sex = np.arange(BANK) % 2
    codes = np.concatenate([np.repeat(axes.codes(speakers.means()), PER_SPEAKER, axis=0), bank_codes])
    sexes = np.concatenate([np.repeat(sex, PER_SPEAKER), bank_sex])
    mixing = rng.standard_normal((CODES + 1, FACE_DIM))
    looks = np.concatenate([codes, 0.7 * (2 * sexes - 1)[:, None]], axis=1) @ mixing
    looks += 0.3 * rng.standard_normal(looks.shape)
    data = TrainingSet(
        speakers=speakers,
        speaker_sex=torch.from_numpy(sex),
        speaker_faces=torch.arange(SPEAKERS * PER_SPEAKER).view(SPEAKERS, PER_SPEAKER),
        bank_rows=torch.arange(SPEAKERS * PER_SPEAKER, SPEAKERS * PER_SPEAKER + BANK),
        bank_codes=bank_codes,
        bank_sex=torch.from_numpy(bank_sex),
        axes=axes,
    )
    return data, torch.from_numpy(looks.astype(np.float32))


def batch_maker(options: TrainOptions = OPTIONS) -> BatchMaker:
    """Batches of the set. A view of a face is its descriptor with noise."""
    data, descriptors = training_set()

    def views_of(rows: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        return descriptors[rows] + 0.1 * torch.randn(len(rows), FACE_DIM, generator=generator)

    return BatchMaker(data, options, views_of)
