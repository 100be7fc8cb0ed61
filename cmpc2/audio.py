"""Decode audio of any format to 16 kHz, mono, 16 bits.

libsndfile decodes and soxr (quality HQ) resamples. Files are mixed down and resampled in blocks while they are read, so
that memory depends on their duration, not on the sample rate or channel count in their header.
"""

from __future__ import annotations

import io
import os
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, TypeVar, cast

import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray

from cmpc2.errors import AudioError

SAMPLE_RATE: Final = 16_000
FULL_SCALE: Final = 32_768  # the int16 value that libsndfile converts to 1.0
BLOCK_VALUES: Final = 1 << 18  # frames × channels per block: 1 MiB of float32
PROBE_FRAMES: Final = 1 << 12  # frames per block beyond the length given in the header
UNKNOWN_FRAMES: Final = 2**63 - 1  # libsndfile's length of a FLAC stream of unknown length

Sample = TypeVar("Sample", np.int16, np.float32)


def decode(source: bytes | str | Path, *, max_seconds: float | None = None) -> NDArray[np.int16]:
    """Decode a recording.

    `source` is the content of an audio file (bytes) or its path. Returns samples [n], int16, 16 kHz, the mean of the
    channels. 16-bit mono at 16 kHz is returned unchanged.

    Raises `AudioError`: `not_audio` if libsndfile cannot decode the file, or if it has no samples or samples that are
    not finite; `too_long` if the recording is longer than `max_seconds`. The length in the header is checked before
    anything is decoded. Raises `OSError` for a path that cannot be opened.
    """
    with _open(source) as file:
        if file.frames != UNKNOWN_FRAMES:
            _check_length(file.frames, file.samplerate, max_seconds)
        if (file.samplerate, file.channels, file.subtype) == (SAMPLE_RATE, 1, "PCM_16"):
            blocks = [block[:, 0] for block in _blocks(file, np.int16, max_seconds)]
        else:
            blocks = list(_converted(file, max_seconds))
    return blocks[0] if len(blocks) == 1 else np.concatenate(blocks)


class _Stream(soundfile.SoundFile):
    """A file that is only read sequentially.

    After each read from a seekable file, soundfile seeks to the current position. That fails in a FLAC stream of
    unknown length and restarts the decoder of lossy formats.
    """

    def seekable(self) -> bool:
        return False


class _Memory(io.BytesIO):
    """Bytes in memory. Damaged headers cause seeks to negative positions, for which BytesIO raises ValueError inside
    libsndfile's callback: a traceback on stderr."""

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        return super().seek(max(offset, 0) if whence == os.SEEK_SET else offset, whence)


@contextmanager
def _open(source: bytes | str | Path) -> Generator[soundfile.SoundFile]:
    if isinstance(source, bytes):
        if not source:
            raise AudioError("not_audio", "audio must not be empty; received 0 bytes")
        with _stream(_Memory(source), len(source)) as file:
            yield file
    else:
        # Pass the descriptor, not the name: soundfile reads a file named .raw as samples without a header.
        with Path(source).open("rb") as handle:
            descriptor = handle.fileno()
            with _stream(descriptor, os.fstat(descriptor).st_size) as file:
                yield file


@contextmanager
def _stream(source: io.BytesIO | int, size: int) -> Generator[soundfile.SoundFile]:
    try:
        with _Stream(source, closefd=False) as file:
            yield file
    except soundfile.LibsndfileError as error:
        reason = error.error_string.strip().rstrip(".")
        rule = "audio must be in a format that libsndfile reads (wav, flac, ogg, mp3 …)"
        raise AudioError("not_audio", f"{rule}; received {size} bytes: {reason}") from error


def _blocks(file: soundfile.SoundFile, dtype: type[Sample], max_seconds: float | None) -> Generator[NDArray[Sample]]:
    """Read the whole file, which may be longer than its header says, in blocks [n, channels]; at least one."""
    name = cast(Any, np.dtype(dtype).name)
    block_frames = max(1, BLOCK_VALUES // file.channels)
    frames = 0
    while True:
        # libsndfile pads a read beyond the end with zeros, which takes as long as decoding.
        expected = file.frames - frames if frames < file.frames else PROBE_FRAMES
        block = cast(NDArray[Sample], file.read(min(block_frames, expected), dtype=name, always_2d=True))
        if len(block) == 0:
            break
        frames += len(block)
        _check_length(frames, file.samplerate, max_seconds)
        yield block
    if frames == 0:
        raise AudioError("not_audio", "audio must contain at least one sample; received a file without samples")


def _converted(file: soundfile.SoundFile, max_seconds: float | None) -> Generator[NDArray[np.int16]]:
    """Mix down and resample a file of any format; yield blocks [n] at 16 kHz."""
    resampler = None
    if file.samplerate != SAMPLE_RATE:
        resampler = soxr.ResampleStream(file.samplerate, SAMPLE_RATE, 1, dtype="float32")
    for block in _blocks(file, np.float32, max_seconds):
        mono = block[:, 0] if file.channels == 1 else block.mean(axis=1)
        if not np.isfinite(mono).all():
            raise AudioError("not_audio", "every sample must be a finite number; received NaN or infinity")
        yield _to_int16(resampler.resample_chunk(mono) if resampler else mono)
    if resampler:
        yield _to_int16(resampler.resample_chunk(np.zeros(0, np.float32), last=True))


def _to_int16(mono: NDArray[np.float32]) -> NDArray[np.int16]:
    return np.clip(np.rint(mono * np.float32(FULL_SCALE)), -FULL_SCALE, FULL_SCALE - 1).astype(np.int16)


def _check_length(frames: int, rate: int, max_seconds: float | None) -> None:
    if max_seconds is not None and frames > max_seconds * rate:
        received = f"received at least {frames / rate:.2f} s"
        raise AudioError("too_long", f"audio may last at most {max_seconds:g} s; {received}")
