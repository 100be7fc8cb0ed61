"""Speech to log-mel, with the numbers that CMPC checkpoints were trained with.

    window   400 samples = 25 ms, Hamming        hop  160 samples = 10 ms        FFT  1024 points, 513 bins
    filters  64 triangles between 66 edges, evenly spaced from 20 to 7,200 Hz on mel = 2595 · log10(1 + f / 700)

A frame that runs past the end is filled by repeating its own samples. Pre-emphasis happens inside each frame, and a
frame's first sample is taken against the *last* sample of the frame before, 239 samples later in the recording:
a quirk of the published code that checkpoints have learned.
"""

from __future__ import annotations

from typing import Final

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


def _edge_bins() -> NDArray[np.int64]:
    """FFT bins [66] of the filters' edges: filter j rises from edge j to j + 1 and falls to j + 2."""
    low, high = 2595.0 * np.log10(1.0 + np.array([LOWEST_HZ, HIGHEST_HZ]) / 700.0)
    hz = 700.0 * (10.0 ** (np.linspace(low, high, BANDS + 2) / 2595.0) - 1.0)
    return np.rint(hz * FFT / SAMPLE_RATE).astype(np.int64)


def _filters() -> NDArray[np.float64]:
    """Triangles [bins, bands] over the bins 0 … the last edge; a filter's peak is 2 / (its width in Hz)."""
    edges = _edge_bins()
    bins = np.arange(edges[-1] + 1)
    left, centre, right = edges[:-2, None], edges[1:-1, None], edges[2:, None]
    triangles = np.minimum((bins - left) / (centre - left), (right - bins) / (right - centre)).clip(0.0)
    return (triangles * 2.0 / ((right - left) * SAMPLE_RATE / FFT)).T


_FILTERS: Final = np.ascontiguousarray(_filters().astype(np.float32))
_BINS: Final = len(_FILTERS)
_HAMMING: Final = np.hamming(WINDOW)


def log_mel(samples: NDArray[np.int16], min_frames: int = MIN_FRAMES) -> NDArray[np.float32]:
    """Log-mel energies of speech, each band normalised over time.

    `samples` [n] int16 at 16 kHz, n ≥ 1. Returns [1, 64, T] float32, T = max(n // 160 + 1, `min_frames`): a shorter
    recording is repeated to `min_frames` frames of 10 ms, a longer one kept whole.

    Raises `ValueError` for another dtype or shape, or no samples.
    """
    if samples.dtype != np.int16 or samples.ndim != 1 or len(samples) == 0:
        raise ValueError(f"samples must be int16 [n], n ≥ 1; received {samples.dtype} {list(samples.shape)}")
    spectrum = np.fft.rfft(_emphasised_frames(samples) * _HAMMING, FFT)[:, :_BINS]
    # The transform needs float64, for quiet bands beside loud ones; a sum of powers does not.
    power = (spectrum.real**2 + spectrum.imag**2).astype(np.float32)
    bands = np.log(np.maximum(power @ _FILTERS, np.float32(FLOOR))).T
    normalised = _normalised(bands)
    if normalised.shape[1] < min_frames:
        normalised = np.resize(normalised.T, (min_frames, BANDS)).T
    return np.ascontiguousarray(normalised)[None]


def _emphasised_frames(samples: NDArray[np.int16]) -> NDArray[np.float64]:
    """Overlapping frames [T, 400] after pre-emphasis."""
    frames = _frames(samples)
    emphasised = np.empty(frames.shape)
    emphasised[:, 1:] = frames[:, 1:] - PRE_EMPHASIS * frames[:, :-1]
    emphasised[1:, 0] = frames[1:, 0] - PRE_EMPHASIS * frames[:-1, -1]
    emphasised[0, 0] = frames[0, 0]
    return emphasised


def _frames(samples: NDArray[np.int16]) -> NDArray[np.float64]:
    count = len(samples) // HOP + 1
    whole = 0 if len(samples) < WINDOW else (len(samples) - WINDOW) // HOP + 1
    frames = np.empty((count, WINDOW))
    if whole:
        frames[:whole] = sliding_window_view(samples, WINDOW)[::HOP]
    starts = HOP * np.arange(whole, count)[:, None]
    # The one zero behind the samples is what a frame that starts at their end repeats.
    padded = np.append(samples, np.int16(0))
    frames[whole:] = padded[starts + np.arange(WINDOW) % np.maximum(len(samples) - starts, 1)]
    return frames


def _normalised(bands: NDArray[np.float32]) -> NDArray[np.float32]:
    """Bands [64, T], each minus its mean over time and divided by its standard deviation."""
    centred = bands - bands.mean(axis=1, keepdims=True, dtype=np.float64).astype(np.float32)
    deviation = np.sqrt((centred**2).mean(axis=1, keepdims=True, dtype=np.float64)).astype(np.float32)
    return centred / (deviation + np.finfo(np.float32).eps)
