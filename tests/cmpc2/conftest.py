"""Synthetic sounds for tests without files."""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray

RATE = 16_000


def vowel(seconds: float, rate: int = RATE, pitch: float = 120.0) -> NDArray[np.float64]:
    """A synthetic vowel [n] in ±0.5: harmonics of a varying pitch, weighted by the formants of an "a"."""
    t = np.arange(int(seconds * rate)) / rate
    phase = 2 * np.pi * np.cumsum(pitch * (1 + 0.05 * np.sin(2 * np.pi * 3 * t))) / rate
    sound = np.zeros_like(t)
    for harmonic in range(1, 30):
        hz = harmonic * pitch
        gain = sum(a / (1 + ((hz - f) / 90) ** 2) for f, a in ((700, 1.0), (1200, 0.6), (2600, 0.25)))
        sound += (gain + 0.01) * np.sin(harmonic * phase)
    return 0.5 * sound / max(1e-9, np.abs(sound).max(initial=0.0))


def as_int16(sound: NDArray[np.float64]) -> NDArray[np.int16]:
    return np.rint(sound * 32767).astype(np.int16)


@pytest.fixture
def speech() -> NDArray[np.int16]:
    """4.3 s int16 at 16 kHz: two voiced parts with pauses before, between and after them, and noise everywhere."""
    rng = np.random.default_rng(0)
    parts = [np.zeros(8000), vowel(1.2), np.zeros(12000), vowel(1.3, pitch=180.0), np.zeros(8800)]
    sound = np.concatenate(parts)
    return as_int16(sound + 1e-3 * rng.standard_normal(len(sound)))


Encode = Callable[..., bytes]


@pytest.fixture
def encode() -> Encode:
    """`encode(samples, rate, format, subtype)`: the bytes of a sound file."""

    def encode(samples: NDArray[np.generic], rate: int = RATE, form: str = "WAV", subtype: str = "PCM_16") -> bytes:
        file = io.BytesIO()
        soundfile.write(file, samples, rate, format=form, subtype=subtype)
        return file.getvalue()

    return encode
