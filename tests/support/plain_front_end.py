"""The audio front end as a plain loop over frames, from the published numbers: the oracle of `tests/cmpc2`.

It shares no code with `cmpc2`.
"""

import io
from collections import deque

import numpy as np
import soundfile
import webrtcvad
from numpy.typing import NDArray

RATE = 16_000
VAD_MODE, VAD_FRAME = 2, 320
WINDOW, HOP, FFT, BANDS = 400, 160, 1024, 64
LOWEST_HZ, HIGHEST_HZ = 20.0, 7200.0
PRE_EMPHASIS, FLOOR = 0.97, 1e-5
MIN_FRAMES = 800

Frame = NDArray[np.float64]


def emphasise(frame: Frame, before: float) -> Frame:
    """Pre-emphasis of a frame [400] after the sample `before`."""
    return frame - PRE_EMPHASIS * np.append(before, frame[:-1])


def front_end(audio: bytes) -> NDArray[np.float32]:
    """The log-mel [1, 64, T ≥ 800] of a 16-bit 16 kHz mono file that holds speech."""
    samples, _ = soundfile.read(io.BytesIO(audio), dtype="int16")
    return log_mel(speech_only(samples.astype(np.int16)))


def speech_only(samples: NDArray[np.int16]) -> NDArray[np.int16]:
    """Join the segments of speech in samples [n]."""
    detector = webrtcvad.Vad(VAD_MODE)
    recent: deque[NDArray[np.int16]] = deque(maxlen=2)
    kept: list[NDArray[np.int16]] = []
    is_open = False
    for start in range(0, len(samples) - VAD_FRAME, VAD_FRAME):
        frame = samples[start : start + VAD_FRAME]
        recent.append(frame)
        voiced = [detector.is_speech(each.tobytes(), RATE) for each in recent]
        if is_open:
            kept.append(frame)
            if voiced == [False, False]:
                is_open = False
                recent.clear()
        elif voiced == [True, True]:
            kept += recent
            is_open = True
            recent.clear()
    return np.concatenate(kept)


def log_mel(samples: NDArray[np.int16]) -> NDArray[np.float32]:
    """The normalised log-mel [1, 64, T ≥ 800] of samples [n]."""
    window, weights = np.hamming(WINDOW), filters()
    rows: list[Frame] = []
    before = 0.0
    for start in range(0, len(samples) + 1, HOP):
        own = samples[start : start + WINDOW].astype(np.float64)
        frame = np.resize(own if len(own) else np.zeros(1), WINDOW)
        spectrum = np.fft.rfft(emphasise(frame, before) * window, FFT)
        before = frame[-1]
        power = spectrum.real**2 + spectrum.imag**2
        rows.append(np.log(np.maximum(power @ weights, FLOOR)))
    bands = np.array(rows, np.float32)
    bands = (bands - bands.mean(axis=0)) / (bands.std(axis=0) + np.finfo(np.float32).eps)
    return np.resize(bands, (max(len(bands), MIN_FRAMES), BANDS)).T[None]


def filters() -> NDArray[np.float64]:
    """The triangular filters [513, 64]."""
    low, high = (2595.0 * np.log10(1.0 + hz / 700.0) for hz in (LOWEST_HZ, HIGHEST_HZ))
    hz = 700.0 * (10.0 ** (np.linspace(low, high, BANDS + 2) / 2595.0) - 1.0)
    edges = np.round(hz * FFT / RATE).astype(int)
    weights = np.zeros((FFT // 2 + 1, BANDS))
    for band, (left, centre, right) in enumerate(zip(edges, edges[1:], edges[2:], strict=False)):
        peak = 2.0 / ((right - left) * RATE / FFT)
        for at in range(left, centre):
            weights[at, band] = peak * (at - left) / (centre - left)
        for at in range(centre, right):
            weights[at, band] = peak * (right - at) / (right - centre)
    return weights
