"""GE2E vectors of the training speakers' recordings: one for each window of each condition."""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from cmpc2 import AudioError, decode, speech_only
from cmpc2.audio import FULL_SCALE
from voicestyle.training.errors import TrainingDataError
from voicestyle.training.faces import Progress
from voicestyle.training.randomness import random_below
from voicestyle.training.voices import Speaker
from voicestyle.voice_conditions import Condition
from voicestyle.voice_networks import Ge2e, Ge2eFrontEnd
from voicestyle.whole_files import whole_file

Windows = NDArray[np.float32]
"""Unit vectors [P, 256] of the windows of one recording, in their order."""

FRAMES, STEP = Ge2e.frames, Ge2e.step


@dataclass(frozen=True)
class SpeakerVectors:
    """windows: for each speaker, the windows of the recording itself, then those under each condition."""

    windows: list[list[Windows]]

    def means(self) -> NDArray[np.float32]:
        """The vector of each speaker's whole recording, float32 [S, 256], of length 1."""
        return np.stack([unit(each[0].mean(0)) for each in self.windows])

    def sha256(self) -> str:
        """The hash of all vectors."""
        digest = hashlib.sha256()
        for windows in (windows for variants in self.windows for windows in variants):
            digest.update(f"{windows.shape}".encode() + np.ascontiguousarray(windows).tobytes())
        return digest.hexdigest()

    def crop(self, speaker: int, generator: torch.Generator) -> NDArray[np.float32]:
        """The vector [256] of a random part of the speaker's recording, under a random condition or under none."""
        variants = self.windows[speaker]
        # Half of the crops are from the recording itself.
        clean = random_below(2, generator) == 0
        windows = variants[0 if clean else random_below(len(variants), generator)]
        count = 1 + random_below(len(windows), generator)
        start = random_below(len(windows) - count + 1, generator)
        return unit(windows[start : start + count].mean(0))


def unit(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Scale the rows of [..., E] to length 1."""
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


@torch.inference_mode()
def window_vectors(network: Ge2e, samples: NDArray[np.int16]) -> Windows:
    """GE2E's vector of each window of a recording [n], 16 kHz, without silence."""
    features = Ge2eFrontEnd()(torch.from_numpy(samples.astype(np.float32) / FULL_SCALE))  # [1, 40, T]
    return network(features.unfold(2, FRAMES, STEP).permute(2, 0, 1, 3)).numpy()


def speaker_vectors(
    folder: Path,
    speakers: list[Speaker],
    conditions: Mapping[str, Condition],
    network: Callable[[], Ge2e],
    cache: Path,
    progress: Progress,
) -> SpeakerVectors:
    """The vectors of each speaker's recording, alone and under `conditions`, stored in `cache` (.npz).

    Speech is detected in the recording itself, as conditions are made from it. The cache is reused for the same names
    and sizes of files. Raises TrainingDataError for a file that is no recording of speech.
    """
    names = ["none", *conditions]
    files = ",".join(f"{speaker.file} {(folder / speaker.file).stat().st_size}" for speaker in speakers)
    key = hashlib.sha256(f"{names} {files}".encode()).hexdigest()
    if cache.is_file():
        with np.load(cache, allow_pickle=False) as stored:
            if str(stored["key"]) == key:
                return SpeakerVectors(
                    [[stored[f"{i}_{name}"].astype(np.float32) for name in names] for i in range(len(speakers))]
                )
    ge2e = network()
    arrays: dict[str, NDArray[np.float16]] = {}
    for i in progress(range(len(speakers))):
        try:
            speech = speech_only(decode(folder / speakers[i].file))
        except AudioError as error:
            raise TrainingDataError(f"{folder / speakers[i].file}: {error.message}") from error
        source = np.random.Generator(np.random.Philox(i))
        recordings = [speech, *(condition(speech, source) for condition in conditions.values())]
        for name, recording in zip(names, recordings, strict=True):
            arrays[f"{i}_{name}"] = window_vectors(ge2e, recording).astype(np.float16)
    with whole_file(cache) as draft, draft.open("wb") as file:
        np.savez(file, allow_pickle=False, key=np.array(key), **arrays)
    return SpeakerVectors([[arrays[f"{i}_{name}"].astype(np.float32) for name in names] for i in range(len(speakers))])
