"""Log-mel spectrograms of speech, with the parameters that CMPC checkpoints were trained with.

    window   400 samples = 25 ms, Hamming; hop 160 samples = 10 ms; FFT 1024 points, power spectrum
    filters  64 triangles between 66 edges, evenly spaced from 20 to 7,200 Hz on mel = 2595·log10(1 + f/700)

A frame that extends past the end of the recording is filled by repeating its own samples. Pre-emphasis is applied
within each frame; for a frame's first sample it uses the *last* sample of the previous frame, which lies 239 samples
later in the recording. This is a quirk of the published code, and checkpoints were trained with it.
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
_LAST_BEFORE: Final = WINDOW - HOP - 1  # offset of the previous frame's last sample from a frame's first
# A block of frames fits in the cache; a block of bands skips the zeros of the filters. Both keep matrix products below
# the size at which OpenBLAS uses several threads, which would cost more time than the product itself.
BLOCK_FRAMES: Final = 96
BLOCK_BANDS: Final = 8


def log_mel(samples: NDArray[np.int16], min_frames: int = MIN_FRAMES) -> NDArray[np.float32]:
    """Compute log-mel energies of speech, each band normalised over time.

    `samples` [n] int16 at 16 kHz, n ≥ 1. Returns [1, 64, T] float32, T = max(n // 160 + 1, `min_frames`) frames of
    10 ms. The frames of a shorter recording are repeated up to `min_frames`.

    Raises `ValueError` for another dtype or shape, or no samples.
    """
    if samples.dtype != np.int16 or samples.ndim != 1 or len(samples) == 0:
        raise ValueError(f"samples must be int16 [n], n ≥ 1; received {samples.dtype} {list(samples.shape)}")
    count = len(samples) // HOP + 1
    whole = max(0, (len(samples) - WINDOW) // HOP + 1)  # frames that end within the recording
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


class _Buffers(threading.local):
    """Work arrays of a block, one set per thread: allocating them in each call would take a tenth of its time."""

    def __init__(self) -> None:
        # 8 more than a power of two: with rows 8 KiB apart, cache lines of different rows would evict each other.
        self.frames = np.zeros((BLOCK_FRAMES, FFT + 8))[:, :FFT]  # stays 0 after the first WINDOW columns
        self.emphasised = np.zeros(HOP * (BLOCK_FRAMES - 1) + WINDOW)
        self.windows = sliding_window_view(self.emphasised, WINDOW)[::HOP]  # [96, 400]
        self.spectrum = np.empty((BLOCK_FRAMES, FFT // 2 + 1), np.complex128)
        self.parts = self.spectrum.view(np.float64)[:, : 2 * _BINS]
        self.squares = np.empty((BLOCK_FRAMES, 2 * _BINS), np.float32)


def _whole_frames(samples: NDArray[np.int16], start: int, stop: int) -> NDArray[np.float64]:
    """Frames `start` … `stop` [T ≤ 96, 1024], pre-emphasised, windowed and zero-padded.

    The array is reused: the thread's next call overwrites it.
    """
    length = stop - start
    piece = samples[HOP * start : HOP * (stop - 1) + WINDOW].astype(np.float64)
    # Overlapping frames share their pre-emphasised samples, except the first of each.
    shared = _buffers.emphasised[1 : len(piece)]
    np.multiply(piece[:-1], -PRE_EMPHASIS, out=shared)
    shared += piece[1:]
    frames = _buffers.frames[:length]
    np.multiply(_buffers.windows[:length], _HAMMING, out=frames[:, :WINDOW])
    first = piece[: HOP * length : HOP] - PRE_EMPHASIS * piece[_LAST_BEFORE::HOP][:length]
    if start == 0:
        first[0] = piece[0]
    np.multiply(first, _HAMMING[0], out=frames[:, 0])
    return frames


def _frames_past_end(samples: NDArray[np.int16], whole: int) -> NDArray[np.float64]:
    """The remaining 1 to 3 frames [1 … 3, 1024], which extend past the end, prepared in the same way."""
    # A frame that starts at the end of the recording repeats the zero appended here.
    rest = np.append(samples[HOP * whole :], np.int16(0)).astype(np.float64)
    starts = np.arange(0, len(rest), HOP)[:, None]
    own = rest[starts + np.arange(WINDOW) % np.maximum(len(rest) - 1 - starts, 1)]
    before = rest[_LAST_BEFORE] if whole else 0.0
    previous = np.append(before, own.reshape(-1)[:-1]).reshape(own.shape)
    frames = _buffers.frames[: len(own)]
    np.multiply(own - PRE_EMPHASIS * previous, _HAMMING, out=frames[:, :WINDOW])
    return frames


def _mel_energies(frames: NDArray[np.float64], out: NDArray[np.float32]) -> None:
    """Compute mel energies [64, T] of windowed frames [T ≤ 96, 1024] into `out`."""
    # float64 keeps the digits of quiet bins next to loud ones; float32 is enough for the sums of squares.
    np.fft.rfft(frames, out=_buffers.spectrum[: len(frames)])
    squares = _buffers.squares[: len(frames)]
    squares[:] = _buffers.parts[: len(frames)]
    np.square(squares, out=squares)
    for bands, parts, weights in _FILTERS:
        np.matmul(weights, squares[:, parts].T, out=out[bands])


def _normalise(bands: NDArray[np.float32], out: NDArray[np.float32]) -> None:
    """Subtract each band's mean over time and divide by its standard deviation: [64, T] to `out` [64, T]."""
    # The published code uses float32; float64 keeps the digits of long recordings and of nearly constant bands.
    centred = bands.astype(np.float64)
    centred -= centred.mean(axis=1, keepdims=True)
    deviation = np.sqrt(np.einsum("bt,bt->b", centred, centred) / centred.shape[1])
    np.divide(centred, deviation[:, None] + np.finfo(np.float32).eps, out=out, casting="same_kind")


def _edge_bins() -> NDArray[np.int64]:
    """FFT bins [66] of the filter edges: filter j rises from edge j to j + 1 and falls to j + 2."""
    low, high = (2595.0 * np.log10(1.0 + hz / 700.0) for hz in (LOWEST_HZ, HIGHEST_HZ))
    hz: NDArray[np.float64] = 700.0 * (10.0 ** (np.linspace(low, high, BANDS + 2) / 2595.0) - 1.0)
    return np.rint(hz * FFT / SAMPLE_RATE).astype(np.int64)


def _filters() -> list[tuple[slice, slice, NDArray[np.float32]]]:
    """Triangular filters, with a peak of 2 / (width in Hz), in blocks of eight bands.

    A block is its bands, the slice of the spectrum where they are not zero, and their weights [8, slice]. Real and
    imaginary parts alternate in the spectrum, so each weight occurs twice.
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


_BINS: Final = int(_edge_bins()[-1])  # the weight at the last edge is 0
_FILTERS: Final = _filters()
_HAMMING: Final = np.hamming(WINDOW)
_buffers: Final = _Buffers()
