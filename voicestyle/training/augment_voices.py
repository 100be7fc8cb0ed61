"""Augmentation of voices: crops of a recording under different acoustic conditions.

Speed and pitch are not changed, because they contain what the encoder must learn. `recording_variants` processes
samples, `VoiceAugmentation` crops of log-mels.
"""

from dataclasses import dataclass

import numpy as np
import soxr
import torch
from numpy.typing import NDArray
from torch import Tensor

_RATE = 16_000


def recording_variants(samples: NDArray[np.int16], rng: np.random.Generator) -> list[NDArray[np.int16]]:
    """Variants of a recording [n], int16 [n] each, 16 kHz: unchanged, by telephone, with noise, in a small room."""
    wave = samples.astype(np.float64)
    # The band edges of VHQ would be too sharp for a telephone; QQ is the quality of cheap converters.
    quality = str(rng.choice(["QQ", "HQ"]))
    telephone = soxr.resample(soxr.resample(wave, _RATE, 8_000, quality), 8_000, _RATE, quality)
    noise = _coloured_noise(len(wave), rng) * wave.std() * 10 ** (-rng.uniform(5, 25) / 20)
    decay = np.exp(-np.arange(int(0.2 * _RATE)) / (rng.uniform(0.01, 0.05) * _RATE))
    echo = decay * rng.standard_normal(len(decay)) * 0.1
    echo[0] = 1.0
    room = np.fft.irfft(np.fft.rfft(wave, 2 * len(wave)) * np.fft.rfft(echo, 2 * len(wave)))
    return [_as_int16(each, len(samples)) for each in (wave, telephone, wave + noise, room)]


def _coloured_noise(count: int, rng: np.random.Generator) -> NDArray[np.float64]:
    spectrum = np.fft.rfft(rng.standard_normal(count))
    spectrum *= (1.0 + np.arange(len(spectrum))) ** -rng.uniform(0.0, 0.7)
    noise = np.fft.irfft(spectrum, count)
    return noise / (noise.std() + 1e-12)


def _as_int16(wave: NDArray[np.float64], count: int) -> NDArray[np.int16]:
    fitted = np.zeros(count)
    fitted[: min(count, len(wave))] = wave[:count]
    return np.clip(np.rint(fitted), -32768, 32767).astype(np.int16)


@dataclass(frozen=True)
class VoiceAugmentation:
    """Random masks and noise on log-mel crops. Widths are in bands and frames, chances are probabilities per crop."""

    band_mask: int = 8
    frame_mask: int = 40
    band_shift: int = 1
    noise: float = 0.3
    telephone_chance: float = 0.25
    telephone_band: int = 46
    renormalise_chance: float = 0.5

    def __call__(self, log_mel: Tensor, frames: int, generator: torch.Generator) -> Tensor:
        """Make a random crop [1, 64, frames] of log_mel [1, 64, T], which is repeated if it is shorter."""
        crop = _crop(log_mel, frames, generator)
        if _chance(self.renormalise_chance, generator):
            crop = (crop - crop.mean(2, keepdim=True)) / (crop.std(2, keepdim=True) + 1e-3)
        crop = torch.roll(crop, _between(-self.band_shift, self.band_shift, generator), 1)
        crop = crop + self.noise * torch.rand(1, generator=generator) * torch.randn(crop.shape, generator=generator)
        if _chance(self.telephone_chance, generator):
            upper = crop[:, self.telephone_band :]
            loudness = float(torch.rand(1, generator=generator).round())
            crop[:, self.telephone_band :] = loudness * torch.randn(upper.shape, generator=generator)
        for axis, widest in ((1, self.band_mask), (2, self.frame_mask)):
            width = _between(0, min(widest, crop.shape[axis] // 2), generator)
            start = _between(0, crop.shape[axis] - width, generator)
            crop.narrow(axis, start, width).zero_()
        return crop


def _crop(log_mel: Tensor, frames: int, generator: torch.Generator) -> Tensor:
    repeats = -(-frames // log_mel.shape[2])
    log_mel = log_mel.repeat(1, 1, repeats)
    start = _between(0, log_mel.shape[2] - frames, generator)
    return log_mel[:, :, start : start + frames].clone()


def _between(low: int, high: int, generator: torch.Generator) -> int:
    return int(torch.randint(low, high + 1, (1,), generator=generator))


def _chance(probability: float, generator: torch.Generator) -> bool:
    return bool(torch.rand(1, generator=generator) < probability)
