"""Speech to log-mel, with the numbers that CMPC checkpoints were trained with.

    window   400 samples = 25 ms, Hamming; hop 160 samples = 10 ms; FFT 1024 points, power spectrum
    filters  64 triangles between 66 edges, evenly spaced from 20 to 7,200 Hz on mel = 2595·log10(1 + f/700)

A frame that runs past the end is filled by repeating its own samples. Pre-emphasis happens inside each frame;
a frame's first sample is taken against the *last* sample of the frame before, which comes 239 samples after
it in the recording: a quirk of the published code that checkpoints have learned.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from cmpc2.audio import SAMPLE_RATE

WINDOW: Final = 400
HOP: Final = 160
FFT: Final = 1024
BANDS: Final = 64
LOWEST_HZ: Final = 20.0
HIGHEST_HZ: Final = 7200.0
PRE_EMPHASIS: Final = 0.97
FLOOR: Final = 1e-5
MIN_FRAMES: Final = 800
# A block of frames stays in the cache, and its matrix product below the size at which OpenBLAS wakes threads:
# three times as fast as all frames at once, and more on a busy machine.
BLOCK_FRAMES: Final = 32


def log_mel(samples: NDArray[np.int16], min_frames: int = MIN_FRAMES) -> NDArray[np.float32]:
    """Log-mel energies of speech, each band normalised over time.

    `samples` [n] int16 at 16 kHz, n ≥ 1. Returns [1, 64, T] float32, T = max(n // 160 + 1, `min_frames`): a
    shorter recording is repeated to `min_frames` frames of 10 ms, a longer one kept whole.

    Raises `ValueError` for another dtype or shape, or no samples.
    """
    if samples.dtype != np.int16 or samples.ndim != 1 or len(samples) == 0:
        raise ValueError(f"samples must be int16 [n], n ≥ 1; received {samples.dtype} {list(samples.shape)}")
    frames = _frames(samples)
    before = np.append(np.int16(0), frames[:-1, -1])
    energies = np.empty((len(frames), BANDS), np.float32)
    for start in range(0, len(frames), BLOCK_FRAMES):
        block = slice(start, start + BLOCK_FRAMES)
        np.matmul(_power(frames[block], before[block]), _FILTERS, out=energies[block])
    bands = _normalised(np.log(np.maximum(energies, np.float32(FLOOR))))
    if len(bands) < min_frames:
        bands = bands[np.arange(min_frames) % len(bands)]
    return np.ascontiguousarray(bands.T)[None]


def _frames(samples: NDArray[np.int16]) -> NDArray[np.int16]:
    """Overlapping frames [T, 400]."""
    count = len(samples) // HOP + 1
    whole = max(0, (len(samples) - WINDOW) // HOP + 1)
    frames = np.empty((count, WINDOW), np.int16)
    if whole:
        frames[:whole] = sliding_window_view(samples, WINDOW)[::HOP]
    starts = HOP * np.arange(whole, count)[:, None]
    # A frame that starts at the very end repeats the one zero behind the samples.
    padded = np.append(samples, np.int16(0))
    frames[whole:] = padded[starts + np.arange(WINDOW) % np.maximum(len(samples) - starts, 1)]
    return frames


def _power(frames: NDArray[np.int16], before: NDArray[np.int16]) -> NDArray[np.float32]:
    """Power spectrum [T, bins] of frames [T, 400], given the last sample [T] of the frame before each."""
    emphasised = np.empty(frames.shape)
    np.multiply(frames[:, :-1], -PRE_EMPHASIS, out=emphasised[:, 1:])
    np.multiply(before, -PRE_EMPHASIS, out=emphasised[:, 0])
    emphasised += frames
    emphasised *= _HAMMING
    # float64, for the quiet bins beside loud ones; the sum of powers that follows cancels nothing.
    spectrum = np.fft.rfft(emphasised, FFT)[:, : len(_FILTERS)]
    return (spectrum.real**2 + spectrum.imag**2).astype(np.float32)


def _normalised(bands: NDArray[np.float32]) -> NDArray[np.float32]:
    """Bands [T, 64], each minus its mean over time and divided by its standard deviation."""
    # Published in float32; in float64 a long recording or a nearly constant band keeps its digits.
    centred: NDArray[np.float64] = bands - bands.mean(axis=0, dtype=np.float64)
    deviation = np.sqrt(np.square(centred).mean(axis=0))
    return (centred / (deviation + np.finfo(np.float32).eps)).astype(np.float32)


def _edge_bins() -> NDArray[np.int64]:
    """FFT bins [66] of the edges: filter j rises from edge j to j + 1 and falls to j + 2."""
    low, high = (2595.0 * np.log10(1.0 + hz / 700.0) for hz in (LOWEST_HZ, HIGHEST_HZ))
    hz: NDArray[np.float64] = 700.0 * (10.0 ** (np.linspace(low, high, BANDS + 2) / 2595.0) - 1.0)
    return np.rint(hz * FFT / SAMPLE_RATE).astype(np.int64)


def _filters() -> NDArray[np.float32]:
    """Triangles [bins, 64] over the bins up to the last edge; a peak is 2 / (the filter's width in Hz)."""
    edges = _edge_bins()
    left, centre, right = edges[:-2], edges[1:-1], edges[2:]
    bins: NDArray[np.int64] = np.arange(edges[-1] + 1)[:, None]
    rising: NDArray[Any] = (bins - left) / (centre - left)
    falling: NDArray[Any] = (right - bins) / (right - centre)
    peaks = 2.0 / ((right - left) * SAMPLE_RATE / FFT)
    return (np.minimum(rising, falling).clip(0.0) * peaks).astype(np.float32)


_FILTERS: Final = _filters()
_HAMMING: Final = np.hamming(WINDOW)
