"""A synthetic vowel that the speech detector accepts as speech, for the canary requests."""

from __future__ import annotations

import io
import wave
from typing import Final

import numpy as np
from numpy.typing import NDArray

RATE: Final = 16000  # Hz
PITCH: Final = (110.0, 140.0)  # Hz at the beginning and the end; the detector rejects a steady tone
FORMANTS: Final = ((700.0, 80.0), (1220.0, 90.0), (2600.0, 120.0))  # of an "ah": centre frequency and bandwidth, Hz
TOP: Final = 4000.0  # Hz; harmonics above it are left out
SYLLABLES: Final = 4.0  # a second
PEAK: Final = 0.6  # of full scale


def canary_wav(seconds: float) -> bytes:
    """A 16 kHz, 16-bit, mono WAV file with a vowel of that many seconds; deterministic."""
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(RATE)
        out.writeframes(vowel(seconds).astype("<i2").tobytes())
    return buffer.getvalue()


def vowel(seconds: float) -> NDArray[np.int16]:
    """A vowel of rising pitch, [seconds · 16000] int16: harmonics of amplitude 1/k, filtered by three formants."""
    samples = round(seconds * RATE)
    pitch = np.linspace(*PITCH, samples)
    phase = 2 * np.pi * np.cumsum(pitch) / RATE
    sound = np.zeros(samples)
    for harmonic in range(1, int(TOP / max(PITCH)) + 1):
        frequency = harmonic * pitch
        gain = np.full(samples, 1 / harmonic)
        for centre, width in FORMANTS:
            gain /= np.hypot(1 - (frequency / centre) ** 2, width * frequency / centre**2)
        sound += gain * np.cos(harmonic * phase)
    sound *= 0.6 + 0.4 * np.sin(2 * np.pi * SYLLABLES * np.arange(samples) / RATE)
    return np.rint(sound / np.abs(sound).max() * PEAK * np.iinfo(np.int16).max).astype(np.int16)
