"""Speech to log-mel, with the numbers that CMPC checkpoints were trained with.

    window   400 samples = 25 ms, Hamming; hop 160 samples = 10 ms; FFT 1024 points, power spectrum
    filters  64 triangles between 66 edges, evenly spaced from 20 to 7,200 Hz on mel = 2595·log10(1 + f/700)

A frame that runs past the end is filled by repeating its own samples. Pre-emphasis happens inside each frame;
a frame's first sample is taken against the *last* sample of the frame before, which comes 239 samples after
it in the recording: a quirk of the published code that checkpoints have learned.
"""

from __future__ import annotations

import threading
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
_LAST_BEFORE: Final = WINDOW - HOP - 1  # where the last sample of the frame before lies, from a frame's first
# Blocks of frames stay in the cache; blocks of bands skip the zeros of the filters. Both keep a matrix product
# below the size at which OpenBLAS wakes threads, which costs more than the product and most on a busy machine.
BLOCK_FRAMES: Final = 96
BLOCK_BANDS: Final = 8


def log_mel(samples: NDArray[np.int16], min_frames: int = MIN_FRAMES) -> NDArray[np.float32]:
    """Log-mel energies of speech, each band normalised over time.

    `samples` [n] int16 at 16 kHz, n ≥ 1. Returns [1, 64, T] float32, T = max(n // 160 + 1, `min_frames`): a
    shorter recording is repeated to `min_frames` frames of 10 ms, a longer one kept whole.

    Raises `ValueError` for another dtype or shape, or no samples.
    """
    if samples.dtype != np.int16 or samples.ndim != 1 or len(samples) == 0:
        raise ValueError(f"samples must be int16 [n], n ≥ 1; received {samples.dtype} {list(samples.shape)}")
    count = len(samples) // HOP + 1
    whole = max(0, (len(samples) - WINDOW) // HOP + 1)  # frames that do not run past the end
    energies = np.empty((BANDS, count), np.float32)
    for start in [*range(0, whole, BLOCK_FRAMES), whole]:
        stop = min(start + BLOCK_FRAMES, whole)
        frames = _whole_frames(samples, start, stop) if start < whole else _frames_past_end(samples, whole)
        _mel_energies(frames, out=energies[:, start : start + len(frames)])
    np.maximum(energies, np.float32(FLOOR), out=energies)
    np.log(energies, out=energies)
    bands = np.empty((1, BANDS, max(count, min_frames)), np.float32)
    _normalise(energies, out=bands[0, :, :count])
    for start in range(count, min_frames, count):
        bands[:, :, start : start + count] = bands[:, :, : min(count, min_frames - start)]
    return bands


class _Memory(threading.local):
    """What a block needs, kept by each thread: fresh pages for every call would cost a tenth of its time."""

    def __init__(self) -> None:
        # Eight more than a power of two: rows 8 KiB apart would push each other out of the cache.
        self.frames = np.zeros((BLOCK_FRAMES, FFT + 8))[:, :FFT]  # zeros stay behind the windows
        self.emphasised = np.zeros(HOP * (BLOCK_FRAMES - 1) + WINDOW)
        self.windows = sliding_window_view(self.emphasised, WINDOW)[::HOP]  # [96, 400]
        self.spectrum = np.empty((BLOCK_FRAMES, FFT // 2 + 1), np.complex128)
        self.parts = self.spectrum.view(np.float64)[:, : 2 * _BINS]
        self.squares = np.empty((BLOCK_FRAMES, 2 * _BINS), np.float32)


def _whole_frames(samples: NDArray[np.int16], start: int, stop: int) -> NDArray[np.float64]:
    """Frames `start` … `stop` [T ≤ 96, 1024], pre-emphasised and windowed, zeros behind their 400 samples.

    The thread's next frames overwrite them.
    """
    length = stop - start
    piece = samples[HOP * start : HOP * (stop - 1) + WINDOW].astype(np.float64)
    # Overlapping frames share their emphasised samples, except the first of each.
    shared = _memory.emphasised[1 : len(piece)]
    np.multiply(piece[:-1], -PRE_EMPHASIS, out=shared)
    shared += piece[1:]
    frames = _memory.frames[:length]
    np.multiply(_memory.windows[:length], _HAMMING, out=frames[:, :WINDOW])
    first = piece[: HOP * length : HOP] - PRE_EMPHASIS * piece[_LAST_BEFORE::HOP][:length]
    if start == 0:
        first[0] = piece[0]
    np.multiply(first, _HAMMING[0], out=frames[:, 0])
    return frames


def _frames_past_end(samples: NDArray[np.int16], whole: int) -> NDArray[np.float64]:
    """The frames [1 … 3, 1024] after the `whole` ones, likewise."""
    # A frame that starts at the very end repeats the one zero behind the samples.
    rest = np.append(samples[HOP * whole :], np.int16(0)).astype(np.float64)
    starts = np.arange(0, len(rest), HOP)[:, None]
    own = rest[starts + np.arange(WINDOW) % np.maximum(len(rest) - 1 - starts, 1)]
    before = rest[_LAST_BEFORE] if whole else 0.0
    previous = np.append(before, own.reshape(-1)[:-1]).reshape(own.shape)
    frames = _memory.frames[: len(own)]
    np.multiply(own - PRE_EMPHASIS * previous, _HAMMING, out=frames[:, :WINDOW])
    return frames


def _mel_energies(frames: NDArray[np.float64], out: NDArray[np.float32]) -> None:
    """Mel energies [64, T] of windowed frames [T ≤ 96, 1024]."""
    # float64, for the quiet bins beside loud ones; the sum of squares that follows cancels nothing.
    np.fft.rfft(frames, out=_memory.spectrum[: len(frames)])
    squares = _memory.squares[: len(frames)]
    squares[:] = _memory.parts[: len(frames)]
    np.square(squares, out=squares)
    for bands, parts, weights in _FILTERS:
        np.matmul(weights, squares[:, parts].T, out=out[bands])


def _normalise(bands: NDArray[np.float32], out: NDArray[np.float32]) -> None:
    """Bands [64, T], each minus its mean over time and divided by its standard deviation."""
    # Published in float32; in float64 a long recording or a nearly constant band keeps its digits.
    centred = bands.astype(np.float64)
    centred -= centred.mean(axis=1, keepdims=True)
    deviation = np.sqrt(np.einsum("bt,bt->b", centred, centred) / centred.shape[1])
    np.divide(centred, deviation[:, None] + np.finfo(np.float32).eps, out=out, casting="same_kind")


def _edge_bins() -> NDArray[np.int64]:
    """FFT bins [66] of the edges: filter j rises from edge j to j + 1 and falls to j + 2."""
    low, high = (2595.0 * np.log10(1.0 + hz / 700.0) for hz in (LOWEST_HZ, HIGHEST_HZ))
    hz: NDArray[np.float64] = 700.0 * (10.0 ** (np.linspace(low, high, BANDS + 2) / 2595.0) - 1.0)
    return np.rint(hz * FFT / SAMPLE_RATE).astype(np.int64)


def _filters() -> list[tuple[slice, slice, NDArray[np.float32]]]:
    """Triangles over the bins up to the last edge; a peak is 2 / (the filter's width in Hz).

    Eight bands at a time: the bands, the parts of the spectrum that they touch, and weights [8, parts]. A bin's
    real and imaginary part lie side by side, so that every weight stands twice.
    """
    edges = _edge_bins()
    left, centre, right = edges[:-2, None], edges[1:-1, None], edges[2:, None]
    bins: NDArray[np.int64] = np.arange(_BINS)
    rising: NDArray[Any] = (bins - left) / (centre - left)
    falling: NDArray[Any] = (right - bins) / (right - centre)
    peaks = 2.0 / ((right - left) * SAMPLE_RATE / FFT)
    weights = np.repeat((np.minimum(rising, falling).clip(0.0) * peaks).astype(np.float32), 2, axis=1)
    filters: list[tuple[slice, slice, NDArray[np.float32]]] = []
    for first in range(0, BANDS, BLOCK_BANDS):
        bands = slice(first, first + BLOCK_BANDS)
        parts = slice(2 * int(edges[bands.start]), 2 * int(edges[bands.stop + 1]))
        filters.append((bands, parts, np.ascontiguousarray(weights[bands, parts])))
    return filters


_BINS: Final = int(_edge_bins()[-1])  # the last edge itself has no weight
_FILTERS: Final = _filters()
_HAMMING: Final = np.hamming(WINDOW)
_memory: Final = _Memory()
