"""Audio in any container to what the front end hears: 16 kHz, mono, 16 bits.

libsndfile reads, soxr (quality HQ) resamples. A file is mixed down and resampled block by block as it is
read, so that memory follows its seconds and not the rate or the channel count that its header claims. What
already is 16 kHz, mono, 16 bits goes through as it is.
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
FULL_SCALE: Final = 32_768  # int16 steps that libsndfile maps to 1.0
BLOCK_VALUES: Final = 1 << 18  # frames × channels read at a time, 1 MiB of float32
PROBE_FRAMES: Final = 1 << 12  # read at a time past the frames that the header claims
UNKNOWN_FRAMES: Final = 2**63 - 1  # what libsndfile says of a FLAC stream that does not know its length

Sample = TypeVar("Sample", np.int16, np.float32)


def decode(source: bytes | str | Path, *, max_seconds: float | None = None) -> NDArray[np.int16]:
    """Decodes a recording.

    `source` is the encoded file itself (bytes) or its path. Returns samples [n], int16, 16 kHz, the mean of
    the channels. 16-bit 16 kHz mono passes through bit for bit.

    Raises `AudioError`: `not_audio` if libsndfile cannot read the bytes, or if they hold no samples or
    samples that are not finite; `too_long` if the recording lasts longer than `max_seconds`, which the header
    decides before anything is decoded. A path that cannot be opened raises `OSError`.
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
    """A file read from front to back.

    soundfile seeks to where it already is after every read from a seekable file, which fails in a FLAC stream
    of unknown length and restarts the decoder of lossy formats.
    """

    def seekable(self) -> bool:
        return False


class _Memory(io.BytesIO):
    """Bytes that a damaged header may seek about in; BytesIO's ValueError would end as a traceback on stderr."""

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
        # The descriptor and not the name: soundfile takes a name in .raw for samples without a header.
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
        rule = "audio must be a sound file that libsndfile reads (wav, flac, ogg, mp3 …)"
        raise AudioError("not_audio", f"{rule}; received {size} bytes: {reason}") from error


def _blocks(file: soundfile.SoundFile, dtype: type[Sample], max_seconds: float | None) -> Generator[NDArray[Sample]]:
    """Blocks [n, channels] of all that there is, which may be more than the header claims; at least one."""
    name = cast(Any, np.dtype(dtype).name)
    block_frames = max(1, BLOCK_VALUES // file.channels)
    frames = 0
    while True:
        # libsndfile fills what was asked for and is not there with zeros, at the cost of as much audio.
        expected = file.frames - frames if frames < file.frames else PROBE_FRAMES
        block = cast(NDArray[Sample], file.read(min(block_frames, expected), dtype=name, always_2d=True))
        if len(block) == 0:
            break
        frames += len(block)
        _check_length(frames, file.samplerate, max_seconds)
        yield block
    if frames == 0:
        raise AudioError("not_audio", "audio must hold at least one sample; received a file with none")


def _converted(file: soundfile.SoundFile, max_seconds: float | None) -> Generator[NDArray[np.int16]]:
    """Blocks [n] at 16 kHz of a file of any rate, channels and sample format."""
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
