"""The first stages of a request: from audio bytes to a voice embedding."""

from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cmpc2.audio import SAMPLE_RATE, decode
from cmpc2.errors import AudioError
from cmpc2.log_mel import log_mel
from cmpc2.vad import speech_only
from voicestyle.errors import InputError
from voicestyle.manifest import Limits
from voicestyle.torchscript import CompiledModule

FULL_SCALE = 32768.0  # of int16 samples


@dataclass(frozen=True)
class Voice:
    """A voice embedding [E], float32 on the CPU, the duration of audio and speech, and the seconds of each stage."""

    embedding: Tensor
    audio_seconds: float
    speech_seconds: float
    timings: dict[str, float]


def voice_features(speech: NDArray[np.int16], front_end: CompiledModule | None, device: torch.device | str) -> Tensor:
    """The features float32 [1, C, T] that the voice encoder takes [N, 1, C, T] of, from speech int16 [n] at 16 kHz.

    front_end: that of the bundle, on `device`; None is CMPC's log-mel [1, 64, T ≥ 800], computed on the CPU.
    """
    if front_end is None:
        return torch.from_numpy(log_mel(speech))
    with torch.inference_mode():
        return front_end((torch.from_numpy(speech).float() / FULL_SCALE).to(device))


def embed_voice(
    audio: bytes | Path,
    encoder: CompiledModule,
    limits: Limits,
    device: torch.device | str,
    front_end: CompiledModule | None = None,
) -> Voice:
    """Embed the voice in audio of any format that libsndfile reads. front_end: as in `voice_features`.

    Raises:
        InputError: not_audio, too_long, no_speech or too_short.
    """
    timings: dict[str, float] = {}
    try:
        start = perf_counter()
        samples = decode(audio, max_seconds=limits.audio_seconds)
        timings["decode"] = perf_counter() - start

        start = perf_counter()
        speech = speech_only(samples)
    except AudioError as error:
        raise InputError(error.code, error.message) from error
    speech_seconds = len(speech) / SAMPLE_RATE
    if speech_seconds < limits.min_speech_seconds:
        raise InputError(
            "too_short",
            f"the audio must contain at least {limits.min_speech_seconds:g} s of speech, got {speech_seconds:.2f} s",
        )
    features = voice_features(speech, front_end, device)
    timings["front_end"] = perf_counter() - start

    start = perf_counter()
    with torch.inference_mode():
        embedding = encoder(features[None].to(device))[0].float().cpu()
    timings["voice_encoder"] = perf_counter() - start
    return Voice(embedding.clone(), len(samples) / SAMPLE_RATE, speech_seconds, timings)
